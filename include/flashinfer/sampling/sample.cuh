// SPDX-License-Identifier: Apache-2.0
// Draws one token a row.
#pragma once
#include <flashinfer/sampling/nucleus.cuh>

namespace flashinfer {

/** Draws from what top-k, of k from 1 up, and top-p keep. */
template <class RowType, class Group, RowInput kInput, class Params>
__device__ void draw_from_top_k(const RowType& row, Group& group, RowWeights<kInput>& weights, int row_index,
                                const Params& params, const RowPeak& peak, int k) {
  int* token = static_cast<int*>(params.out) + row_index;
  const Kept kept = apply_filters(row, group, weights, row_index, params, peak, k);
  write_valid(params, group, row_index, kept.total != 0);
  const uint64_t point = draw_point(row_words(params, row_index, 0), kept.total);
  if (kept.total == 0) {
    if (group.is_first_thread()) *token = 0;
  } else if (kept.listed) {
    group.draw(kept.candidates, kept.weight, point, token);
  } else {
    find_drawn(row, group, kept.share, point, weights, [&](int index, float) {
      if (group.lane() == 0) *token = index;
    });
  }
}

/**
 * One cluster a row of the output; `indices` says which row of x it reads. Top-k only where Config selects, and with it top-p
 * by a threshold.
 */
template <class Config, RowInput kInput, class Params>
__device__ __forceinline__ void sample(const Params& params) {
  GroupFor<Config> group;
  const int out_row = group.first_row();
  const int source = per_row<int>(params.indices, out_row, out_row);
  // A row that is not there is an empty one.
  const bool exists = source >= 0 && source < params.rows;
  const auto* x = static_cast<const typename Config::T*>(params.x) + (exists ? source * params.x_stride : 0);
  Row<Config, kInput> row(group, params.segment);
  if (params.stagger > 0) group.stagger(params.stagger, params.clusters_at_once);
  row.start(x, exists ? params.vocab : 0);
  const float top = row.load();
  const int k = Config::kSelects && exists ? top_k_of(params, out_row) : 0;
  const RowPeak peak = group.peak(ordered_key(top), k);
  const bool min_p = (params.filters & kMinP) != 0;
  RowWeights<kInput> weights(peak.max, per_row<float>(params.temperature, params.temperature_value, out_row),
                             min_p ? per_row<float>(params.min_p, params.min_p_value, out_row) : 0.0f);
  if constexpr (Config::kSelects) {
    if (k > 0) return draw_from_top_k(row, group, weights, out_row, params, peak, k);
  }
  if ((params.filters & kTopP) != 0) draw_from_nucleus(row, group, weights, out_row, params);
  else draw_from_all(row, group, weights, out_row, params);
}

}  // namespace flashinfer
