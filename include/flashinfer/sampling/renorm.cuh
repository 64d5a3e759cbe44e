// SPDX-License-Identifier: Apache-2.0
// Whole rows out: softmax, filtered probabilities, filtered logits. One read and one write of memory where the row fits
// shared memory.
#pragma once
#include <flashinfer/sampling/filter.cuh>

namespace flashinfer {

/** As PyTorch's: a row with NaN, with infinity, or without a finite logit is NaN. */
template <class Config, class Params>
__device__ __forceinline__ void softmax(const Params& params) {
  using T = typename Config::T;
  RowGroup<Config::kThreads> group;
  const int index = static_cast<int>(blockIdx.x) / group.size();
  Row<Config, RowInput::kRaw> row(group, static_cast<const T*>(params.x) + index * params.x_stride, params.vocab,
                                  params.segment);
  const float top = row.load();
  bool has_nan = false;
  row.for_each([&](int i, const float (&values)[4]) {
#pragma unroll
    for (int k = 0; k < 4; ++k) has_nan |= values[k] != values[k] && i + k < params.vocab;
  });
  group.ready();
  const uint32_t max_key = group.maximum(has_nan ? 0xffffffffu : ordered_key(top));
  const float temperature = per_row<float>(params.temperature, params.temperature_value, index);
  const RowWeights<RowInput::kRaw> weights(max_key, temperature, 0.0f);
  const float max = value_of_key(max_key);
  const bool defined = fabsf(max) <= kLargestFloat;  // false for NaN
  float factor = __int_as_float(0x7fc00000);
  if (defined) {
    uint64_t sum = 0;
    row.for_each([&](int i, const float (&values)[4]) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (i + k < params.vocab) sum += weight_of(weights.value(values[k]), weights.factor);
      }
    });
    factor = reciprocal_sum(group.share(sum).total, weights.factor);
  }
  float* out = static_cast<float*>(params.out) + static_cast<int64_t>(index) * params.vocab;
  row.write(out, [&](float x) { return defined ? weights.value(x) * factor : factor; });
  group.finish();
}

/** Probabilities that the filters keep, divided by their sum; the others are 0. A row without weight is 0. */
template <class Config, class Params>
__device__ __forceinline__ void renorm_probs(const Params& params) {
  using T = typename Config::T;
  RowGroup<Config::kThreads> group;
  const int index = static_cast<int>(blockIdx.x) / group.size();
  Row<Config, RowInput::kProbs> row(group, static_cast<const T*>(params.x) + index * params.x_stride, params.vocab,
                                    params.segment);
  const float top = row.load();
  group.ready();
  RowWeights<RowInput::kProbs> weights(group.maximum(ordered_key(top)), 1.0f, 0.0f);
  const WarpShare share = apply_filters(row, group, weights, index, params);
  const float factor = reciprocal_sum(share.total, weights.factor);
  T* out = static_cast<T*>(params.out) + static_cast<int64_t>(index) * params.vocab;
  row.write(out, [&](float x) { return ordered_key(x) >= weights.lowest_key ? x * factor : 0.0f; });
  group.finish();
}

/** Logits that top-k keeps; the others are -infinity. */
template <class Config, class Params>
__device__ __forceinline__ void mask_logits(const Params& params) {
  using T = typename Config::T;
  RowGroup<Config::kThreads> group;
  const int index = static_cast<int>(blockIdx.x) / group.size();
  Row<Config, RowInput::kRaw> row(group, static_cast<const T*>(params.x) + index * params.x_stride, params.vocab,
                                  params.segment);
  row.load();
  group.ready();
  const int k = per_row<int>(params.top_k, params.top_k_value, index);
  const uint32_t key = top_k_key(row, k, params.vocab, Config::kThreads * group.size());
  T* out = static_cast<T*>(params.out) + static_cast<int64_t>(index) * params.vocab;
  row.write(out, [&](float x) { return ordered_key(x) >= key ? x : negative_infinity(); });
  group.finish();
}

}  // namespace flashinfer
