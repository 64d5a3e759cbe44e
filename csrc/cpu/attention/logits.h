// SPDX-License-Identifier: Apache-2.0
// From dot products to base-2 logits: scale, position bias, soft cap, masks. Compiled once an instruction set.
#pragma once
#include "cpu/attention/rows.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kInfinity = __builtin_inff();

/** softCap * tanh((s * smScale + bias) / softCap) * log2(e); without a cap (s * smScale + bias) * log2(e). */
struct LogitRule {
  bool alibi;
  bool softCap;
  /** A custom variant makes the logits. */
  bool custom;
  /** Without bias, cap and variant, one multiplication is all. */
  float plainScale;
  float smScale;
  float inverseCap;
  float capLog2e;

  FLASHINFER_INLINE explicit LogitRule(const AttentionParams& params)
      : alibi(params.posEncodingMode == PosEncodingMode::kAlibi),
        softCap(params.logitsSoftCap > 0.0f),
        custom(params.variant != nullptr && params.variant->transform_logits != nullptr),
        plainScale(params.smScale * kLog2e),
        smScale(params.smScale),
        inverseCap(softCap ? 1.0f / params.logitsSoftCap : 0.0f),
        capLog2e(params.logitsSoftCap * kLog2e) {}

  FLASHINFER_INLINE bool Plain() const { return !alibi && !softCap && !custom; }

  FLASHINFER_INLINE Vec Apply(Vec s, Vec bias) const {
    const Vec logit = Fma(s, Set1(smScale), bias);
    if (!softCap) return Mul(logit, Set1(kLog2e));
    return Mul(Set1(capLog2e), Tanh(Mul(logit, Set1(inverseCap))));
  }
};

/** -inf outside [begin, end). */
FLASHINFER_INLINE Vec KeepRange(Vec s, Vec index, Vec begin, Vec end) {
  s = Select(Less(index, begin), Set1(-kInfinity), s);
  return Select(Less(index, end), s, Set1(-kInfinity));
}

/** The lowest `count` bits, count <= 64. */
FLASHINFER_INLINE uint64_t LowBits(int count) { return count <= 0 ? 0 : ~uint64_t{0} >> (64 - count); }

/** Bits [bit, bit + count) of the packed mask, count <= 64; reads no byte beyond the last of them. */
inline uint64_t MaskBits(const uint8_t* mask, int64_t bit, int count) {
  const uint8_t* first = mask + bit / 8;
  const int shift = static_cast<int>(bit % 8);
  const int bytes = (shift + count + 7) / 8;
  uint64_t bits = 0;
  for (int b = 0; b < bytes && b < 8; ++b) bits |= static_cast<uint64_t>(first[b]) << (8 * b);
  bits >>= shift;
  if (bytes == 9) bits |= static_cast<uint64_t>(first[8]) << (64 - shift);
  return bits;
}

/**
 * Base-2 logits (without softmax: weights) of one row of a custom variant in place, for keys [begin, end) of the `count`
 * from keyBegin on that the custom mask lets through; the others have no weight. Returns whether a key has none.
 */
inline bool VariantLogits(const AttentionParams& params, int32_t kvHead, int64_t packedRow, int64_t keyBegin, int count,
                          int begin, int end, float* logits) {
  const VariantRow row = VariantRowOf(params, kvHead, packedRow);
  const uint64_t all = LowBits(count);
  uint64_t visible = LowBits(end) & ~LowBits(begin);
  if (params.maskMode == MaskMode::kCustom) {
    visible &= MaskBits(params.customMask, row.qo_idx * params.kvLen + keyBegin, count);
  }
  if (visible != 0) visible = params.variant->transform_logits(row, logits, keyBegin, count, visible);
  const bool softmax = params.UsesSoftmax();
  const float hidden = softmax ? -kInfinity : 0.0f;
  const float factor = softmax ? kLog2e : 1.0f;
  for (int n = 0; n < count; ++n) logits[n] = (visible >> n & 1) != 0 ? logits[n] * factor : hidden;
  return visible != all;
}

/** The running maximum as a number that may be subtracted: 0 while no key was seen. */
FLASHINFER_INLINE Vec FiniteMax(Vec max) { return Select(Less(Set1(-kInfinity), max), max, Zero()); }

}  // namespace flashinfer::cpu::FLASHINFER_ISA
