// SPDX-License-Identifier: Apache-2.0
// Draws one token a row by inverting the sum of the weights that the filters leave: no rejection, no sort, one random
// number a row. Rows without weight give token 0.
#pragma once
#include <flashinfer/sampling/filter.cuh>

namespace flashinfer {

/** The first index whose inclusive prefix sum is above `point`; the warp whose share holds it writes it. */
template <class RowType, class Group, class Weigh>
__device__ void write_drawn_token(const RowType& row, const Group& group, const WarpShare& share, uint64_t point,
                                  const Weigh& weigh, int* token) {
  if (point < share.before || point - share.before >= share.own) return;
  uint64_t before = share.before;
  float reached[4];
  int first = 0;
  row.scan([&](int index, const float (&values)[4]) {
    uint64_t sum = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      reached[k] = values[k];
      sum += weigh(values[k]);
    }
    first = index;
    const uint64_t all = Group::warp_sum(sum);
    if (before + all > point) return false;
    before += all;
    return true;
  });
  uint64_t own = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) own += weigh(reached[k]);
  uint64_t end = own;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const uint64_t left = __shfl_up_sync(0xffffffffu, static_cast<unsigned long long>(end), offset);
    if (group.lane() >= offset) end += left;
  }
  uint64_t sum = before + end - own;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const uint64_t next = sum + weigh(reached[k]);
    if (sum <= point && next > point) *token = first + k;
    sum = next;
  }
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

/** One cluster a row of the output; `indices` says which row of x it reads. Top-k and top-p only where Config selects. */
template <class Config, RowInput kInput, class Params>
__device__ __forceinline__ void sample(const Params& params) {
  GroupFor<Config> group;
  const int out_row = group.first_row();
  const int source = per_row<int>(params.indices, out_row, out_row);
  // A row that is not there is an empty one.
  const bool exists = source >= 0 && source < params.rows;
  const auto* x = static_cast<const typename Config::T*>(params.x) + (exists ? source * params.x_stride : 0);
  Row<Config, kInput> row(group, params.segment);
  if constexpr (Config::kLoops) group.stagger(params.stagger, params.clusters_at_once);
  row.start(x, exists ? params.vocab : 0);
  const float top = row.load();
  const int k = Config::kSelects && exists ? top_k_of(params, out_row) : 0;
  const RowPeak peak = group.peak(ordered_key(top), k, row.sum());
  const bool min_p = (params.filters & kMinP) != 0;
  RowWeights<kInput> weights(peak.max, per_row<float>(params.temperature, params.temperature_value, out_row),
                             min_p ? per_row<float>(params.min_p, params.min_p_value, out_row) : 0.0f);
  int* token = static_cast<int*>(params.out) + out_row;
  const auto draw = [&](const WarpShare& share) {
    write_valid(params, group, out_row, share.total != 0);
    if (share.total == 0) {
      if (group.is_first_thread()) *token = 0;
    } else {
      write_drawn_token(row, group, share, draw_point(row_words(params, out_row, 0), share.total), weights, token);
    }
  };
  if constexpr (Config::kSelects) {
    const Kept kept = apply_filters(row, group, weights, out_row, params, peak, k);
    if (kept.listed && kept.total > 0) {
      write_valid(params, group, out_row, true);
      const uint64_t point = draw_point(row_words(params, out_row, 0), kept.total);
      group.draw(kept.candidates, kept.weight, point, token);
    } else {
      draw(kept.share);
    }
  } else {
    draw(total_weight(row, group, weights));
  }
}

}  // namespace flashinfer
