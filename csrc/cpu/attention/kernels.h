// SPDX-License-Identifier: Apache-2.0
// The table of one instruction set's kernels; included by attention_kernels_<isa>.cc after FLASHINFER_ISA is defined.
#pragma once
#include "cpu/attention/few_rows.h"
#include "cpu/attention/panel.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

inline size_t ScratchBytes(const AttentionParams& params, const AttentionTile& tile) {
  Arena arena(nullptr);
  if (tile.rowCount <= kMaxFewRows) {
    FewRowsScratch(params, tile, arena);
  } else {
    PanelScratch(params, tile.rowCount, arena);
  }
  return arena.Used();
}

inline void RunTile(const AttentionParams& params, const AttentionTile& tile, const PartialState* partial,
                    void* block) {
  Arena arena(block);
  if (tile.rowCount <= kMaxFewRows) {
    RunFewRows(params, tile, partial, FewRowsScratch(params, tile, arena));
  } else {
    PanelScratch scratch(params, tile.rowCount, arena);
    RunPanels(params, tile, partial, scratch);
  }
}

constexpr AttentionKernels kAttentionKernels = {kPanelsPerTile * kPanelRows, ScratchBytes, RunTile, MergeTile};

}  // namespace flashinfer::cpu::FLASHINFER_ISA
