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
  GroupFor<Config> group;
  const int index = group.first_row();
  Row<Config, RowInput::kSoftmax> row(group, params.segment);
  row.start(static_cast<const T*>(params.x) + index * params.x_stride, params.vocab);
  const float top = row.load();
  const uint32_t max_key = group.peak(row.has_nan() ? 0xffffffffu : ordered_key(top), 0).max;
  const float temperature = per_row<float>(params.temperature, params.temperature_value, index);
  const RowWeights<RowInput::kSoftmax> weights(max_key, temperature, 0.0f);
  float* out = static_cast<float*>(params.out) + static_cast<int64_t>(index) * params.vocab;
  uint64_t sum = 0;
  const auto add = [&](float value) { sum += weight_of(value, weights.factor); };
  if constexpr (Config::kShared) {
    row.replace_each([&](float (&values)[4]) {
#pragma unroll
      for (int k = 0; k < 4; ++k) add(values[k] = weights.value(values[k]));
    });
  } else {
    row.for_each([&](int, const float (&values)[4]) {
#pragma unroll
      for (int k = 0; k < 4; ++k) add(weights.value(values[k]));
    });
  }
  const float factor = softmax_factor(max_key, group.share(sum).total);
  row.write(out, [&](float x) { return (Config::kShared ? x : weights.value(x)) * factor; });
}

/**
 * For each row of the cluster value_of(index, row, group), a function of its elements, and what that gives of them; the next
 * row loads behind what is written.
 */
template <class Config, RowInput kInput, class Params, class ValueOf>
__device__ __forceinline__ void map_rows(const Params& params, const ValueOf& value_of) {
  using T = typename Config::T;
  GroupFor<Config> group;
  Row<Config, kInput, true> row(group, params.segment);
  int index = group.first_row();
  if constexpr (Config::kLoops) group.stagger(params.stagger, params.clusters_at_once);
  row.start(static_cast<const T*>(params.x) + index * params.x_stride, params.vocab);
#pragma unroll 1
  for (;;) {
    const auto value = value_of(index, row, group);
    T* out = static_cast<T*>(params.out) + static_cast<int64_t>(index) * params.vocab;
    index += group.row_step();
    const bool more = Config::kLoops && index < params.out_rows;
    row.write_and_start(out, value, more ? static_cast<const T*>(params.x) + index * params.x_stride : nullptr);
    if (!more) break;
  }
}

/** Probabilities that the filters keep, divided by their sum; the others are 0. A row without weight is 0. */
template <class Config, class Params>
__device__ __forceinline__ void renorm_probs(const Params& params) {
  map_rows<Config, RowInput::kProbs>(params, [&](int index, auto& row, auto& group) {
    const float top = row.load();
    const int k = top_k_of(params, index);
    const RowPeak peak = group.template peak<true>(ordered_key(top), k, row.sum());
    const float min_p = (params.filters & kMinP) != 0 ? per_row<float>(params.min_p, params.min_p_value, index) : 0.0f;
    RowWeights<RowInput::kProbs> weights(peak.max, 1.0f, min_p);
    const Kept kept = apply_filters(row, group, weights, index, params, peak, k);
    const float factor = reciprocal_sum(kept.total, weights.factor), lowest = weights.lowest;
    return [=](float x) { return x >= lowest ? x * factor : 0.0f; };
  });
}

/** Logits that top-k keeps, divided by the temperature; the others are -infinity. */
template <class Config, class Params>
__device__ __forceinline__ void mask_logits(const Params& params) {
  map_rows<Config, RowInput::kRaw>(params, [&](int index, auto& row, auto& group) {
    const float top = row.load();
    const int k = top_k_of(params, index);
    uint32_t key = 0;
    if (k > 0) {
      const RowPeak peak = group.peak(ordered_key(top), k);
      Candidates candidates;
      key = list_top_k(row, group, peak, candidates)
                ? group.settle(candidates, peak.bound, peak.max, static_cast<uint32_t>(k), 1)
                : select_key<RowInput::kRaw>(row, group, peak.max, static_cast<uint32_t>(k), [](float) { return 1u; });
    }
    const float lowest = lowest_value(key);
    const float scale = __frcp_rn(per_row<float>(params.temperature, params.temperature_value, index));
    return [=](float x) { return key == 0 || x >= lowest ? x * scale : negative_infinity(); };
  });
}

}  // namespace flashinfer
