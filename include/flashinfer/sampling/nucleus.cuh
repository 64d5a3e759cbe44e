// SPDX-License-Identifier: Apache-2.0
// Draws from the nucleus of top-p without looking for its threshold.
#pragma once
#include <flashinfer/sampling/draw.cuh>

namespace flashinfer {

/** Whether elements are in the nucleus: where those that are larger weigh less than the target. */
template <RowInput kInput>
class NucleusTest {
 public:
  __device__ NucleusTest(const FilterTarget& goal, const RowWeights<kInput>& weights, int vocab)
      : goal_(goal), weights_(weights), margin_(2 * static_cast<uint32_t>(vocab) + (goal.target >> 12)) {}

  /** About what is larger than each of two values weighs, in the halves of a word. */
  template <class RowType, class Group>
  __device__ uint64_t weigh_above(const RowType& row, Group& group, float first, float second) const {
    float sums[2] = {0.0f, 0.0f};
    row.for_each([&](int, const float (&values)[4]) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float weight = weights_.value(values[k]);
        if (values[k] > first) sums[0] = __fmaf_rn(weight, goal_.factor, sums[0]);
        if (values[k] > second) sums[1] = __fmaf_rn(weight, goal_.factor, sums[1]);
      }
    });
    return group.share(static_cast<uint64_t>(__float2uint_rz(sums[1])) << 32 | __float2uint_rz(sums[0])).total;
  }

  /**
   * `above`: about what weighs more than `value`. Elements and threads round by 1 at most, and sums of a thread's up to 2048
   * elements by 2^-13: where that may decide, exact sums do.
   */
  template <class RowType, class Group>
  __device__ bool has(const RowType& row, Group& group, float value, uint32_t above) const {
    if (above + margin_ < goal_.target) return true;
    if (above >= goal_.target + margin_) return false;
    uint32_t sum = 0;
    row.for_each([&](int, const float (&values)[4]) {
#pragma unroll
      for (int k = 0; k < 4; ++k) sum += values[k] > value ? goal_.weigh(weights_.value(values[k])) : 0;
    });
    return group.share(sum).total < goal_.target;
  }

 private:
  const FilterTarget& goal_;
  const RowWeights<kInput>& weights_;
  uint32_t margin_;
};

/**
 * Draws from what weighs something; `weighed`, as `share` says. Else with top-p: draws from all elements, then from those that
 * are larger than what was drawn, until one is in the nucleus; in the second round from the largest alone where they are the
 * nucleus. A round draws two, which one pass tests; the first that is in it counts.
 */
template <class RowType, class Group, RowInput kInput, class Params>
__device__ void draw_token(const RowType& row, Group& group, RowWeights<kInput>& weights, int row_index,
                           const Params& params, bool weighed, WarpShare share) {
  const auto write = [&](int token) { static_cast<int*>(params.out)[row_index] = token; };
  FilterTarget goal = FilterTarget::count(0);
  group.keep(weights.max);
  bool first = true;
#pragma unroll 1
  for (uint32_t round = 0;;) {
    if (!weighed) share = total_weight(row, group, weights);
    if (first) {
      write_valid(params, group, row_index, share.total != 0);
      const bool nucleus = !weighed && (params.filters & kTopP) != 0;
      const float top_p = nucleus ? per_row<float>(params.top_p, params.top_p_value, row_index) : 1.0f;
      goal = FilterTarget::nucleus(top_p, share.total, weights.factor);
      first = false;
      if (goal.target > 0 && goal.weigh(weights.value(group.kept())) >= goal.target) {
        weights.lowest = group.kept();
        goal.target = 0;
        continue;
      }
    }
    if (share.total == 0) break;
    const Philox4 words = row_words(params, row_index, round);
    const int draws = goal.target == 0 ? 1 : 2;
#pragma unroll 1
    for (int which = 0; which < draws; ++which) {
      const uint64_t point = which == 0 ? draw_point(words, share.total) : second_point(words, share.total);
      find_drawn(row, group, share, point, weights, [&](int index, float value) {
        if (draws == 2) group.tell(which, static_cast<uint64_t>(__float_as_uint(value)) << 32 | index);
        else if (group.lane() == 0) write(index);
      });
    }
    if (draws == 1) return;
    group.hear();
    const auto drawn_value = [&](int which) { return __uint_as_float(static_cast<uint32_t>(group.word(which) >> 32)); };
    const NucleusTest<kInput> nucleus(goal, weights, params.vocab);
    uint64_t above = nucleus.weigh_above(row, group, drawn_value(0), drawn_value(1));
#pragma unroll 1
    for (int which = 0; which < 2; ++which, above >>= 32) {
      if (!nucleus.has(row, group, drawn_value(which), static_cast<uint32_t>(above))) continue;
      if (group.is_first_thread()) write(static_cast<int>(group.word(which)));
      return;
    }
    weights.lowest = next_value(fmaxf(drawn_value(0), drawn_value(1)));
    ++round;
  }
  if (group.is_first_thread()) write(0);
}

}  // namespace flashinfer
