// SPDX-License-Identifier: Apache-2.0
// Probing, properties, memory totals and device-wide synchronisation.
#include <cstdio>

#include "binding/async_task.h"
#include "cuda/capture_gate.h"
#include "cuda/state.h"

namespace flashinfer::cuda {
namespace {

JsValue Probe(CudaState& state) {
  const DriverLibrary& driver = Driver();
  ObjectBuilder out(state.env);
  out.Set("ok", driver.ok).Set("searched", driver.searched);
  if (!driver.path.empty()) out.Set("library", driver.path).Set("driverVersion", driver.version);
  if (driver.ok) {
    out.Set("deviceCount", driver.deviceCount);
  } else {
    out.Set("error", driver.error);
  }
  return out;
}

/** As nvidia-smi and CUDA_VISIBLE_DEVICES write it. */
std::string FormatUuid(const CUuuid& uuid) {
  std::string out = "GPU-";
  for (int i = 0; i < 16; i++) {
    char byte[3];
    std::snprintf(byte, sizeof byte, "%02x", uuid.bytes[i]);
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += byte;
  }
  return out;
}

JsValue DeviceProperties(CudaState& state, int32_t ordinal) {
  CUdevice device;
  FLASHINFER_CU(ordinal, cuDeviceGet, &device, ordinal);
  const auto attribute = [&](int id) {
    int value = 0;
    FLASHINFER_CU(ordinal, cuDeviceGetAttribute, &value, id, device);
    return value;
  };
  char name[256] = "";
  char busId[32] = "";
  CUuuid uuid{};
  size_t totalMemory = 0;
  FLASHINFER_CU(ordinal, cuDeviceGetName, name, sizeof name, device);
  FLASHINFER_CU(ordinal, cuDeviceGetPCIBusId, busId, sizeof busId, device);
  FLASHINFER_CU(ordinal, cuDeviceGetUuid, &uuid, device);
  FLASHINFER_CU(ordinal, cuDeviceTotalMem, &totalMemory, device);
  return ObjectBuilder(state.env)
      .Set("name", std::string(name))
      .Set("major", attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR))
      .Set("minor", attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR))
      .Set("multiProcessorCount", attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT))
      .Set("totalMemory", static_cast<double>(totalMemory))
      .Set("l2CacheBytes", attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE))
      .Set("sharedMemPerBlock", attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK))
      .Set("sharedMemPerBlockOptin", attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN))
      .Set("sharedMemPerMultiprocessor", attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR))
      .Set("regsPerMultiprocessor", attribute(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR))
      .Set("maxThreadsPerMultiprocessor", attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR))
      .Set("maxThreadsPerBlock", attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK))
      .Set("warpSize", attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE))
      .Set("clockRateKHz", attribute(CU_DEVICE_ATTRIBUTE_CLOCK_RATE))
      .Set("memoryClockRateKHz", attribute(CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE))
      .Set("memoryBusWidthBits", attribute(CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH))
      .Set("memoryPoolsSupported", attribute(CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED) != 0)
      .Set("pciBusId", std::string(busId))
      .Set("uuid", FormatUuid(uuid))
      .Set("integrated", attribute(CU_DEVICE_ATTRIBUTE_INTEGRATED) != 0)
      .Set("computeMode", attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_MODE));
}

JsValue InitDevice(CudaState& state, int32_t ordinal) {
  return ObjectBuilder(state.env).Set("defaultStream", AsPtr(state.Use(ordinal).defaultStream));
}

JsValue MemInfo(CudaState& state, int32_t ordinal) {
  const Device& device = state.Use(ordinal);
  size_t free = 0, total = 0;
  FLASHINFER_CU(ordinal, cuMemGetInfo, &free, &total);
  uint64_t used = 0, reserved = 0;
  if (device.pool != nullptr) {
    FLASHINFER_CU(ordinal, cuMemPoolGetAttribute, device.pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used);
    FLASHINFER_CU(ordinal, cuMemPoolGetAttribute, device.pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &reserved);
  }
  return ObjectBuilder(state.env)
      .Set("free", static_cast<double>(free))
      .Set("total", static_cast<double>(total))
      .Set("poolUsed", used)
      .Set("poolReserved", reserved);
}

void RefuseOwnCapture(CudaState& state, int32_t ordinal) {
  state.Use(ordinal);
  for (const Stream& stream : state.streams) {
    if (stream.device->ordinal == ordinal)
      state.RefuseCapture(stream, "cuda.deviceSynchronize", "end the capture first");
  }
}

void DeviceSynchronize(CudaState& state, int32_t ordinal) {
  RefuseOwnCapture(state, ordinal);
  const ContextWait wait(ordinal);
  FLASHINFER_CU(ordinal, cuCtxSynchronize);
}

class DeviceSynchronizeTask : public AsyncTask {
 public:
  explicit DeviceSynchronizeTask(const Device& device) : device_(device) {}
  void Execute() override {
    const ContextWait wait(device_.ordinal);
    const ScopedContext context(device_);
    FLASHINFER_CU(device_.ordinal, cuCtxSynchronize);
  }

 private:
  const Device& device_;
};

JsValue DeviceSynchronizeAsync(CudaState& state, int32_t ordinal) {
  RefuseOwnCapture(state, ordinal);
  return StartTask(state.env, "flashinfer:deviceSynchronize",
                   std::make_unique<DeviceSynchronizeTask>(state.Use(ordinal)));
}

}  // namespace

void AddDeviceFunctions(FunctionTable& table) {
  table.Add<Probe>("probe")
      .Add<DeviceProperties>("deviceProperties")
      .Add<InitDevice>("initDevice")
      .Add<MemInfo>("memInfo")
      .Add<DeviceSynchronize>("deviceSynchronize")
      .Add<DeviceSynchronizeAsync>("deviceSynchronizeAsync");
}

}  // namespace flashinfer::cuda
