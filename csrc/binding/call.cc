// SPDX-License-Identifier: Apache-2.0
#include "binding/call.h"

#include <cstring>

namespace flashinfer {

napi_value BytesToJs(napi_env env, const void* data, size_t size) {
  void* copy;
  napi_value buffer, array;
  Check(napi_create_arraybuffer(env, size, &copy, &buffer), "an ArrayBuffer");
  if (size != 0) std::memcpy(copy, data, size);
  Check(napi_create_typedarray(env, napi_uint8_array, size, buffer, 0, &array), "a Uint8Array");
  return array;
}

napi_value ErrorToJs(napi_env env, const NativeError& error) {
  napi_value out;
  Check(napi_create_error(env, ToJs(env, std::string(error.code)), ToJs(env, error.message), &out), "an Error");
  if (error.driverCode != 0) {
    Check(napi_set_named_property(env, out, "driverCode", ToJs(env, error.driverCode)), "driverCode");
  }
  if (!error.log.empty()) Check(napi_set_named_property(env, out, "log", ToJs(env, error.log)), "log");
  return out;
}

void ThrowToJs(napi_env env, const NativeError& error) noexcept {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) return;
  try {
    napi_throw(env, ErrorToJs(env, error));
  } catch (const NativeError&) {
    // JS cannot run any more: the environment is being torn down.
  }
}

}  // namespace flashinfer
