// SPDX-License-Identifier: Apache-2.0
// Draws one token a row.
#pragma once
#include <flashinfer/sampling/nucleus.cuh>

namespace flashinfer {

/** Draws from the few elements that the filters left. */
template <class Group, class Params>
__device__ void draw_listed(Group& group, const Kept& kept, int row_index, const Params& params) {
  int* token = static_cast<int*>(params.out) + row_index;
  write_valid(params, group, row_index, kept.total != 0);
  if (kept.total != 0) {
    const uint64_t point = draw_point(row_words(params, row_index, 0), kept.total);
    group.draw(kept.candidates, kept.weight, point, token);
  } else if (group.is_first_thread()) {
    *token = 0;
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
  bool weighed = false;
  WarpShare share = {};
  if constexpr (Config::kSelects) {
    if (k > 0) {
      const Kept kept = apply_filters(row, group, weights, out_row, params, peak, k);
      if (kept.listed) return draw_listed(group, kept, out_row, params);
      // Of probabilities a copy of its own: with draw_token() for all, whatever top-k leaves takes 7 % longer (H200).
      if constexpr (kInput == RowInput::kProbs) {
        return draw_weighed(row, group, kept.share, weights, out_row, params);
      }
      weighed = true;
      share = kept.share;
    }
  }
  draw_token(row, group, weights, out_row, params, weighed, share);
}

}  // namespace flashinfer
