// SPDX-License-Identifier: Apache-2.0
// Everything CUDA of one environment (the main thread or one worker); nothing here is shared between threads, except
// that AsyncTasks read a Device's constants while the environment lives.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "binding/call.h"
#include "cuda/driver.h"
#include "cuda/staging.h"

namespace flashinfer::cuda {

struct Device {
  int ordinal = -1;
  CUdevice handle = 0;
  CUcontext context = nullptr;
  /** nullptr: no stream-ordered allocator, plain cuMemAlloc is used. */
  CUmemoryPool pool = nullptr;
  CUstream defaultStream = nullptr;
  StagingRing writes;
  PinnedPool reads;
};

/** Makes the device's context current on this thread; asking the driver is a thread-local read. */
void MakeCurrent(const Device& device);

/** For libuv threads, which serve every environment: leaves no context behind. */
class ScopedContext {
 public:
  explicit ScopedContext(const Device& device) { MakeCurrent(device); }
  ~ScopedContext() { Driver().api.cuCtxSetCurrent(nullptr); }
  ScopedContext(const ScopedContext&) = delete;
  ScopedContext& operator=(const ScopedContext&) = delete;
};

/** Shared with the AsyncTasks that wait for it, so destroying it in JS cannot pull it from under them. */
struct Event {
  Event(Device& device, unsigned int flags);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  Device& device;
  CUevent handle = nullptr;
};

struct Stream {
  CUstream handle;
  Device* device;
};

struct Block {
  size_t bytes;
  Device* device;
  /** Allocated while its stream was captured: the memory belongs to the graph. */
  bool inGraph;
};

struct DeferredFree {
  CUdeviceptr ptr;
  Block block;
  Ptr stream;
};

struct Kernel {
  CUfunction function;
  CUmodule module;
  Device* device;
  std::string name;
  /** Bytes of the JS ArrayBuffer that `paramsRef` keeps alive. */
  void* params;
  napi_ref paramsRef;
};

template <class T>
T AsHandle(Ptr ptr) {
  return reinterpret_cast<T>(static_cast<uintptr_t>(ptr));
}
template <class T>
Ptr AsPtr(T* handle) {
  return static_cast<Ptr>(reinterpret_cast<uintptr_t>(handle));
}

class CudaState {
 public:
  explicit CudaState(napi_env env) : env(env) {}
  ~CudaState();
  CudaState(const CudaState&) = delete;
  CudaState& operator=(const CudaState&) = delete;

  /** The device, initialised on first use, with its context current. */
  Device& Use(int ordinal);
  /** The live stream of this environment, with its device's context current. */
  Stream& UseStream(Ptr stream) {
    // A handful of streams: a scan beats hashing, and the default stream comes first.
    for (Stream& record : streams) {
      if (AsPtr(record.handle) == stream) {
        MakeCurrent(*record.device);
        return record;
      }
    }
    ThrowUnknown("stream", stream);
  }
  bool HasStream(Ptr stream) const;
  const std::shared_ptr<Event>& FindEvent(Ptr event) const;
  Kernel& FindKernel(uint32_t handle) {
    if (handle - 1 >= kernels.size() || !kernels[handle - 1]) ThrowUnknown("kernel", handle);
    return *kernels[handle - 1];
  }
  /** Looks `handle` up in one of the maps below and makes its device current. */
  Device& UseHandle(const std::unordered_map<Ptr, Device*>& handles, const char* kind, Ptr handle) const;
  /** Whether work enqueued on the stream goes into a graph; free while nothing is captured. */
  bool IsCapturing(const Stream& stream) const;
  /** Throws when the stream is captured; `instead` says what to do. */
  void RefuseCapture(const Stream& stream, const char* what, const char* instead) const;
  void ReportToGc(int64_t change) const;
  [[noreturn]] static void ThrowUnknown(const char* kind, Ptr handle);

  const napi_env env;
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<Stream> streams;
  std::unordered_map<Ptr, std::shared_ptr<Event>> events;
  std::unordered_map<Ptr, Device*> graphs;
  std::unordered_map<Ptr, Device*> graphExecs;
  std::unordered_map<Ptr, Device*> modules;
  std::unordered_map<Ptr, Device*> pinned;
  std::unordered_map<Ptr, Block> blocks;
  /** Index + 1 is the JS handle; slots are not reused, so a stale handle is always recognised. */
  std::vector<std::unique_ptr<Kernel>> kernels;
  /** Captures begun by captureBegin and not ended yet. */
  int activeCaptures = 0;
  std::vector<DeferredFree> deferredFrees;

 private:
  void Initialise(Device& device, int ordinal);
};

/** Frees what was disposed inside captures, once the last of them has ended. */
void FreeDeferred(CudaState& state);

void AddDeviceFunctions(FunctionTable& table);
void AddMemoryFunctions(FunctionTable& table);
void AddStreamFunctions(FunctionTable& table);
void AddGraphFunctions(FunctionTable& table);
void AddKernelFunctions(FunctionTable& table);

}  // namespace flashinfer::cuda
