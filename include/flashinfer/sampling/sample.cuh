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
  row.scan([&](int index, const float (&values)[4]) {
    uint64_t inclusive = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) inclusive += weigh(values[k]);
    const uint64_t own = inclusive;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const uint64_t left = __shfl_up_sync(0xffffffffu, static_cast<unsigned long long>(inclusive), offset);
      if (group.lane() >= offset) inclusive += left;
    }
    const unsigned reached = __ballot_sync(0xffffffffu, before + inclusive > point);
    if (reached == 0) {
      before += __shfl_sync(0xffffffffu, static_cast<unsigned long long>(inclusive), 31);
      return true;
    }
    if (group.lane() == __ffs(reached) - 1) {
      uint64_t sum = before + inclusive - own;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const uint64_t next = sum + weigh(values[k]);
        if (sum <= point && next > point) *token = index + k;
        sum = next;
      }
    }
    return false;
  });
}

template <class Params>
__device__ Philox4 row_words(const Params& params, int row, uint32_t draw) {
  const uint64_t seed = per_row<uint64_t>(params.seed, params.seed_value, params.seed_per_row ? row : 0);
  const uint64_t offset = per_row<uint64_t>(params.offset, params.offset_value, params.offset_per_row ? row : 0);
  return draw_words(seed, offset, params.seed_per_row ? 0 : row, draw);
}

/** One cluster a row of the output; `indices` says which row of x it reads. */
template <class Config, RowInput kInput, class Params>
__device__ __forceinline__ void sample(const Params& params) {
  RowGroup<Config::kThreads> group;
  const int out_row = static_cast<int>(blockIdx.x) / group.size();
  int* token = static_cast<int*>(params.out) + out_row;
  const int source = per_row<int>(params.indices, out_row, out_row);
  // A row that is not there is an empty one.
  const bool exists = source >= 0 && source < params.rows;
  const auto* x = static_cast<const typename Config::T*>(params.x) + (exists ? source * params.x_stride : 0);
  Row<Config, kInput> row(group, x, exists ? params.vocab : 0, params.segment);
  const float top = row.load();
  group.ready();
  const uint32_t max_key = group.maximum(ordered_key(top));
  const bool min_p = (params.filters & kMinP) != 0;
  RowWeights<kInput> weights(max_key, per_row<float>(params.temperature, params.temperature_value, out_row),
                             min_p ? per_row<float>(params.min_p, params.min_p_value, out_row) : 0.0f);
  const WarpShare share = apply_filters(row, group, weights, out_row, params);
  if (share.total == 0) {
    if (group.is_first_thread()) *token = 0;
  } else {
    const uint64_t point = draw_point(row_words(params, out_row, 0), share.total);
    write_drawn_token(row, group, share, point, weights, token);
  }
  group.finish();
}

}  // namespace flashinfer
