// SPDX-License-Identifier: Apache-2.0
// An exclusive advisory lock that the system drops when the process dies, however it dies.
#pragma once
#include <cstdint>
#include <string>

namespace flashinfer::platform {

enum class LockOutcome { kLocked, kHeldByOther, kFailed };

struct LockResult {
  LockOutcome outcome;
  /** File descriptor (POSIX) or HANDLE (Windows); valid when locked. */
  intptr_t handle;
  /** errno or GetLastError() when failed, and its text. */
  int errorCode;
  std::string error;
};

/** Creates `path` (UTF-8) where needed and tries once; never waits. The file stays: removing it would race. */
LockResult TryLockFile(const std::string& path);

void UnlockFile(intptr_t handle) noexcept;

}  // namespace flashinfer::platform
