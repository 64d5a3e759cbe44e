// SPDX-License-Identifier: Apache-2.0
// Host memory and file locks: `NativeHost` in packages/core/src/native/binding.ts.
#include <cstring>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "binding/call.h"
#include "platform/file_lock.h"
#include "platform/memory.h"
#include "register.h"

namespace flashinfer {
namespace {

/** Everything of one environment; a worker that ends, or is terminated, gives it all back. */
struct HostState {
  explicit HostState(napi_env env) : env(env) {}
  ~HostState() {
    for (const auto& [ptr, bytes] : blocks) platform::AlignedFree(reinterpret_cast<void*>(ptr));
    for (const intptr_t handle : locks) platform::UnlockFile(handle);
  }
  HostState(const HostState&) = delete;
  HostState& operator=(const HostState&) = delete;

  napi_env env;
  std::unordered_map<Ptr, size_t> blocks;
  size_t allocatedBytes = 0;
  std::unordered_set<intptr_t> locks;
};

/** Lets the garbage collector know how much memory hangs on unreachable tensors. */
void ReportToGc(HostState& state, int64_t change) {
  int64_t total;
  napi_adjust_external_memory(state.env, change, &total);
}

Ptr Alloc(HostState& state, uint64_t bytes) {
  void* block = platform::AlignedAlloc(bytes);
  if (block == nullptr) throw NativeError("OOM", "host.alloc: no memory for " + std::to_string(bytes) + " bytes");
  const Ptr ptr = reinterpret_cast<Ptr>(block);
  state.blocks.emplace(ptr, bytes);
  state.allocatedBytes += bytes;
  ReportToGc(state, static_cast<int64_t>(bytes));
  return ptr;
}

void Free(HostState& state, Ptr ptr) {
  const auto block = state.blocks.find(ptr);
  if (block == state.blocks.end()) {
    throw NativeError("INVALID_POINTER",
                      "host.free: " + std::to_string(ptr) +
                          " is not a block of this thread; it was freed before, or allocated elsewhere");
  }
  const size_t bytes = block->second;
  state.blocks.erase(block);
  platform::AlignedFree(reinterpret_cast<void*>(ptr));
  state.allocatedBytes -= bytes;
  ReportToGc(state, -static_cast<int64_t>(bytes));
}

void Write(HostState&, Ptr dst, Bytes src) {
  if (src.size != 0) std::memcpy(reinterpret_cast<void*>(dst), src.data, src.size);
}

void Read(HostState&, Ptr src, Bytes dst) {
  if (dst.size != 0) std::memcpy(dst.data, reinterpret_cast<void*>(src), dst.size);
}

void Copy(HostState&, Ptr dst, Ptr src, uint64_t bytes) {
  if (bytes != 0) std::memmove(reinterpret_cast<void*>(dst), reinterpret_cast<void*>(src), bytes);
}

void Fill(HostState&, Ptr dst, int32_t byte, uint64_t bytes) {
  if (bytes != 0) std::memset(reinterpret_cast<void*>(dst), byte, bytes);
}

double TryLockFile(HostState& state, std::string path) {
  const platform::LockResult result = platform::TryLockFile(path);
  if (result.outcome == platform::LockOutcome::kFailed) {
    throw NativeError("IO", "host.tryLockFile: cannot lock '" + path + "': " + result.error, result.errorCode);
  }
  if (result.outcome == platform::LockOutcome::kHeldByOther) return -1;
  state.locks.insert(result.handle);
  return static_cast<double>(result.handle);
}

void UnlockFile(HostState& state, uint64_t handle) {
  if (state.locks.erase(static_cast<intptr_t>(handle)) == 0) {
    throw NativeError("INVALID_POINTER",
                      "host.unlockFile: " + std::to_string(handle) + " is not a lock of this thread");
  }
  platform::UnlockFile(static_cast<intptr_t>(handle));
}

uint64_t AllocatedBytes(HostState& state) { return state.allocatedBytes; }

}  // namespace

Napi::Object RegisterHost(Napi::Env env) {
  FunctionTable table(env, NewEnvState<HostState>(env));
  table.Add<Alloc>("alloc")
      .Add<Free>("free")
      .Add<Write>("write")
      .Add<Read>("read")
      .Add<Copy>("copy")
      .Add<Fill>("fill")
      .Add<TryLockFile>("tryLockFile")
      .Add<UnlockFile>("unlockFile")
      .Add<AllocatedBytes>("allocatedBytes");
  return Napi::Object(env, table.value());
}

}  // namespace flashinfer
