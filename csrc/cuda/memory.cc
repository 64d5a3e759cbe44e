// SPDX-License-Identifier: Apache-2.0
// Device and pinned memory, copies, fills, and copies to and from JS memory.
#include <algorithm>
#include <cstring>

#include "binding/async_task.h"
#include "cuda/capture_gate.h"
#include "cuda/state.h"

namespace flashinfer::cuda {
namespace {

CUresult TryAlloc(const DriverApi& api, const Device& device, CUdeviceptr* ptr, size_t bytes, CUstream stream) {
  return device.pool != nullptr ? api.cuMemAllocAsync(ptr, bytes, stream) : api.cuMemAlloc(ptr, bytes);
}

[[noreturn]] void ThrowOutOfMemory(const Device& device, CUresult result, uint64_t bytes) {
  size_t free = 0, total = 0;
  Api().cuMemGetInfo(&free, &total);
  ThrowResult(result, "cuMemAllocAsync", device.ordinal,
              std::to_string(bytes) + " bytes asked, " + std::to_string(free) + " of " + std::to_string(total) +
                  " bytes are free; dispose tensors, or use smaller ones");
}

Ptr MemAlloc(CudaState& state, int32_t ordinal, uint64_t bytes, Ptr streamPtr) {
  const DriverApi& api = Api();
  Device& device = state.Use(ordinal);
  const Stream& stream = state.UseStream(streamPtr);
  const bool inGraph = state.IsCapturing(stream);
  const size_t size = std::max<uint64_t>(bytes, 1);
  CUdeviceptr ptr = 0;
  CUresult result = TryAlloc(api, device, &ptr, size, stream.handle);
  if (result == CUDA_ERROR_OUT_OF_MEMORY && device.pool != nullptr && state.activeCaptures == 0) {
    // Frees of other streams become reusable, and fragments go back to the driver, once everything is done.
    // Waiting for that would invalidate a capture.
    const ContextWait wait(ordinal);
    FLASHINFER_CU(ordinal, cuCtxSynchronize);
    FLASHINFER_CU(ordinal, cuMemPoolTrimTo, device.pool, 0);
    result = TryAlloc(api, device, &ptr, size, stream.handle);
    // A request that fails in the end leaves the pool holding what it could get, out of the reach of graphs and of
    // other processes.
    if (result == CUDA_ERROR_OUT_OF_MEMORY) FLASHINFER_CU(ordinal, cuMemPoolTrimTo, device.pool, 0);
  }
  if (result == CUDA_ERROR_OUT_OF_MEMORY) ThrowOutOfMemory(device, result, bytes);
  CheckResult(result, "cuMemAllocAsync", ordinal);
  state.blocks[ptr] = {size, &device, inGraph};
  state.ReportToGc(static_cast<int64_t>(size));
  return ptr;
}

void FreeOn(const Stream& stream, CUdeviceptr ptr, const Block& block) {
  const int ordinal = block.device->ordinal;
  if (block.device->pool == nullptr) {
    FLASHINFER_CU(ordinal, cuStreamSynchronize, stream.handle);
    FLASHINFER_CU(ordinal, cuMemFree, ptr);
    return;
  }
  const CUresult result = Api().cuMemFreeAsync(ptr, stream.handle);
  // Memory of a graph that was not launched, or was relaunched since, is no allocation at this moment.
  if (block.inGraph && result == CUDA_ERROR_INVALID_VALUE) return;
  CheckResult(result, "cuMemFreeAsync", ordinal);
}

void MemFree(CudaState& state, int32_t ordinal, Ptr ptr, Ptr streamPtr) {
  const auto found = state.blocks.find(ptr);
  if (found == state.blocks.end()) CudaState::ThrowUnknown("device block", ptr);
  const Block block = found->second;
  // A tensor may outlive its stream; streamDestroy made the default stream follow that stream's work.
  const Device& device = state.Use(ordinal);
  const Stream& stream = state.UseStream(state.HasStream(streamPtr) ? streamPtr : AsPtr(device.defaultStream));
  if (!block.inGraph && state.IsCapturing(stream)) {
    // A graph can free only what it allocated; the free happens when the capture ends.
    state.deferredFrees.push_back({ptr, block, AsPtr(stream.handle)});
  } else {
    FreeOn(stream, ptr, block);
  }
  state.blocks.erase(found);
  state.ReportToGc(-static_cast<int64_t>(block.bytes));
}

Ptr PinnedAlloc(CudaState& state, int32_t ordinal, uint64_t bytes) {
  Device& device = state.Use(ordinal);
  const Ptr ptr = AsPtr(AllocPinned(ordinal, std::max<uint64_t>(bytes, 1)));
  state.pinned[ptr] = &device;
  return ptr;
}

void PinnedFree(CudaState& state, Ptr ptr) {
  const Device& device = state.UseHandle(state.pinned, "pinned block", ptr);
  FLASHINFER_CU(device.ordinal, cuMemFreeHost, AsHandle<void*>(ptr));
  state.pinned.erase(ptr);
}

void CopyHtoD(CudaState& state, Ptr dst, Ptr src, uint64_t bytes, Ptr streamPtr) {
  const Stream& stream = state.UseStream(streamPtr);
  if (bytes == 0) return;
  FLASHINFER_CU(stream.device->ordinal, cuMemcpyHtoDAsync, dst, AsHandle<const void*>(src), bytes, stream.handle);
}

void CopyDtoH(CudaState& state, Ptr dst, Ptr src, uint64_t bytes, Ptr streamPtr) {
  const Stream& stream = state.UseStream(streamPtr);
  if (bytes == 0) return;
  FLASHINFER_CU(stream.device->ordinal, cuMemcpyDtoHAsync, AsHandle<void*>(dst), src, bytes, stream.handle);
}

void CopyDtoD(CudaState& state, Ptr dst, Ptr src, uint64_t bytes, Ptr streamPtr) {
  const Stream& stream = state.UseStream(streamPtr);
  if (bytes == 0) return;
  FLASHINFER_CU(stream.device->ordinal, cuMemcpyDtoDAsync, dst, src, bytes, stream.handle);
}

void WriteIn(Device& device, CUdeviceptr dst, Bytes src, CUstream stream) {
  for (size_t at = 0; at < src.size; at += StagingRing::kMaxPiece) {
    const size_t size = std::min(StagingRing::kMaxPiece, src.size - at);
    device.writes.Write(device.ordinal, dst + at, {src.data + at, size}, {nullptr, 0}, stream);
  }
}

Stream& StreamToWrite(CudaState& state, Ptr streamPtr) {
  Stream& stream = state.UseStream(streamPtr);
  state.RefuseCapture(stream, "cuda.write: a copy from JS memory",
                      "a replay would read reused staging memory; copy before the capture, or from pinned memory");
  return stream;
}

void Write(CudaState& state, int32_t ordinal, Ptr dst, Bytes src, Ptr streamPtr) {
  Device& device = state.Use(ordinal);
  WriteIn(device, dst, src, StreamToWrite(state, streamPtr).handle);
}

void WriteBoth(CudaState& state, int32_t ordinal, Ptr dst, Bytes first, Bytes second, Ptr streamPtr) {
  Device& device = state.Use(ordinal);
  const CUstream stream = StreamToWrite(state, streamPtr).handle;
  const size_t size = first.size + second.size;
  if (size == 0) return;
  if (size <= StagingRing::kMaxPiece) {
    device.writes.Write(ordinal, dst, {first.data, first.size}, {second.data, second.size}, stream);
    return;
  }
  WriteIn(device, dst, first, stream);
  WriteIn(device, dst + first.size, second, stream);
}

/** Waits for a copy into pinned memory on a libuv thread, then moves it into the JS array on the JS thread. */
class ReadTask : public AsyncTask {
 public:
  ReadTask(CudaState& state, Device& device, Bytes dst, CUdeviceptr src, CUstream stream)
      : env_(state.env), device_(device), done_(device, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC) {
    staged_ = device.reads.Acquire(device.ordinal, dst.size);
    try {
      if (dst.size != 0) FLASHINFER_CU(device.ordinal, cuMemcpyDtoHAsync, staged_, src, dst.size, stream);
      FLASHINFER_CU(device.ordinal, cuEventRecord, done_.handle, stream);
      Check(napi_create_reference(env_, dst.value, 1, &dst_), "a reference");
    } catch (const NativeError&) {
      Driver().api.cuStreamSynchronize(stream);
      device.reads.Release(staged_);
      throw;
    }
  }

  ~ReadTask() override {
    // Without Execute (the environment ended first) the copy may still be running.
    Driver().api.cuCtxSetCurrent(device_.context);
    if (!waited_) Driver().api.cuEventSynchronize(done_.handle);
    device_.reads.Release(staged_);
    napi_delete_reference(env_, dst_);
  }

  void Execute() override {
    const ScopedContext context(device_);
    FLASHINFER_CU(device_.ordinal, cuEventSynchronize, done_.handle);
    waited_ = true;
  }

  napi_value Finish(napi_env env) override {
    napi_value array;
    Check(napi_get_reference_value(env, dst_, &array), "the array that is read into");
    // Looked up again: the buffer may have been transferred away meanwhile, and is then empty.
    const Bytes dst = FromJs<Bytes>(env, array);
    if (dst.size != 0) std::memcpy(dst.data, staged_, dst.size);
    return AsyncTask::Finish(env);
  }

 private:
  napi_env env_;
  Device& device_;
  Event done_;
  void* staged_ = nullptr;
  napi_ref dst_ = nullptr;
  bool waited_ = false;
};

constexpr const char* kReadAfterCapture = "launch the graph first, then read";

JsValue Read(CudaState& state, int32_t ordinal, Ptr src, Bytes dst, Ptr streamPtr) {
  Device& device = state.Use(ordinal);
  const Stream& stream = state.UseStream(streamPtr);
  state.RefuseCapture(stream, "cuda.read: a copy to JS memory", kReadAfterCapture);
  return StartTask(state.env, "flashinfer:read", std::make_unique<ReadTask>(state, device, dst, src, stream.handle));
}

void ReadSync(CudaState& state, int32_t ordinal, Ptr src, Bytes dst, Ptr streamPtr) {
  const Stream& stream = state.UseStream(streamPtr);
  state.RefuseCapture(stream, "cuda.readSync: a copy to JS memory", kReadAfterCapture);
  if (dst.size != 0) FLASHINFER_CU(ordinal, cuMemcpyDtoHAsync, dst.data, src, dst.size, stream.handle);
  FLASHINFER_CU(ordinal, cuStreamSynchronize, stream.handle);
}

void Memset(CudaState& state, Ptr dst, uint64_t value, int32_t elementBytes, uint64_t count, Ptr streamPtr) {
  const Stream& stream = state.UseStream(streamPtr);
  const int ordinal = stream.device->ordinal;
  const auto bits = static_cast<uint32_t>(value);
  if (count == 0) return;
  switch (elementBytes) {
    case 1:
      FLASHINFER_CU(ordinal, cuMemsetD8Async, dst, static_cast<uint8_t>(bits), count, stream.handle);
      return;
    case 2:
      FLASHINFER_CU(ordinal, cuMemsetD16Async, dst, static_cast<uint16_t>(bits), count, stream.handle);
      return;
    case 4:
      FLASHINFER_CU(ordinal, cuMemsetD32Async, dst, bits, count, stream.handle);
      return;
    default:
      throw NativeError("INTERNAL", "cuda.memset: elementBytes " + std::to_string(elementBytes));
  }
}

}  // namespace

void FreeDeferred(CudaState& state) {
  std::vector<DeferredFree> frees;
  frees.swap(state.deferredFrees);
  for (const DeferredFree& free : frees) {
    const Ptr fallback = AsPtr(free.block.device->defaultStream);
    FreeOn(state.UseStream(state.HasStream(free.stream) ? free.stream : fallback), free.ptr, free.block);
  }
}

void AddMemoryFunctions(FunctionTable& table) {
  table.Add<MemAlloc>("memAlloc")
      .Add<MemFree>("memFree")
      .Add<PinnedAlloc>("pinnedAlloc")
      .Add<PinnedFree>("pinnedFree")
      .Add<CopyHtoD>("copyHtoD")
      .Add<CopyDtoH>("copyDtoH")
      .Add<CopyDtoD>("copyDtoD")
      .Add<Write>("write")
      .Add<WriteBoth>("writeBoth")
      .Add<Read>("read")
      .Add<ReadSync>("readSync")
      .Add<Memset>("memset");
}

}  // namespace flashinfer::cuda
