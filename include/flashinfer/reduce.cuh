// SPDX-License-Identifier: Apache-2.0
// Sums over the lanes of a row.
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

/**
 * Sums over groups of LANES consecutive threads: a power of two up to a warp, or the whole block. All threads of the
 * block call it; every thread gets its group's sum, added in a fixed order.
 */
template <int LANES>
class GroupSum {
 public:
  __device__ __forceinline__ float operator()(float value) {
    constexpr int kWarpLanes = LANES < 32 ? LANES : 32;
#pragma unroll
    for (int offset = kWarpLanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    if constexpr (LANES > 32) {
      constexpr int kWarps = LANES / 32;
      static_assert(LANES % 32 == 0 && kWarps <= 32, "whole warps, whose sums one warp can add");
      // Two slots, taken in turns: who writes a slot again has passed the barrier behind its last readers.
      __shared__ float sums[2][kWarps];
      const int lane = threadIdx.x % 32;
      if (lane == 0) sums[turn_][threadIdx.x / 32] = value;
      __syncthreads();
      value = lane < kWarps ? sums[turn_][lane] : 0.0f;
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
      turn_ ^= 1;
    }
    return value;
  }

 private:
  int turn_ = 0;
};

}  // namespace flashinfer
