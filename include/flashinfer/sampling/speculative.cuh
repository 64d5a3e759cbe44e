// SPDX-License-Identifier: Apache-2.0
// Verifies a chain of drafted tokens (Leviathan et al., Chen et al. 2023): a token stands with probability
// min(1, target / draft), the first that does not is drawn anew from what target has more than draft.
#pragma once
#include <flashinfer/sampling/draw.cuh>

namespace flashinfer {

/** One cluster a request; every thread judges all drafted tokens, which are few. */
template <class Config, class Params>
__device__ __forceinline__ void chain_speculative(const Params& params) {
  using T = typename Config::T;
  GroupFor<Config> group;
  const int request = group.first_row(), drafted = params.drafted;
  const int64_t vocab = params.vocab;
  const T* draft = static_cast<const T*>(params.draft) + request * drafted * vocab;
  const T* target = static_cast<const T*>(params.target) + request * (drafted + int64_t{1}) * vocab;
  const int* ids = static_cast<const int*>(params.ids) + static_cast<int64_t>(request) * drafted;
  int accepted = 0, emitted = drafted;
  for (int i = 0; i < drafted; ++i) {
    const int id = ids[i];
    const bool stands = id >= 0 && id < params.vocab &&
                        accepts_draft(to_float(target[i * vocab + id]), to_float(draft[i * vocab + id]),
                                      row_words(params, request, i + 1));
    accepted += stands ? 1 : 0;
    if (!stands && emitted == drafted) emitted = i;
  }
  Row<Config, RowInput::kProbs> row(group, params.segment);
  if (emitted < drafted) row.subtract(draft + emitted * vocab);
  row.start(target + emitted * vocab, params.vocab);
  const float top = row.load();
  const RowWeights<RowInput::kProbs> weights(group.peak(ordered_key(top), 0).max, 1.0f, 0.0f);
  const WarpShare share = total_weight(row, group, weights);
  int* out = static_cast<int*>(params.out) + request * (drafted + int64_t{1});
  if (group.is_first_thread()) {
    for (int i = 0; i <= drafted; ++i) {
      if (i != emitted) out[i] = i < emitted ? ids[i] : -1;
    }
    if (share.total == 0) out[emitted] = 0;
    static_cast<int*>(params.accepted)[request] += accepted;
    static_cast<int*>(params.emitted)[request] += emitted;
  }
  if (share.total != 0) {
    const uint64_t point = draw_point(row_words(params, request, 0), share.total);
    find_drawn(row, group, share, point, weights, [&](int index, float) {
      if (group.lane() == 0) out[emitted] = index;
    });
  }
}

}  // namespace flashinfer
