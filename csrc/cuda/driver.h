// SPDX-License-Identifier: Apache-2.0
// The driver library, opened once a process, and the one way to call it.
#pragma once
#include <string>
#include <vector>

#include "binding/error.h"
#include "cuda/driver_api.h"

namespace flashinfer::cuda {

/** What opening the driver gave; never changes afterwards. */
struct DriverLibrary {
  DriverApi api;
  bool ok = false;
  std::string path;
  int version = 0;
  int deviceCount = 0;
  /** Why `ok` is false. */
  std::string error;
  std::vector<std::string> searched;
};

/** Opens the driver on the first call of the process. */
const DriverLibrary& Driver();

/** The function table; throws CUDA_UNAVAILABLE where there is no working driver. */
const DriverApi& Api();

/** "CUDA_ERROR_INVALID_VALUE (1): invalid argument". */
std::string DescribeResult(const DriverApi& api, CUresult result);

/** Throws 'OOM' or 'CUDA' with `call`, the result's name and the device (-1: none). */
[[noreturn]] void ThrowResult(CUresult result, const char* call, int device, const std::string& detail = {});

inline void CheckResult(CUresult result, const char* call, int device) {
  if (result != CUDA_SUCCESS) ThrowResult(result, call, device);
}

// Every driver call that may fail goes through here: FLASHINFER_CU(device, cuStreamSynchronize, stream).
#define FLASHINFER_CU(device, function, ...) \
  ::flashinfer::cuda::CheckResult(::flashinfer::cuda::Api().function(__VA_ARGS__), #function, device)

/** Whether what the event was recorded behind is done. */
inline bool IsDone(CUevent event, int device) {
  const CUresult result = Api().cuEventQuery(event);
  if (result == CUDA_ERROR_NOT_READY) return false;
  CheckResult(result, "cuEventQuery", device);
  return true;
}

}  // namespace flashinfer::cuda
