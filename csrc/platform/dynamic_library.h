// SPDX-License-Identifier: Apache-2.0
// Libraries that are opened at run time, so that the addon loads on a machine that has none of them.
#pragma once
#include <string>
#include <vector>

namespace flashinfer::platform {

class DynamicLibrary {
 public:
  /**
   * Opens the first of `candidates` (names or UTF-8 paths, in order) that loads. `searched` gets one readable line a
   * candidate: what was tried and why it failed. A library is never closed: drivers do not survive that.
   */
  static DynamicLibrary Open(const std::vector<std::string>& candidates, std::vector<std::string>* searched);

  explicit operator bool() const { return handle_ != nullptr; }
  /** Address of an exported symbol, or nullptr. */
  void* Symbol(const char* name) const;
  /** The file that `symbol` came from, or the candidate's name where the system cannot tell. */
  std::string Path(void* symbol) const;

 private:
  void* handle_ = nullptr;
  std::string name_;
};

}  // namespace flashinfer::platform
