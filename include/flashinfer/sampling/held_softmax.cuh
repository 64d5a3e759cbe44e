// SPDX-License-Identifier: Apache-2.0
// Softmax of rows that clusters hold in registers.
#pragma once
#include <flashinfer/sampling/held_group.cuh>

namespace flashinfer {

/**
 * As softmax(), of the same bits. params: x, out, temperature (float32 a row, or null: temperature_value), x_stride, vocab: a
 * multiple of 4.
 */
template <class Config, class Params>
__device__ __forceinline__ void held_softmax(const Params& params) {
  using T = typename Config::T;
  constexpr int kAccesses = Config::kAccesses;
  constexpr int kStep = 4 * Config::kThreads * Config::kCluster;  // from one access of a thread to its next
  const uint32_t row = blockIdx.x / Config::kCluster;
  const int first = 4 * (cluster_rank() * Config::kThreads + static_cast<int>(threadIdx.x));
  const T* x = static_cast<const T*>(params.x) + row * params.x_stride + first;
  const bool has_last = first + (kAccesses - 1) * kStep < params.vocab;
  float values[kAccesses][4];
  wait_for_previous_grid();
  launch_next_grid();
#pragma unroll
  for (int i = 0; i < kAccesses; ++i) {
    if (i < kAccesses - 1 || has_last) {
      unpack<T>(load_once<T, 4>(x + i * kStep), values[i]);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) values[i][k] = negative_infinity();
    }
  }
  HeldGroup<Config::kThreads, Config::kCluster> group;
  group.open();
  const float temperature = per_row<float>(params.temperature, params.temperature_value, static_cast<int>(row));

  float top = negative_infinity();
#pragma unroll
  for (int i = 0; i < kAccesses; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) top = max_nan(top, values[i][k]);
  }
  const uint32_t max_key = group.max(top != top ? 0xffffffffu : ordered_key(top));
  const RowWeights<RowInput::kSoftmax> weights(max_key, temperature, 0.0f);
  WeightSum sum(weights.factor);
#pragma unroll
  for (int i = 0; i < kAccesses; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) values[i][k] = weights.value(values[i][k]);
    sum.add(values[i]);
  }
  const float factor = softmax_factor(max_key, group.sum(sum.total(4 * kAccesses)));
  float* out = static_cast<float*>(params.out) + static_cast<int64_t>(row) * params.vocab + first;
#pragma unroll
  for (int i = 0; i < kAccesses; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) values[i][k] *= factor;
    if (i < kAccesses - 1 || has_last) store_once<float, 4>(out + i * kStep, pack<float>(values[i]));
  }
}

}  // namespace flashinfer
