// SPDX-License-Identifier: Apache-2.0
// The one exception type of the addon; binding/call.h turns it into a JS Error with the same properties.
#pragma once
#include <exception>
#include <string>
#include <utility>

namespace flashinfer {

struct NativeError : std::exception {
  /** One of the codes that packages/core/src/native/binding.ts documents. */
  const char* code;
  std::string message;
  /** CUresult, nvrtcResult or errno; 0 means the property is left out. */
  int driverCode;
  /** Compiler output, for code 'COMPILE'. */
  std::string log;

  NativeError(const char* code, std::string message, int driverCode = 0, std::string log = {})
      : code(code), message(std::move(message)), driverCode(driverCode), log(std::move(log)) {}

  const char* what() const noexcept override { return message.c_str(); }
};

}  // namespace flashinfer
