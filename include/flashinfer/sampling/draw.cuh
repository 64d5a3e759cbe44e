// SPDX-License-Identifier: Apache-2.0
// One draw: the element at a random point of the sum of a row's weights. No sort. Rows without weight give token 0.
#pragma once
#include <flashinfer/sampling/filter.cuh>

namespace flashinfer {

/**
 * found(index, value) of the first element whose inclusive prefix sum is above `point`, by the warp whose share holds it, in
 * all its lanes. kept(value) weighs an element, in floats.
 */
template <class RowType, class Group, class Kept, class Found>
__device__ __forceinline__ void find_drawn(const RowType& row, const Group& group, const WarpShare& share,
                                           uint64_t point, float factor, const Kept& kept, const Found& found) {
  if (point < share.before || point - share.before >= share.own) return;
  uint64_t before = share.before;
  float reached[4];
  int first = 0;
  row.scan([&](int index, const float (&values)[4]) {
    WeightSum sum(factor);
    float floats[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      reached[k] = values[k];
      floats[k] = kept(values[k]);
    }
    sum.add(floats);
    first = index;
    const uint64_t all = Group::warp_sum(sum.total(4));
    if (before + all > point) return false;
    before += all;
    return true;
  });
  uint64_t own = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) own += weight_of(kept(reached[k]), factor);
  uint64_t end = own;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const uint64_t left = __shfl_up_sync(0xffffffffu, static_cast<unsigned long long>(end), offset);
    if (group.lane() >= offset) end += left;
  }
  uint64_t sum = before + end - own;
  int place = 0;
  float value = reached[0];
#pragma unroll
  for (int k = 0; k < 3; ++k) {
    sum += weight_of(kept(reached[k]), factor);
    if (sum <= point) place = k + 1, value = reached[k + 1];
  }
  const int lane = __ffs(static_cast<int>(__ballot_sync(0xffffffffu, before + end > point))) - 1;
  found(__shfl_sync(0xffffffffu, first + place, lane), __shfl_sync(0xffffffffu, value, lane));
}

template <class RowType, class Group, RowInput kInput, class Found>
__device__ void find_drawn(const RowType& row, const Group& group, const WarpShare& share, uint64_t point,
                           const RowWeights<kInput>& weights, const Found& found) {
  find_drawn(
      row, group, share, point, weights.factor, [&](float x) { return x >= weights.lowest ? weights.value(x) : 0.0f; },
      found);
}

template <class Params>
__device__ Philox4 row_words(const Params& params, int row, uint32_t draw) {
  const uint64_t seed = per_row<uint64_t>(params.seed, params.seed_value, params.seed_per_row ? row : 0);
  const uint64_t offset = per_row<uint64_t>(params.offset, params.offset_value, params.offset_per_row ? row : 0);
  return draw_words(seed, offset, params.seed_per_row ? 0 : row, draw);
}

/** Whether a row has anything to draw from, where the caller wants to know. */
template <class Params, class Group>
__device__ __forceinline__ void write_valid(const Params& params, const Group& group, int row, bool valid) {
  if (params.valid != nullptr && group.is_first_thread()) static_cast<bool*>(params.valid)[row] = valid;
}

/** Draws from what weighs something, as `share` says. */
template <class RowType, class Group, RowInput kInput, class Params>
__device__ void draw_weighed(const RowType& row, const Group& group, const WarpShare& share,
                             const RowWeights<kInput>& weights, int row_index, const Params& params) {
  int* token = static_cast<int*>(params.out) + row_index;
  write_valid(params, group, row_index, share.total != 0);
  if (share.total == 0) {
    if (group.is_first_thread()) *token = 0;
    return;
  }
  const uint64_t point = draw_point(row_words(params, row_index, 0), share.total);
  find_drawn(row, group, share, point, weights, [&](int index, float) {
    if (group.lane() == 0) *token = index;
  });
}

}  // namespace flashinfer
