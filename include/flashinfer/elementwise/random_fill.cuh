// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "flashinfer/elementwise/pack.cuh"
#include "flashinfer/elementwise/random_values.cuh"

namespace flashinfer {

/** kVec: 4 where dst is aligned to four elements, else 1. */
template <class Distribution_, class T_, int kVec_>
struct RandomConfig {
  using Distribution = Distribution_;
  using T = T_;
  static constexpr int kVec = kVec_;
};

/** One group of four elements a thread; `params.count` elements of the stream of `params.seed`. */
template <class Config, class Params>
__device__ __forceinline__ void random_fill(const Params& params) {
  using T = typename Config::T;
  const int64_t group = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t first = 4 * group;
  if (first >= params.count) return;
  const RandomGroup four = Config::Distribution::Group(params.seed, static_cast<uint64_t>(group));
  Pack<T, 4> values;
#pragma unroll
  for (int i = 0; i < 4; i++) values.values[i] = from_float<T>(four.values[i]);
  T* dst = static_cast<T*>(params.dst) + first;
  if (Config::kVec == 4 && first + 4 <= params.count) {
    *reinterpret_cast<Pack<T, 4>*>(dst) = values;
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (first + i < params.count) dst[i] = values.values[i];
    }
  }
}

}  // namespace flashinfer
