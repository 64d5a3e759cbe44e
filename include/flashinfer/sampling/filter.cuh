// SPDX-License-Identifier: Apache-2.0
// Which elements of a row are kept, and with which weight they are drawn.
#pragma once
#include <flashinfer/sampling/row.cuh>

namespace flashinfer {

/** One number, or one a row. */
template <class V>
__device__ __forceinline__ V per_row(const void* values, V value, int row) {
  return values != nullptr ? static_cast<const V*>(values)[row] : value;
}

/** The sum of the weights, and each warp's share of it. */
template <class RowType, class Group, RowInput kInput>
__device__ WarpShare total_weight(const RowType& row, Group& group, const RowWeights<kInput>& weights) {
  uint64_t sum = 0;
  row.for_each([&](int, const float (&values)[4]) {
#pragma unroll
    for (int k = 0; k < 4; ++k) sum += weights(values[k]);
  });
  return group.share(sum);
}

/** Key of the k-th largest element; 0, which keeps all, where k is not from 1 to length - 1. */
template <class RowType>
__device__ uint32_t top_k_key(const RowType& row, int k, int length, int threads) {
  if (k < 1 || k >= length) return 0;
  return row.select(static_cast<uint32_t>(k), k <= threads, [](float) { return 1u; });
}

/** Key of the smallest nucleus that weighs top_p of `total`; 0, which keeps all, for NaN and from 1 up. */
template <class RowType, RowInput kInput>
__device__ uint32_t top_p_key(const RowType& row, const RowWeights<kInput>& weights, float top_p, uint64_t total) {
  if (!(top_p < 1.0f) || total == 0) return 0;
  const int shift = top_p_shift(total);
  return row.select(top_p_target(top_p, total, shift), true, [&](float x) { return top_p_weight(weights(x), shift); });
}

/** Applies top-k and top-p to `weights`; the sum of what is left. */
template <class RowType, class Group, RowInput kInput, class Params>
__device__ WarpShare apply_filters(const RowType& row, Group& group, RowWeights<kInput>& weights, int row_index,
                                   const Params& params) {
  constexpr int kThreads = Group::kWarps * 32;
  uint32_t key = 0;
  if (params.filters & kTopK) {
    const int k = per_row<int>(params.top_k, params.top_k_value, row_index);
    key = top_k_key(row, k, params.vocab, kThreads * group.size());
  }
  // Joint: both filters see the whole row. Else top-p sees what top-k left.
  if ((params.filters & kJoint) == 0) weights.lowest_key = key;
  WarpShare share = total_weight(row, group, weights);
  if (params.filters & kTopP) {
    const uint32_t nucleus =
        top_p_key(row, weights, per_row<float>(params.top_p, params.top_p_value, row_index), share.total);
    if (nucleus > key) key = nucleus;
  }
  if (key > weights.lowest_key) {
    weights.lowest_key = key;
    share = total_weight(row, group, weights);
  }
  return share;
}

}  // namespace flashinfer
