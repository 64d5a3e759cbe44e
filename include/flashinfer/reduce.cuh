// SPDX-License-Identifier: Apache-2.0
// Sums and maxima over the lanes of a row.
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

namespace detail {

struct AddFloats {
  static __device__ __forceinline__ float apply(float a, float b) { return a + b; }
};
struct MaxOfFloats {
  static __device__ __forceinline__ float apply(float a, float b) { return fmaxf(a, b); }
};

}  // namespace detail

/**
 * Combines over groups of LANES consecutive threads: a power of two up to a warp, or the whole block. All threads of the
 * block call it; every thread gets its group's result, combined in a fixed order. 0 must change nothing.
 */
template <int LANES, class Operation>
class GroupReduce {
 public:
  __device__ __forceinline__ float operator()(float value) {
    constexpr int kWarpLanes = LANES < 32 ? LANES : 32;
#pragma unroll
    for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) {
      value = Operation::apply(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    if constexpr (LANES > 32) {
      constexpr int kWarps = LANES / 32;
      static_assert(LANES % 32 == 0 && kWarps <= 32, "whole warps, whose results one warp can combine");
      // Two slots, taken in turns: who writes a slot again has passed the barrier behind its last readers.
      __shared__ float results[2][kWarps];
      const int lane = threadIdx.x % 32;
      if (lane == 0) results[turn_][threadIdx.x / 32] = value;
      __syncthreads();
      value = lane < kWarps ? results[turn_][lane] : 0.0f;
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) {
        value = Operation::apply(value, __shfl_xor_sync(0xffffffffu, value, offset));
      }
      turn_ ^= 1;
    }
    return value;
  }

 private:
  int turn_ = 0;
};

template <int LANES>
using GroupSum = GroupReduce<LANES, detail::AddFloats>;
/** Of magnitudes: values from 0 up. */
template <int LANES>
using GroupMax = GroupReduce<LANES, detail::MaxOfFloats>;

}  // namespace flashinfer
