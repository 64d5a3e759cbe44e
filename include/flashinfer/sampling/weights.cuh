// SPDX-License-Identifier: Apache-2.0
// What sampling means, for every device: the order of values, and weights in integers, whose sums do not depend on the
// order of additions. Devices that agree on the float weights draw the same tokens, however they split a row.
#pragma once
#include "flashinfer/random.cuh"
#ifdef __CUDACC__
#include "flashinfer/math.cuh"
#endif

#ifndef __CUDACC_RTC__
#include <cmath>
#endif

namespace flashinfer {

constexpr float kLargestFloat = 3.40282347e+38f;

/** Larger values have larger keys; -0 and 0 share one; NaN is below -infinity. */
FLASHINFER_HOST_DEVICE uint32_t ordered_key(float x) {
  const uint32_t bits = float_as_bits(detail::add_rn(x, 0.0f));  // -0 becomes 0
  const uint32_t key = bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0 : key;
}

/** The inverse of ordered_key; NaN for 0. */
FLASHINFER_HOST_DEVICE float value_of_key(uint32_t key) {
  return bits_as_float(key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}

/** What is of `key` or larger is not below it: the value of the key, and -infinity for keys below all but NaN's. */
FLASHINFER_HOST_DEVICE float lowest_value(uint32_t key) {
  return key < 0x00800000u ? -bits_as_float(0x7f800000u) : value_of_key(key);
}

/** The smallest value above a finite one. */
FLASHINFER_HOST_DEVICE float next_value(float x) { return value_of_key(ordered_key(x) + 1); }

/** How a value of a row is read. */
enum class RowInput {
  kRaw,
  /** NaN and negative values are 0; infinity is the largest float. */
  kProbs,
  /** NaN is -infinity; infinity is the largest float. */
  kLogits,
  /** As kRaw, but for what stands behind the end, which is -infinity. */
  kSoftmax,
};

template <RowInput kInput>
FLASHINFER_HOST_DEVICE float read_value(float x) {
  if (kInput == RowInput::kRaw || kInput == RowInput::kSoftmax) return x;
  const float low = kInput == RowInput::kProbs ? 0.0f : -bits_as_float(0x7f800000u);
#ifdef __CUDA_ARCH__
  return fminf(fmaxf(x, low), kLargestFloat);  // fmaxf of NaN is the other; -0 is below 0
#else
  const float bounded = x < kLargestFloat ? x : kLargestFloat;
  return x > low ? bounded : low;
#endif
}

/** What stands behind the end of a row: of no weight, and no larger than any value. */
template <RowInput kInput>
FLASHINFER_HOST_DEVICE float padding_value() {
  if (kInput == RowInput::kRaw) return bits_as_float(0x7fc00000u);
  return read_value<kInput>(-bits_as_float(0x7f800000u));
}

/**
 * Factor of (x - max) in the exponent of 2. Temperature 0, negative or NaN is the limit of small temperatures, in which
 * only the largest logits count; the lower bound keeps -infinity away from a product with 0.
 */
FLASHINFER_HOST_DEVICE float exponent_scale(float temperature) {
  const float scale = 1.4426950408889634f / temperature;
  if (!(temperature > 0.0f) || !(scale < kLargestFloat)) return kLargestFloat;
  return scale > 1e-30f ? scale : 1e-30f;
}

/** Weights are below 2^kWeightBits, so that 2^21 of them fit 64 bits. */
constexpr int kWeightBits = 42;
constexpr int kMaxVocabBits = 21;

/** The power of two that takes values up to `largest` below 2^kWeightBits; subnormal rows lose digits. */
FLASHINFER_HOST_DEVICE float weight_factor(float largest) {
  const int exponent = kWeightBits + 126 - static_cast<int>(float_as_bits(largest) >> 23);
  return bits_as_float(static_cast<uint32_t>((exponent < 127 ? exponent : 127) + 127) << 23);
}

/** Truncated: what is 2^-42 of the largest value or less weighs nothing. `value` is not negative, and not NaN. */
FLASHINFER_HOST_DEVICE uint64_t weight_of(float value, float factor) {
  return static_cast<uint64_t>(static_cast<int64_t>(detail::mul_rn(value, factor)));
}

/** Of a sum, to be held against powers of two: those of probabilities are close to 1, where rounding would decide. */
constexpr float kTopPMargin = 1.25f;

/** Bits that top-p leaves off a weight, so that the sum of a row fits 32 bits with one to spare for rounding up. */
FLASHINFER_HOST_DEVICE int top_p_shift(uint64_t total) {
  const uint64_t padded = total + total / 4;  // kTopPMargin
  int shift = 0;
  while ((padded >> shift) >> 31 != 0) ++shift;
  return shift;
}

/** The weight rounded to a unit of 2^shift: errors are below 2^-30 of the total, and do not add up in one direction. */
FLASHINFER_HOST_DEVICE uint32_t top_p_weight(uint64_t weight, int shift) {
  return static_cast<uint32_t>((weight + ((uint64_t{1} << shift) >> 1)) >> shift);
}

/** The weight that the nucleus must reach, at least one unit. */
FLASHINFER_HOST_DEVICE uint32_t top_p_target(float top_p, uint64_t total, int shift) {
  // Exact product of a float and 31 bits, for the shifted total is one.
  const double goal = static_cast<double>(top_p) * static_cast<double>(static_cast<uint32_t>(total >> shift));
  const uint32_t floor = goal > 1.0 ? static_cast<uint32_t>(goal) : 1;
  return static_cast<double>(floor) < goal ? floor + 1 : floor;
}

/** Upper half of the 128-bit product. */
FLASHINFER_HOST_DEVICE uint64_t mul_high(uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH__
  return __umul64hi(a, b);
#else
  const uint64_t a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
  const uint64_t middle = a1 * b0 + ((a0 * b0) >> 32);
  const uint64_t carry = a0 * b1 + (middle & 0xffffffffu);
  return a1 * b1 + (middle >> 32) + (carry >> 32);
#endif
}

/** Bits of Params::filters. Filters are thresholds: all elements that equal the last one kept are kept too. */
enum FilterBits : int { kTopK = 1, kTopP = 2, kMinP = 4, kJoint = 8 };

/** Devices round it differently: tokens of logits that are drawn near a boundary may differ between them. */
FLASHINFER_HOST_DEVICE float weight_exp2(float x) {
#ifdef __CUDA_ARCH__
  return exp2_approx(x);
#else
  return exp2f(x);
#endif
}

/** Float weights of a row: the probabilities themselves, or 2^((x - max) * scale) of logits. */
template <RowInput kInput>
struct RowWeights {
  float max = 0.0f;
  float scale = 0.0f;
  /** Of logits: what weighs less weighs nothing. Probabilities are compared themselves. */
  float floor = 0.0f;
  float factor = 0.0f;
  /** What is below weighs nothing: top-k, top-p, min-p of probabilities. */
  float lowest = -bits_as_float(0x7f800000u);

  FLASHINFER_HOST_DEVICE RowWeights(uint32_t max_key, float temperature, float min_p) {
    max = value_of_key(max_key);
    float largest = max;
    if (kInput != RowInput::kProbs) {
      if (!(max > -kLargestFloat)) max = 0.0f;  // no finite logit: all weigh nothing
      scale = exponent_scale(temperature);
      largest = 1.0f;
    }
    if (min_p > 0.0f) (kInput == RowInput::kProbs ? lowest : floor) = (min_p < 1.0f ? min_p : 1.0f) * largest;
    factor = weight_factor(largest);
  }

  FLASHINFER_HOST_DEVICE float value(float x) const {
    if (kInput == RowInput::kProbs) return x;
    const float value = weight_exp2((x - max) * scale);
    return value >= floor ? value : 0.0f;
  }

  FLASHINFER_HOST_DEVICE uint64_t operator()(float x) const { return weight_of(x >= lowest ? value(x) : 0.0f, factor); }
};

/** Reciprocal of the sum of float weights; 0 for no weight. */
FLASHINFER_HOST_DEVICE float reciprocal_sum(uint64_t total, float factor) {
  return total == 0 ? 0.0f : static_cast<float>(static_cast<double>(factor) / static_cast<double>(total));
}

/** Random words of one draw. `row` is 0 where each row has a seed of its own; `draw` counts draws of one row. */
FLASHINFER_HOST_DEVICE Philox4 draw_words(uint64_t seed, uint64_t offset, uint32_t row, uint32_t draw = 0) {
  const uint32_t stream = static_cast<uint32_t>(RandomStream::kSampling) | (draw << 8);
  return philox4x32_10({static_cast<uint32_t>(offset), static_cast<uint32_t>(offset >> 32), stream, row}, seed);
}

/** Speculative sampling takes a drafted token with probability min(1, target / draft); never one of target 0. */
FLASHINFER_HOST_DEVICE bool accepts_draft(float target, float draft, Philox4 words) {
  return target > detail::mul_rn(uniform_from_bits<24>(words.x), draft);
}

/** A uniform point in [0, total): the token drawn is the first whose inclusive prefix sum of weights is above it. */
FLASHINFER_HOST_DEVICE uint64_t draw_point(Philox4 words, uint64_t total) {
  return mul_high((static_cast<uint64_t>(words.y) << 32) | words.x, total);
}

/** Another one, of the words that are left. */
FLASHINFER_HOST_DEVICE uint64_t second_point(Philox4 words, uint64_t total) {
  return mul_high((static_cast<uint64_t>(words.w) << 32) | words.z, total);
}

}  // namespace flashinfer
