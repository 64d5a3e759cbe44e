// SPDX-License-Identifier: Apache-2.0
#include "cuda/driver.h"

#include "platform/dynamic_library.h"

namespace flashinfer::cuda {
namespace {

std::vector<std::string> Candidates() {
#ifdef _WIN32
  return {"nvcuda.dll"};
#else
  // Not "libcuda.so": that name is the toolkit's link stub. WSL keeps the driver out of the default search path.
  return {"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"};
#endif
}

template <class Function>
bool Resolve(const platform::DynamicLibrary& library, const char* symbol, Function* out) {
  *out = reinterpret_cast<Function>(library.Symbol(symbol));
  return *out != nullptr;
}

/** Name of the first required function that the library lacks, or nullptr. */
const char* ResolveAll(const platform::DynamicLibrary& library, DriverApi* api) {
#define X(member, symbol, params) \
  if (!Resolve(library, symbol, &api->member)) return symbol;
  FLASHINFER_DRIVER_REQUIRED(X)
#undef X
#define X(member, symbol, params) Resolve(library, symbol, &api->member);
  FLASHINFER_DRIVER_OPTIONAL(X)
#undef X
  return nullptr;
}

DriverLibrary Load() {
  DriverLibrary out;
  const platform::DynamicLibrary library = platform::DynamicLibrary::Open(Candidates(), &out.searched);
  if (!library) {
    out.error = "no CUDA driver library; install the NVIDIA driver (in a container: start it with GPU access)";
    return out;
  }
  const char* missing = ResolveAll(library, &out.api);
  out.path = library.Path(reinterpret_cast<void*>(out.api.cuInit));
  if (out.api.cuDriverGetVersion != nullptr) out.api.cuDriverGetVersion(&out.version);
  if (missing != nullptr) {
    out.error = std::string("the CUDA driver lacks ") + missing + "; update it to one for CUDA 11.8 or newer";
    return out;
  }
  CUresult result = out.api.cuInit(0);
  if (result == CUDA_SUCCESS) result = out.api.cuDeviceGetCount(&out.deviceCount);
  if (result == CUDA_SUCCESS && out.deviceCount == 0) result = CUDA_ERROR_NO_DEVICE;
  if (result != CUDA_SUCCESS) {
    out.error = "cuInit: " + DescribeResult(out.api, result);
    return out;
  }
  out.ok = true;
  return out;
}

}  // namespace

const DriverLibrary& Driver() {
  static const DriverLibrary library = Load();
  return library;
}

const DriverApi& Api() {
  const DriverLibrary& driver = Driver();
  if (!driver.ok) {
    std::string searched;
    for (const std::string& line : driver.searched) searched += (searched.empty() ? "" : "; ") + line;
    throw NativeError("CUDA_UNAVAILABLE", driver.error + " (searched " + searched + ")");
  }
  return driver.api;
}

std::string DescribeResult(const DriverApi& api, CUresult result) {
  const char* name = nullptr;
  const char* text = nullptr;
  api.cuGetErrorName(result, &name);
  api.cuGetErrorString(result, &text);
  return std::string(name ? name : "unknown CUresult") + " (" + std::to_string(result) + ")" +
         (text ? std::string(": ") + text : std::string());
}

void ThrowResult(CUresult result, const char* call, int device, const std::string& detail) {
  std::string message = std::string(call) + " failed";
  if (device >= 0) message += " on cuda:" + std::to_string(device);
  message += ": " + DescribeResult(Api(), result);
  if (!detail.empty()) message += "; " + detail;
  throw NativeError(result == CUDA_ERROR_OUT_OF_MEMORY ? "OOM" : "CUDA", message, result);
}

}  // namespace flashinfer::cuda
