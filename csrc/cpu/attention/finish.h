// SPDX-License-Identifier: Apache-2.0
// From softmax states to outputs: normalisation, lse, merging of split keys. Compiled once an instruction set.
#pragma once
#include <math.h>

#include "cpu/attention/logits.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

constexpr int kMaxHeadDim = 512;

template <class T>
FLASHINFER_INLINE void StoreScaled(T* dst, const float* src, int count, Vec scale) {
  int d = 0;
  for (; d + kLanes <= count; d += kLanes) Store(dst + d, Mul(Load(src + d), scale));
  if (kLanes > 8 && d < count) StoreHead(dst + d, Mul(LoadHead(src + d), scale));
}

template <class T>
FLASHINFER_INLINE void StoreZeros(T* dst, int count) {
  for (int d = 0; d < count; ++d) dst[d] = from_float<T>(0.0f);
}

/** 2^x of one number, with the vectors' polynomial so that every path gives the same value. */
FLASHINFER_INLINE float Exp2Scalar(float x) {
  float lanes[kLanes];
  Store(lanes, Exp2(Set1(x)));
  return lanes[0];
}

template <class T>
FLASHINFER_INLINE void StoreRow(void* dst, const float* src, int count, float factor) {
  // No key seen: 0, whatever src holds.
  if (factor == 0.0f) return StoreZeros(static_cast<T*>(dst), count);
  StoreScaled(static_cast<T*>(dst), src, count, Set1(factor));
}

/** The sum of a row's weights, each 2^(logit - max), and the maximum they refer to. */
struct RowSum {
  float max;
  float sum;
};

/** With the head's sink, which is one more logit of the row without a value. */
FLASHINFER_INLINE RowSum JoinSink(const AttentionParams& params, int64_t head, RowSum keys) {
  if (params.sinks == nullptr) return keys;
  const float sink = params.sinks[head] * kLog2e;
  // Written so that a NaN on either side stays.
  const float max = keys.sum == 0.0f || sink > keys.max ? sink : keys.max;
  if (max == -kInfinity) return keys;
  const float moved = keys.sum == 0.0f ? 0.0f : keys.sum * Exp2Scalar(keys.max - max);
  return {max, moved + Exp2Scalar(sink - max)};
}

/** Writes one packed row's output and lse; `out` is not normalised, `max` in base 2. */
inline void FinishRow(const AttentionParams& params, int32_t kvHead, int64_t row, const float* out, float max,
                      float sum) {
  const int64_t i = row / params.groupSize;
  const int64_t head = static_cast<int64_t>(kvHead) * params.groupSize + row % params.groupSize;
  const int64_t offset = i * params.outStrideN + head * params.outStrideH;
  const RowSum total = JoinSink(params, head, {max, sum});
  // A NaN sum is no row without keys.
  const float share = params.sinks == nullptr ? 1.0f : Exp2Scalar(max - total.max);
  float factor = sum == 0.0f ? 0.0f : share * params.vScale / total.sum;
  if (params.vScales != nullptr) factor *= params.vScales[kvHead];
  const bool transforms = params.variant != nullptr && params.variant->transform_output != nullptr;
  const bool wantsLse = transforms || params.lse != nullptr;
  const float lse = !wantsLse ? 0.0f : total.sum == 0.0f ? -kInfinity : total.max + log2f(total.sum);
  alignas(64) float transformed[kMaxHeadDim];
  if (transforms) {
    // No key seen: 0, whatever out holds.
    for (int d = 0; d < params.headDimVo; ++d) transformed[d] = factor == 0.0f ? 0.0f : out[d] * factor;
    params.variant->transform_output(VariantRowOf(params, kvHead, row), transformed, params.headDimVo, lse);
    out = transformed;
    factor = 1.0f;
  }
  switch (params.outDtype) {
    case DType::kFloat16:
      StoreRow<half_t>(static_cast<half_t*>(params.out) + offset, out, params.headDimVo, factor);
      break;
    case DType::kBFloat16:
      StoreRow<bfloat16_t>(static_cast<bfloat16_t*>(params.out) + offset, out, params.headDimVo, factor);
      break;
    default:
      StoreRow<float>(static_cast<float*>(params.out) + offset, out, params.headDimVo, factor);
  }
  if (params.lse != nullptr) params.lse[i * params.numQoHeads + head] = lse * params.lseFactor;
}

/** FlashInfer's merge_state over consecutive parts. */
inline void MergeTile(const AttentionParams& params, const AttentionTile& tile, const PartialState* parts,
                      int numParts) {
  alignas(64) float merged[kMaxHeadDim];
  for (int r = 0; r < tile.headCount * tile.rowCount; ++r) {
    float max = -kInfinity;
    for (int p = 0; p < numParts; ++p) max = parts[p].max[r] > max ? parts[p].max[r] : max;
    const float shift = max == -kInfinity ? 0.0f : max;
    float sum = 0.0f;
    for (int d = 0; d < params.headDimVo; ++d) merged[d] = 0.0f;
    for (int p = 0; p < numParts; ++p) {
      if (parts[p].sum[r] == 0.0f) continue;
      const float weight = Exp2Scalar(parts[p].max[r] - shift);
      const float* out = parts[p].out + static_cast<int64_t>(r) * params.headDimVo;
      sum += weight * parts[p].sum[r];
      for (int d = 0; d < params.headDimVo; ++d) merged[d] += weight * out[d];
    }
    if (!params.UsesSoftmax()) sum = 1.0f;
    FinishRow(params, tile.kvHead + r / tile.rowCount, tile.rowBegin + r % tile.rowCount, merged, max, sum);
  }
}

/** The end of a tile: the state of row r of its head h goes to `partial` or is finished. */
FLASHINFER_INLINE void EmitRow(const AttentionParams& params, const AttentionTile& tile, const PartialState* partial,
                               int h, int r, const float* out, float max, float sum) {
  if (partial == nullptr) return FinishRow(params, tile.kvHead + h, tile.rowBegin + r, out, max, sum);
  const int64_t slot = static_cast<int64_t>(h) * tile.rowCount + r;
  float* dst = partial->out + slot * params.headDimVo;
  for (int d = 0; d < params.headDimVo; ++d) dst[d] = out[d];
  partial->max[slot] = max;
  partial->sum[slot] = sum;
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
