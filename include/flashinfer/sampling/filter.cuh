// SPDX-License-Identifier: Apache-2.0
// Which elements of a row are kept, and with which weight they are drawn.
#pragma once
#include <flashinfer/sampling/select.cuh>

namespace flashinfer {

/** One number, or one a row. */
template <class V>
__device__ __forceinline__ V per_row(const void* values, V value, int row) {
  return values != nullptr ? static_cast<const V*>(values)[row] : value;
}

/** What the filters leave of a row. */
struct Kept {
  uint64_t total;
  /** Few elements, one a thread, in place of the row: `candidates`, each with its weight. */
  bool listed;
  Candidates candidates;
  uint64_t weight;
  /** Of the row, where it is not listed. */
  WarpShare share;
};

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

/** How many elements top-k keeps; 0 where it keeps all. */
template <class Params>
__device__ int top_k_of(const Params& params, int row_index) {
  if ((params.filters & kTopK) == 0) return 0;
  const int k = per_row<int>(params.top_k, params.top_k_value, row_index);
  return k < params.vocab && k > 0 ? k : 0;
}

/** Lists what may be among the k largest elements, where peak() found a bound of them; false where they are too many. */
template <class RowType, class Group>
__device__ bool list_top_k(const RowType& row, Group& group, const RowPeak& peak, Candidates& candidates) {
  return peak.bound > 0 && group.gather(row, peak.bound, peak.max, candidates);
}

/** Weighs what is kept. */
template <class RowType, class Group, RowInput kInput>
__device__ void weigh_kept(const RowType& row, Group& group, const RowWeights<kInput>& weights, Kept& kept) {
  if (kept.listed) {
    const uint32_t key = kept.candidates.mine.key;
    kept.weight = key != 0 ? weights(value_of_key(key)) : 0;
    kept.total = group.block_sum(kept.weight);
    kept.share = {0, 0, kept.total};
  } else {
    kept.share = total_weight(row, group, weights);
    kept.total = kept.share.total;
  }
}

/**
 * A target of weights in 32 bits: floor(value * factor + half). top_p_weight() in floats, where a half is added to what the
 * shift leaves behind the point; or counting, with a factor of 0 and 1 for the half.
 */
struct FilterTarget {
  uint32_t target;
  float factor, half;

  /** k of the elements; 0 for none. */
  static __device__ FilterTarget count(int k) { return {static_cast<uint32_t>(k), 0.0f, 1.0f}; }

  /** The smallest nucleus that weighs top_p of the total; none, which keeps all, for NaN and from 1 up. */
  static __device__ FilterTarget nucleus(float top_p, uint64_t total, float weight_factor) {
    if (!(top_p < 1.0f) || total == 0) return count(0);
    const int shift = top_p_shift(total);
    const float factor = weight_factor * __int_as_float((127 - shift) << 23);
    return {top_p_target(top_p, total, shift), factor, shift > 0 ? 0.5f : 0.0f};
  }
};

/** Applies top-k, with k = top_k_of(), and top-p to `weights`. */
template <class RowType, class Group, RowInput kInput, class Params>
__device__ Kept apply_filters(const RowType& row, Group& group, RowWeights<kInput>& weights, int row_index,
                              const Params& params, const RowPeak& peak, int k) {
  Kept kept;
  kept.listed = list_top_k(row, group, peak, kept.candidates);
  uint32_t key = 0;
  // Not unrolled: both filters are one and the same code.
#pragma unroll 1
  for (int filter = kTopK; filter <= kTopP; filter *= 2) {
    const bool first = filter == kTopK;
    FilterTarget goal = FilterTarget::count(first ? k : 0);
    if (!first && (params.filters & kTopP) != 0) {
      const float top_p = per_row<float>(params.top_p, params.top_p_value, row_index);
      goal = FilterTarget::nucleus(top_p, kept.total, weights.factor);
    }
    if (goal.target > 0) {
      const auto weigh = [&](float x) {
        return x >= weights.lowest ? __float2uint_rz(__fmaf_rd(weights.value(x), goal.factor, goal.half)) : 0;
      };
      const uint32_t found = kept.listed ? group.settle(kept.candidates, peak.bound, peak.max, goal.target,
                                                        weigh(value_of_key(kept.candidates.mine.key)))
                                         : select_key<kInput>(row, group, peak.max, goal.target, weigh);
      if (found > key) key = found;
    }
    // Joint: both filters see the whole row. Else top-p sees what top-k left.
    const bool joint = first && (params.filters & kJoint) != 0;
    if (joint) kept.listed = false;
    const float lowest = joint ? weights.lowest : fmaxf(weights.lowest, lowest_value(key));
    if (first || lowest > weights.lowest) {
      weights.lowest = lowest;
      weigh_kept(row, group, weights, kept);
    }
  }
  return kept;
}

}  // namespace flashinfer
