// SPDX-License-Identifier: Apache-2.0
// Modules, kernels, launches and TMA descriptors.
#include <algorithm>
#include <cstring>

#include "cuda/state.h"

namespace flashinfer::cuda {
namespace {

Ptr ModuleLoad(CudaState& state, int32_t ordinal, Bytes image) {
  Device& device = state.Use(ordinal);
  // The driver reads PTX as a C string; std::string ends in the NUL that a Uint8Array lacks.
  const std::string terminated(reinterpret_cast<const char*>(image.data), image.size);
  char log[4096] = "";
  int options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  CUmodule module = nullptr;
  const CUresult result = Api().cuModuleLoadDataEx(&module, terminated.data(), 2, options, values);
  if (result != CUDA_SUCCESS) {
    log[sizeof log - 1] = '\0';
    ThrowResult(result, "cuModuleLoadDataEx", ordinal, log);
  }
  state.modules[AsPtr(module)] = &device;
  return AsPtr(module);
}

void DropKernel(CudaState& state, std::unique_ptr<Kernel>& slot) {
  napi_delete_reference(state.env, slot->paramsRef);
  slot.reset();
}

void ModuleUnload(CudaState& state, int32_t ordinal, Ptr module) {
  state.UseHandle(state.modules, "module", module);
  // Its kernels would be dangling pointers in the driver.
  for (auto& kernel : state.kernels) {
    if (kernel && AsPtr(kernel->module) == module) DropKernel(state, kernel);
  }
  state.modules.erase(module);
  FLASHINFER_CU(ordinal, cuModuleUnload, AsHandle<CUmodule>(module));
}

struct ParamLayout {
  std::vector<double> sizes;
  size_t totalBytes = 0;
};

/** Needs cuFuncGetParamInfo (CUDA 12.4). */
ParamLayout GetParamLayout(const DriverApi& api, CUfunction function) {
  ParamLayout layout;
  size_t offset, size, first = 0;
  // Ends with CUDA_ERROR_INVALID_VALUE: the index is past the last parameter.
  for (size_t i = 0; api.cuFuncGetParamInfo(function, i, &offset, &size) == CUDA_SUCCESS; i++) {
    // The first parameter's own alignment may move it: tensor maps want 64 bytes.
    if (i == 0) first = offset;
    layout.sizes.push_back(static_cast<double>(size));
    layout.totalBytes = std::max(layout.totalBytes, offset + size - first);
  }
  return layout;
}

void AllowSharedMemory(const Kernel& kernel, int bytes) {
  constexpr int kWithoutOptIn = 48 << 10;
  const int ordinal = kernel.device->ordinal;
  if (bytes == 0) return;
  FLASHINFER_CU(ordinal, cuFuncSetAttribute, kernel.function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
  if (bytes <= kWithoutOptIn) return;
  FLASHINFER_CU(ordinal, cuFuncSetAttribute, kernel.function, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
                CU_SHAREDMEM_CARVEOUT_MAX_SHARED);
}

double KernelCreate(CudaState& state, int32_t ordinal, Ptr module, std::string name, JsValue params,
                    int32_t maxSharedBytes) {
  const DriverApi& api = Api();
  Device& device = state.UseHandle(state.modules, "module", module);
  auto kernel = std::make_unique<Kernel>();
  kernel->module = AsHandle<CUmodule>(module);
  kernel->device = &device;
  kernel->name = std::move(name);
  size_t paramBytes;
  Check(napi_get_arraybuffer_info(state.env, params.value, &kernel->params, &paramBytes), "params as an ArrayBuffer");
  FLASHINFER_CU(ordinal, cuModuleGetFunction, &kernel->function, kernel->module, kernel->name.c_str());
  // The driver loads lazily, at the first launch; that must not fall into a capture or a timed run.
  if (api.cuFuncLoad != nullptr) FLASHINFER_CU(ordinal, cuFuncLoad, kernel->function);
  AllowSharedMemory(*kernel, maxSharedBytes);
  if (api.cuFuncGetParamInfo != nullptr) {
    // One struct by value: the driver copies as many bytes as the kernel declares.
    const size_t expected = GetParamLayout(api, kernel->function).totalBytes;
    if (expected > paramBytes) {
      throw NativeError("INTERNAL", "cuda.kernelCreate: " + kernel->name + " takes " + std::to_string(expected) +
                                        " bytes of parameters, the struct has " + std::to_string(paramBytes));
    }
  }
  Check(napi_create_reference(state.env, params.value, 1, &kernel->paramsRef), "a reference");
  state.kernels.push_back(std::move(kernel));
  return static_cast<double>(state.kernels.size());
}

void KernelDestroy(CudaState& state, uint32_t handle) {
  state.FindKernel(handle);
  DropKernel(state, state.kernels[handle - 1]);
}

JsValue KernelInfo(CudaState& state, uint32_t handle) {
  const Kernel& kernel = state.FindKernel(handle);
  MakeCurrent(*kernel.device);
  const auto attribute = [&](int id) {
    int value = 0;
    FLASHINFER_CU(kernel.device->ordinal, cuFuncGetAttribute, &value, id, kernel.function);
    return value;
  };
  ObjectBuilder out(state.env);
  out.Set("numRegs", attribute(CU_FUNC_ATTRIBUTE_NUM_REGS))
      .Set("localBytes", attribute(CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES))
      .Set("staticSharedBytes", attribute(CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES))
      .Set("maxThreadsPerBlock", attribute(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK))
      .Set("binaryVersion", attribute(CU_FUNC_ATTRIBUTE_BINARY_VERSION));
  if (Api().cuFuncGetParamInfo != nullptr) out.Set("paramBytes", GetParamLayout(Api(), kernel.function).sizes);
  return out;
}

int32_t KernelOccupancy(CudaState& state, uint32_t handle, int32_t threads, uint64_t sharedBytes) {
  const Kernel& kernel = state.FindKernel(handle);
  MakeCurrent(*kernel.device);
  int blocks = 0;
  FLASHINFER_CU(kernel.device->ordinal, cuOccupancyMaxActiveBlocksPerMultiprocessor, &blocks, kernel.function, threads,
                sharedBytes);
  return blocks;
}

CUlaunchAttribute ClusterAttribute(uint32_t blocks) {
  CUlaunchAttribute attribute{};
  attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
  attribute.value.clusterDim = {blocks, 1, 1};
  return attribute;
}

/** How large clusters are that every GPU with clusters runs. Larger ones a function has to ask for. */
constexpr uint32_t kPortableCluster = 8;

int32_t KernelClusters(CudaState& state, uint32_t handle, uint32_t threads, uint32_t cluster) {
  const Kernel& kernel = state.FindKernel(handle);
  MakeCurrent(*kernel.device);
  const DriverApi& api = Api();
  if (api.cuOccupancyMaxActiveClusters == nullptr) return 0;
  if (cluster > kPortableCluster &&
      api.cuFuncSetAttribute(kernel.function, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1) != CUDA_SUCCESS) {
    return 0;
  }
  CUlaunchAttribute attribute = ClusterAttribute(cluster);
  const CUlaunchConfig config{cluster, 1, 1, threads, 1, 1, 0, nullptr, &attribute, 1};
  int clusters = 0;
  // An error means that the GPU, or this slice of one, has no place for such a cluster.
  return api.cuOccupancyMaxActiveClusters(&clusters, kernel.function, &config) == CUDA_SUCCESS ? clusters : 0;
}

std::string DescribeLaunch(const Kernel& kernel, const CUlaunchConfig& config, uint32_t cluster) {
  return kernel.name + " with grid (" + std::to_string(config.gridDimX) + ", " + std::to_string(config.gridDimY) +
         ", " + std::to_string(config.gridDimZ) + "), " + std::to_string(config.blockDimX) + " threads, " +
         std::to_string(config.sharedMemBytes) + " bytes of dynamic shared memory, cluster " + std::to_string(cluster);
}

/** The hot path: no allocation, no lookup by hash. */
void Launch(CudaState& state, uint32_t handle, uint32_t gridX, uint32_t gridY, uint32_t gridZ, uint32_t blockX,
            uint32_t sharedBytes, Ptr streamPtr, uint32_t cluster, bool pdl) {
  Kernel& kernel = state.FindKernel(handle);
  const Stream& stream = state.UseStream(streamPtr);
  if (stream.device != kernel.device) {
    throw NativeError("INVALID_POINTER", "cuda.launch: " + kernel.name +
                                             " is loaded on cuda:" + std::to_string(kernel.device->ordinal) +
                                             ", the stream is of cuda:" + std::to_string(stream.device->ordinal));
  }
  CUlaunchAttribute attributes[2];
  unsigned int count = 0;
  if (cluster != 0) attributes[count++] = ClusterAttribute(cluster);
  if (pdl) {
    attributes[count].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attributes[count++].value.programmaticStreamSerializationAllowed = 1;
  }
  const CUlaunchConfig config{gridX, gridY, gridZ, blockX, 1, 1, sharedBytes, stream.handle, attributes, count};
  void* params[] = {kernel.params};
  const CUresult result = Driver().api.cuLaunchKernelEx(&config, kernel.function, params, nullptr);
  if (result != CUDA_SUCCESS) {
    ThrowResult(result, "cuLaunchKernelEx", kernel.device->ordinal, DescribeLaunch(kernel, config, cluster));
  }
}

constexpr uint32_t kMaxTensorMapRank = 5;

template <class T>
void ReadDims(napi_env env, napi_value args, const char* name, uint32_t expected, T* out) {
  const std::vector<uint64_t> values = ArrayFromJs<uint64_t>(env, Property(env, args, name));
  if (values.size() != expected) {
    throw NativeError("INTERNAL", std::string("cuda.tensorMapEncodeTiled: ") + name + " has " +
                                      std::to_string(values.size()) + " entries; expected " + std::to_string(expected));
  }
  std::copy(values.begin(), values.end(), out);
}

JsValue TensorMapEncodeTiled(CudaState& state, JsValue argsValue) {
  const napi_env env = state.env;
  const napi_value args = argsValue.value;
  const auto integer = [&](const char* name) { return FromJs<int32_t>(env, Property(env, args, name)); };
  if (Api().cuTensorMapEncodeTiled == nullptr) {
    throw NativeError("UNSUPPORTED",
                      "cuda.tensorMapEncodeTiled: the driver has no cuTensorMapEncodeTiled; TMA needs a "
                      "driver for CUDA 12.0 or newer");
  }
  const auto rank = static_cast<uint32_t>(integer("rank"));
  if (rank < 1 || rank > kMaxTensorMapRank) {
    throw NativeError("INTERNAL", "cuda.tensorMapEncodeTiled: rank " + std::to_string(rank) + "; expected 1 to 5");
  }
  uint64_t dims[kMaxTensorMapRank], strides[kMaxTensorMapRank];
  uint32_t box[kMaxTensorMapRank], elementStrides[kMaxTensorMapRank];
  ReadDims(env, args, "dims", rank, dims);
  ReadDims(env, args, "strides", rank - 1, strides);
  ReadDims(env, args, "box", rank, box);
  ReadDims(env, args, "elementStrides", rank, elementStrides);
  const Ptr address = FromJs<Ptr>(env, Property(env, args, "address"));
  CUtensorMap map;
  FLASHINFER_CU(-1, cuTensorMapEncodeTiled, &map, integer("dtype"), rank, AsHandle<void*>(address), dims, strides, box,
                elementStrides, integer("interleave"), integer("swizzle"), integer("l2Promotion"), integer("oobFill"));
  return JsValue{BytesToJs(env, &map, sizeof map)};
}

}  // namespace

void AddKernelFunctions(FunctionTable& table) {
  table.Add<ModuleLoad>("moduleLoad")
      .Add<ModuleUnload>("moduleUnload")
      .Add<KernelCreate>("kernelCreate")
      .Add<KernelInfo>("kernelInfo")
      .Add<KernelDestroy>("kernelDestroy")
      .Add<KernelOccupancy>("kernelOccupancy")
      .Add<KernelClusters>("kernelClusters")
      .Add<Launch>("launch")
      .Add<TensorMapEncodeTiled>("tensorMapEncodeTiled");
}

}  // namespace flashinfer::cuda
