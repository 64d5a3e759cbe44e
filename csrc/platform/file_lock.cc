// SPDX-License-Identifier: Apache-2.0
#include "platform/file_lock.h"

#include <cerrno>
#include <cstring>
#include <system_error>
#ifdef _WIN32
#include "platform/windows_text.h"
#else
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#endif

namespace flashinfer::platform {

static LockResult Failed(int code) { return {LockOutcome::kFailed, -1, code, std::system_category().message(code)}; }

#ifdef _WIN32

LockResult TryLockFile(const std::string& path) {
  HANDLE file = CreateFileW(WidenPath(path).c_str(), GENERIC_READ | GENERIC_WRITE,
                            FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr, OPEN_ALWAYS,
                            FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) return Failed(static_cast<int>(GetLastError()));
  OVERLAPPED whole{};
  if (LockFileEx(file, LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, MAXDWORD, MAXDWORD, &whole)) {
    return {LockOutcome::kLocked, reinterpret_cast<intptr_t>(file), 0, {}};
  }
  const DWORD code = GetLastError();
  CloseHandle(file);
  if (code == ERROR_LOCK_VIOLATION || code == ERROR_IO_PENDING) return {LockOutcome::kHeldByOther, -1, 0, {}};
  return Failed(static_cast<int>(code));
}

void UnlockFile(intptr_t handle) noexcept { CloseHandle(reinterpret_cast<HANDLE>(handle)); }

#else

LockResult TryLockFile(const std::string& path) {
  // flock belongs to the open file, not to the process: a second open in this process is refused as well, and
  // close-on-exec keeps a child from holding the lock on after our death.
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return Failed(errno);
  int status;
  do {
    status = flock(fd, LOCK_EX | LOCK_NB);
  } while (status != 0 && errno == EINTR);
  if (status == 0) return {LockOutcome::kLocked, fd, 0, {}};
  const int code = errno;
  close(fd);
  if (code == EWOULDBLOCK) return {LockOutcome::kHeldByOther, -1, 0, {}};
  return Failed(code);
}

void UnlockFile(intptr_t handle) noexcept { close(static_cast<int>(handle)); }

#endif

}  // namespace flashinfer::platform
