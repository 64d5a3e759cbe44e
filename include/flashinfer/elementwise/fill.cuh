// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "flashinfer/elementwise/convert.cuh"

namespace flashinfer {

/** Writes `params.value`, 8 bytes, `params.count` times; the driver's memset fills narrower elements. */
template <class Params>
__device__ __forceinline__ void fill_words(const Params& params) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < params.count) static_cast<uint64_t*>(params.dst)[i] = params.value;
}

/** dst[i] = start + i * step, in float64 and rounded once, as on the cpu. */
template <class T, class Params>
__device__ __forceinline__ void fill_arange(const Params& params) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= params.count) return;
  const double value = __dadd_rn(params.start, __dmul_rn(static_cast<double>(i), params.step));
  static_cast<T*>(params.dst)[i] = convert_double<T>(value);
}

}  // namespace flashinfer
