// SPDX-License-Identifier: Apache-2.0
// Rows as the hooks of a custom variant are told of them. Compiled once an instruction set.
#pragma once
#include "cpu/attention/params.h"
#include "cpu/isa/vec.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

/** Packed row (i * groupSize + g) of a kv head. */
FLASHINFER_INLINE VariantRow VariantRowOf(const AttentionParams& params, int32_t kvHead, int64_t packedRow) {
  const VariantRequest request = {params.batchIdx,
                                  static_cast<int>(params.qoLen),
                                  static_cast<int>(params.kvLen),
                                  params.numQoHeads,
                                  params.numKvHeads,
                                  static_cast<int>(params.windowLeft),
                                  params.smScale};
  return {request, static_cast<int>(packedRow / params.groupSize),
          kvHead * params.groupSize + static_cast<int>(packedRow % params.groupSize), kvHead, params.variantFields};
}

template <class T>
FLASHINFER_INLINE void RoundTo(float* row, int count) {
  for (int d = 0; d < count; ++d) row[d] = to_float(from_float<T>(row[d]));
}

/** Rounds a transformed query to its dtype, as the GPU's tiles do. */
inline void RoundRow(DType dtype, float* row, int count) {
  if (dtype == DType::kFloat16) RoundTo<half_t>(row, count);
  if (dtype == DType::kBFloat16) RoundTo<bfloat16_t>(row, count);
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
