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

/**
 * Sum of weight_of() over a thread's elements, four at a time, 2048 at most. Conversions to 64 bits take 32 times as long as
 * products: here float units take the high 21 bits of the weight and then the low 21 apart, each beside the 1 of 2^23, so that
 * the words' sums are theirs. Every step is exact but the last, which rounds towards 0 as weight_of() does.
 */
class WeightSum {
 public:
  explicit __device__ WeightSum(float factor) : factor_(factor) {}

  __device__ __forceinline__ void add(const float (&values)[4]) {
    uint32_t high[4], low[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float above = __fmaf_rz(values[k], factor_ * (1.0f / kUnit), kOne);
      const float rest = __fmaf_rn(above, -kUnit, kOne * kUnit + kOne);
      high[k] = __float_as_uint(above);
      low[k] = __float_as_uint(__fmaf_rz(values[k], factor_, rest));
    }
    high_ += (high[0] + high[1]) + (high[2] + high[3]);
    low_ += (low[0] + low[1]) + (low[2] + low[3]);
  }

  /** Behind `count` elements. */
  __device__ uint64_t total(int count) const {
    const uint32_t ones = static_cast<uint32_t>(count) * __float_as_uint(kOne);
    return (static_cast<uint64_t>(high_ - ones) << kUnitBits) + (low_ - ones);
  }

 private:
  static constexpr int kUnitBits = kWeightBits / 2;
  static constexpr float kUnit = 1 << kUnitBits;
  static constexpr float kOne = 1 << 23;

  float factor_;
  uint32_t high_ = 0, low_ = 0;
};

/** Of softmax: what weights are multiplied by. Without a division, which took as long as an exchange between blocks. */
__device__ __forceinline__ float softmax_factor(uint32_t max_key, uint64_t total) {
  if (!(fabsf(value_of_key(max_key)) <= kLargestFloat)) return __int_as_float(0x7fc00000);  // infinite, or NaN
  return reciprocal_approx(static_cast<float>(total)) * weight_factor(1.0f);
}

/** The sum of the weights, and each warp's share of it. */
template <class RowType, class Group, RowInput kInput>
__device__ WarpShare total_weight(const RowType& row, Group& group, const RowWeights<kInput>& weights) {
  WeightSum sum(weights.factor);
  row.for_each([&](int, const float (&values)[4]) {
    float kept[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) kept[k] = values[k] >= weights.lowest ? weights.value(values[k]) : 0.0f;
    sum.add(kept);
  });
  return group.share(sum.total(row.count()));
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
    FilterTarget goal = weights_of(shift, weight_factor);
    goal.target = top_p_target(top_p, total, shift);
    return goal;
  }

  /** How a nucleus weighs where the total is about `sum`; without a target. */
  static __device__ FilterTarget guess(float sum, float weight_factor) {
    const int exponent = static_cast<int>(__float_as_uint(sum * weight_factor * kTopPMargin) >> 23) - 127;
    return weights_of(exponent > 30 && exponent < 64 ? exponent - 30 : 0, weight_factor);
  }

  __device__ uint32_t weigh(float value) const { return __float2uint_rz(__fmaf_rd(value, factor, half)); }

 private:
  static __device__ FilterTarget weights_of(int shift, float weight_factor) {
    return {0, weight_factor * __int_as_float((127 - shift) << 23), shift > 0 ? 0.5f : 0.0f};
  }
};

/**
 * Weighs a whole row of probabilities, and makes the histogram that top-p begins with in the same pass: how it weighs
 * depends on the total, but on little of it, which `guess` says. True, and `goal` and `crossing`, where that was right.
 */
template <class RowType, class Group>
__device__ bool weigh_and_cross(const RowType& row, Group& group, const RowWeights<RowInput::kProbs>& weights,
                                uint32_t max_key, float top_p, const FilterTarget& guess, Kept& kept,
                                Crossing& crossing) {
  WeightSum sum(weights.factor);
  bool right = false;
  const auto target = [&] {
    kept.share = group.share(sum.total(row.count()));
    kept.total = kept.share.total;
    const FilterTarget goal = FilterTarget::nucleus(top_p, kept.total, weights.factor);
    right = goal.target > 0 && goal.factor == guess.factor;
    return right ? goal.target : 1;
  };
  crossing = group.histogram(target, [&](const auto& add) {
    row.for_each([&](int, const float (&values)[4]) {
      sum.add(values);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const uint32_t distance = key_distance<RowInput::kProbs>(max_key, values[k]);
        add(distance >> kFirstShift<Group>, guess.weigh(values[k]));
      }
    });
  });
  return right;
}

/** Applies top-k, with k = top_k_of(), and top-p to `weights`. */
template <class RowType, class Group, RowInput kInput, class Params>
__device__ Kept apply_filters(const RowType& row, Group& group, RowWeights<kInput>& weights, int row_index,
                              const Params& params, const RowPeak& peak, int k) {
  Kept kept;
  kept.listed = list_top_k(row, group, peak, kept.candidates);
  uint32_t key = 0;
  Crossing crossing = {};
  bool crossed = false;
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
      const auto weigh = [&](float x) { return x >= weights.lowest ? goal.weigh(weights.value(x)) : 0; };
      const uint32_t found = kept.listed
                                 ? group.settle(kept.candidates, peak.bound, peak.max, goal.target,
                                                weigh(value_of_key(kept.candidates.mine.key)))
                                 : select_key<kInput>(row, group, peak.max, goal.target, weigh, crossing, crossed);
      if (found > key) key = found;
    }
    // Joint: both filters see the whole row. Else top-p sees what top-k left.
    const bool joint = first && (params.filters & kJoint) != 0;
    if (joint) kept.listed = false;
    const float lowest = joint ? weights.lowest : fmaxf(weights.lowest, lowest_value(key));
    if (!first && !(lowest > weights.lowest)) continue;
    weights.lowest = lowest;
    if constexpr (RowType::kSums && Group::kThreads < 1024) {  // else registers would spill
      if (first && k == 0 && (params.filters & (kTopP | kMinP)) == kTopP) {
        const float top_p = per_row<float>(params.top_p, params.top_p_value, row_index);
        const FilterTarget guess = FilterTarget::guess(peak.sum, weights.factor);
        crossed = weigh_and_cross(row, group, weights, peak.max, top_p, guess, kept, crossing);
        continue;
      }
    }
    weigh_kept(row, group, weights, kept);
  }
  return kept;
}

}  // namespace flashinfer
