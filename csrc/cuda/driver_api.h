// SPDX-License-Identifier: Apache-2.0
// The part of the CUDA driver API that the addon calls, declared here so that building needs no CUDA toolkit.
// Names and values are NVIDIA's ("CUDA Driver API" reference); symbols carry the ABI suffix that we were written for.
#pragma once
#include <cstddef>
#include <cstdint>

#ifdef _WIN32
#define FLASHINFER_CUDAAPI __stdcall
#else
#define FLASHINFER_CUDAAPI
#endif

namespace flashinfer::cuda {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = struct CUctx_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUgraph = struct CUgraph_st*;
using CUgraphNode = struct CUgraphNode_st*;
using CUgraphExec = struct CUgraphExec_st*;
using CUmemoryPool = struct CUmemPoolHandle_st*;

struct CUuuid {
  unsigned char bytes[16];
};

struct alignas(128) CUtensorMap {  // 64 until CUDA 13
  uint64_t opaque[16];
};

union CUlaunchAttributeValue {
  char pad[64];
  struct {
    unsigned int x, y, z;
  } clusterDim;
  int programmaticStreamSerializationAllowed;
};

struct alignas(8) CUlaunchAttribute {
  int id;
  char pad[4];
  CUlaunchAttributeValue value;
};

struct CUlaunchConfig {
  unsigned int gridDimX, gridDimY, gridDimZ;
  unsigned int blockDimX, blockDimY, blockDimZ;
  unsigned int sharedMemBytes;
  CUstream hStream;
  CUlaunchAttribute* attrs;
  unsigned int numAttrs;
};

static_assert(sizeof(CUtensorMap) == 128 && sizeof(CUlaunchAttribute) == 72 && sizeof(CUlaunchConfig) == 56,
              "layout of the driver's structs");

enum : CUresult {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_INVALID_VALUE = 1,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_NOT_READY = 600,
};

enum : int {
  CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 1,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK = 8,
  CU_DEVICE_ATTRIBUTE_WARP_SIZE = 10,
  CU_DEVICE_ATTRIBUTE_CLOCK_RATE = 13,
  CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
  CU_DEVICE_ATTRIBUTE_INTEGRATED = 18,
  CU_DEVICE_ATTRIBUTE_COMPUTE_MODE = 20,
  CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE = 36,
  CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH = 37,
  CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE = 38,
  CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR = 39,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = 81,
  CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR = 82,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
  CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED = 115,

  CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
  CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
  CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3,
  CU_FUNC_ATTRIBUTE_NUM_REGS = 4,
  CU_FUNC_ATTRIBUTE_BINARY_VERSION = 6,
  CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
  CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT = 9,
  CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14,
  CU_SHAREDMEM_CARVEOUT_MAX_SHARED = 100,

  CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION = 4,
  CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6,

  CU_MEMPOOL_ATTR_RELEASE_THRESHOLD = 4,
  CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT = 5,
  CU_MEMPOOL_ATTR_USED_MEM_CURRENT = 7,

  CU_JIT_ERROR_LOG_BUFFER = 5,
  CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES = 6,

  CU_STREAM_NON_BLOCKING = 1,
  CU_STREAM_CAPTURE_STATUS_NONE = 0,
  CU_STREAM_CAPTURE_MODE_RELAXED = 2,
  CU_MEMHOSTALLOC_PORTABLE = 1,
  CU_EVENT_BLOCKING_SYNC = 1,
  CU_EVENT_DISABLE_TIMING = 2,
  CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH = 1,
};

// X(member, exported symbol, parameters): what every supported driver has (cuLaunchKernelEx came with CUDA 11.8).
#define FLASHINFER_DRIVER_REQUIRED(X)                                                                            \
  X(cuInit, "cuInit", (unsigned int flags))                                                                      \
  X(cuDriverGetVersion, "cuDriverGetVersion", (int* version))                                                    \
  X(cuGetErrorName, "cuGetErrorName", (CUresult error, const char** text))                                       \
  X(cuGetErrorString, "cuGetErrorString", (CUresult error, const char** text))                                   \
  X(cuDeviceGetCount, "cuDeviceGetCount", (int* count))                                                          \
  X(cuDeviceGet, "cuDeviceGet", (CUdevice * device, int ordinal))                                                \
  X(cuDeviceGetName, "cuDeviceGetName", (char* name, int length, CUdevice device))                               \
  X(cuDeviceGetUuid, "cuDeviceGetUuid_v2", (CUuuid * uuid, CUdevice device))                                     \
  X(cuDeviceGetPCIBusId, "cuDeviceGetPCIBusId", (char* id, int length, CUdevice device))                         \
  X(cuDeviceTotalMem, "cuDeviceTotalMem_v2", (size_t* bytes, CUdevice device))                                   \
  X(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int* value, int attribute, CUdevice device))                  \
  X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext * context, CUdevice device))                \
  X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (CUdevice device))                                \
  X(cuCtxGetCurrent, "cuCtxGetCurrent", (CUcontext * context))                                                   \
  X(cuCtxSetCurrent, "cuCtxSetCurrent", (CUcontext context))                                                     \
  X(cuCtxSynchronize, "cuCtxSynchronize", ())                                                                    \
  X(cuDeviceGetDefaultMemPool, "cuDeviceGetDefaultMemPool", (CUmemoryPool * pool, CUdevice device))              \
  X(cuMemPoolSetAttribute, "cuMemPoolSetAttribute", (CUmemoryPool pool, int attribute, void* value))             \
  X(cuMemPoolGetAttribute, "cuMemPoolGetAttribute", (CUmemoryPool pool, int attribute, void* value))             \
  X(cuMemPoolTrimTo, "cuMemPoolTrimTo", (CUmemoryPool pool, size_t bytesToKeep))                                 \
  X(cuMemGetInfo, "cuMemGetInfo_v2", (size_t* free, size_t* total))                                              \
  X(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr * ptr, size_t bytes))                                              \
  X(cuMemFree, "cuMemFree_v2", (CUdeviceptr ptr))                                                                \
  X(cuMemAllocAsync, "cuMemAllocAsync", (CUdeviceptr * ptr, size_t bytes, CUstream stream))                      \
  X(cuMemFreeAsync, "cuMemFreeAsync", (CUdeviceptr ptr, CUstream stream))                                        \
  X(cuMemHostAlloc, "cuMemHostAlloc", (void** ptr, size_t bytes, unsigned int flags))                            \
  X(cuMemFreeHost, "cuMemFreeHost", (void* ptr))                                                                 \
  X(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (CUdeviceptr dst, const void* src, size_t bytes, CUstream s))     \
  X(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void* dst, CUdeviceptr src, size_t bytes, CUstream s))           \
  X(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream s))     \
  X(cuMemsetD8Async, "cuMemsetD8Async", (CUdeviceptr dst, unsigned char value, size_t count, CUstream s))        \
  X(cuMemsetD16Async, "cuMemsetD16Async", (CUdeviceptr dst, unsigned short value, size_t count, CUstream s))     \
  X(cuMemsetD32Async, "cuMemsetD32Async", (CUdeviceptr dst, unsigned int value, size_t count, CUstream s))       \
  X(cuStreamCreateWithPriority, "cuStreamCreateWithPriority", (CUstream * stream, unsigned int flags, int prio)) \
  X(cuStreamDestroy, "cuStreamDestroy_v2", (CUstream stream))                                                    \
  X(cuStreamSynchronize, "cuStreamSynchronize", (CUstream stream))                                               \
  X(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream stream, CUevent event, unsigned int flags))                \
  X(cuStreamBeginCapture, "cuStreamBeginCapture_v2", (CUstream stream, int mode))                                \
  X(cuStreamEndCapture, "cuStreamEndCapture", (CUstream stream, CUgraph * graph))                                \
  X(cuStreamIsCapturing, "cuStreamIsCapturing", (CUstream stream, int* status))                                  \
  X(cuEventCreate, "cuEventCreate", (CUevent * event, unsigned int flags))                                       \
  X(cuEventDestroy, "cuEventDestroy_v2", (CUevent event))                                                        \
  X(cuEventRecord, "cuEventRecord", (CUevent event, CUstream stream))                                            \
  X(cuEventQuery, "cuEventQuery", (CUevent event))                                                               \
  X(cuEventSynchronize, "cuEventSynchronize", (CUevent event))                                                   \
  X(cuEventElapsedTime, "cuEventElapsedTime", (float* ms, CUevent start, CUevent end))                           \
  X(cuGraphGetNodes, "cuGraphGetNodes", (CUgraph graph, CUgraphNode * nodes, size_t* count))                     \
  X(cuGraphInstantiateWithFlags, "cuGraphInstantiateWithFlags",                                                  \
    (CUgraphExec * exec, CUgraph graph, unsigned long long flags))                                               \
  X(cuGraphLaunch, "cuGraphLaunch", (CUgraphExec exec, CUstream stream))                                         \
  X(cuGraphDestroy, "cuGraphDestroy", (CUgraph graph))                                                           \
  X(cuGraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec exec))                                                \
  X(cuModuleLoadDataEx, "cuModuleLoadDataEx",                                                                    \
    (CUmodule * module, const void* image, unsigned int numOptions, int* options, void** values))                \
  X(cuModuleUnload, "cuModuleUnload", (CUmodule module))                                                         \
  X(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction * function, CUmodule module, const char* name))      \
  X(cuFuncGetAttribute, "cuFuncGetAttribute", (int* value, int attribute, CUfunction function))                  \
  X(cuFuncSetAttribute, "cuFuncSetAttribute", (CUfunction function, int attribute, int value))                   \
  X(cuOccupancyMaxActiveBlocksPerMultiprocessor, "cuOccupancyMaxActiveBlocksPerMultiprocessor",                  \
    (int* blocks, CUfunction function, int threads, size_t sharedBytes))                                         \
  X(cuLaunchKernelEx, "cuLaunchKernelEx",                                                                        \
    (const CUlaunchConfig* config, CUfunction function, void** params, void** extra))

// nullptr where the driver is older.
#define FLASHINFER_DRIVER_OPTIONAL(X)                                                                            \
  X(cuFuncGetParamInfo, "cuFuncGetParamInfo", (CUfunction function, size_t index, size_t* offset, size_t* size)) \
  X(cuFuncLoad, "cuFuncLoad", (CUfunction function))                                                             \
  X(cuOccupancyMaxActiveClusters, "cuOccupancyMaxActiveClusters",                                                \
    (int* clusters, CUfunction function, const CUlaunchConfig* config))                                          \
  X(cuTensorMapEncodeTiled, "cuTensorMapEncodeTiled",                                                            \
    (CUtensorMap * map, int dtype, uint32_t rank, void* address, const uint64_t* dims, const uint64_t* strides,  \
     const uint32_t* box, const uint32_t* elementStrides, int interleave, int swizzle, int l2Promotion, int oobFill))

struct DriverApi {
#define X(member, symbol, params) CUresult(FLASHINFER_CUDAAPI* member) params = nullptr;
  FLASHINFER_DRIVER_REQUIRED(X)
  FLASHINFER_DRIVER_OPTIONAL(X)
#undef X
};

}  // namespace flashinfer::cuda
