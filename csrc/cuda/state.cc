// SPDX-License-Identifier: Apache-2.0
#include "cuda/state.h"

#include <algorithm>

#include "cuda/capture_gate.h"

namespace flashinfer::cuda {

void MakeCurrent(const Device& device) {
  const DriverApi& api = Driver().api;
  CUcontext current = nullptr;
  CheckResult(api.cuCtxGetCurrent(&current), "cuCtxGetCurrent", device.ordinal);
  if (current != device.context) FLASHINFER_CU(device.ordinal, cuCtxSetCurrent, device.context);
}

Event::Event(Device& device, unsigned int flags) : device(device) {
  FLASHINFER_CU(device.ordinal, cuEventCreate, &handle, flags);
}

Event::~Event() {
  Driver().api.cuCtxSetCurrent(device.context);
  Driver().api.cuEventDestroy(handle);
}

Device& CudaState::Use(int ordinal) {
  for (const auto& device : devices) {
    if (device->ordinal == ordinal) {
      MakeCurrent(*device);
      return *device;
    }
  }
  auto device = std::make_unique<Device>();
  Initialise(*device, ordinal);
  devices.push_back(std::move(device));
  return *devices.back();
}

void CudaState::Initialise(Device& device, int ordinal) {
  FLASHINFER_CU(ordinal, cuDeviceGet, &device.handle, ordinal);
  FLASHINFER_CU(ordinal, cuDevicePrimaryCtxRetain, &device.context, device.handle);
  device.ordinal = ordinal;
  try {
    MakeCurrent(device);
    int poolsSupported = 0;
    FLASHINFER_CU(ordinal, cuDeviceGetAttribute, &poolsSupported, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED,
                  device.handle);
    if (poolsSupported != 0) {
      FLASHINFER_CU(ordinal, cuDeviceGetDefaultMemPool, &device.pool, device.handle);
      // By default the pool returns all free memory at each synchronisation, and every allocation after it is slow.
      uint64_t threshold = UINT64_MAX;
      FLASHINFER_CU(ordinal, cuMemPoolSetAttribute, device.pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold);
    }
    FLASHINFER_CU(ordinal, cuStreamCreateWithPriority, &device.defaultStream, CU_STREAM_NON_BLOCKING, 0);
  } catch (const NativeError&) {
    Driver().api.cuCtxSetCurrent(nullptr);
    Driver().api.cuDevicePrimaryCtxRelease(device.handle);
    throw;
  }
  streams.push_back({device.defaultStream, &device});
}

bool CudaState::HasStream(Ptr stream) const {
  return std::any_of(streams.begin(), streams.end(), [&](const Stream& s) { return AsPtr(s.handle) == stream; });
}

const std::shared_ptr<Event>& CudaState::FindEvent(Ptr event) const {
  const auto found = events.find(event);
  if (found == events.end()) ThrowUnknown("event", event);
  MakeCurrent(found->second->device);
  return found->second;
}

Device& CudaState::UseHandle(const std::unordered_map<Ptr, Device*>& handles, const char* kind, Ptr handle) const {
  const auto found = handles.find(handle);
  if (found == handles.end()) ThrowUnknown(kind, handle);
  MakeCurrent(*found->second);
  return *found->second;
}

bool CudaState::IsCapturing(const Stream& stream) const {
  if (activeCaptures == 0) return false;
  int status = CU_STREAM_CAPTURE_STATUS_NONE;
  FLASHINFER_CU(stream.device->ordinal, cuStreamIsCapturing, stream.handle, &status);
  return status != CU_STREAM_CAPTURE_STATUS_NONE;
}

void CudaState::RefuseCapture(const Stream& stream, const char* what, const char* instead) const {
  if (!IsCapturing(stream)) return;
  throw NativeError("UNSUPPORTED", std::string(what) + " on a stream that is being captured; " + instead);
}

void CudaState::ReportToGc(int64_t change) const {
  int64_t total;
  napi_adjust_external_memory(env, change, &total);
}

void CudaState::ThrowUnknown(const char* kind, Ptr handle) {
  throw NativeError("INVALID_POINTER", std::string(kind) + " " + std::to_string(handle) + " is not a live " + kind +
                                           " of this thread; it was destroyed before, or " + "made in another thread");
}

CudaState::~CudaState() {
  if (devices.empty()) return;
  // Errors are of no use here: the process or the worker is going away. AsyncTasks are done before cleanup hooks run.
  const DriverApi& api = Driver().api;
  for (const Stream& stream : streams) {
    api.cuCtxSetCurrent(stream.device->context);
    int status = CU_STREAM_CAPTURE_STATUS_NONE;
    api.cuStreamIsCapturing(stream.handle, &status);
    if (status == CU_STREAM_CAPTURE_STATUS_NONE) {
      api.cuStreamSynchronize(stream.handle);
      continue;
    }
    CUgraph graph = nullptr;
    if (api.cuStreamEndCapture(stream.handle, &graph) == CUDA_SUCCESS) api.cuGraphDestroy(graph);
    EndCapture(stream.device->ordinal);
  }
  const auto each = [&](const std::unordered_map<Ptr, Device*>& handles, auto&& destroy) {
    for (const auto& [handle, device] : handles) {
      api.cuCtxSetCurrent(device->context);
      destroy(handle);
    }
  };
  each(graphExecs, [&](Ptr exec) { api.cuGraphExecDestroy(AsHandle<CUgraphExec>(exec)); });
  each(graphs, [&](Ptr graph) { api.cuGraphDestroy(AsHandle<CUgraph>(graph)); });
  each(modules, [&](Ptr module) { api.cuModuleUnload(AsHandle<CUmodule>(module)); });
  each(pinned, [&](Ptr ptr) { api.cuMemFreeHost(AsHandle<void*>(ptr)); });
  for (const DeferredFree& free : deferredFrees) blocks.emplace(free.ptr, free.block);
  for (const auto& [ptr, block] : blocks) {
    api.cuCtxSetCurrent(block.device->context);
    if (block.device->pool != nullptr) {
      api.cuMemFreeAsync(ptr, block.device->defaultStream);
    } else {
      api.cuMemFree(ptr);
    }
  }
  events.clear();
  for (const Stream& stream : streams) {
    api.cuCtxSetCurrent(stream.device->context);
    api.cuStreamSynchronize(stream.handle);
    api.cuStreamDestroy(stream.handle);
  }
  for (const auto& device : devices) {
    api.cuCtxSetCurrent(device->context);
    device->writes.Destroy();
    device->reads.Destroy();
    api.cuCtxSetCurrent(nullptr);
    api.cuDevicePrimaryCtxRelease(device->handle);
  }
}

}  // namespace flashinfer::cuda
