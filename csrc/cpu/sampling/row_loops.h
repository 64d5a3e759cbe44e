// SPDX-License-Identifier: Apache-2.0
// Loops over a part of a row that the compiler vectorises, for RunVersion. Values are those of read_value; their order is
// that of ordered_key.
#pragma once
#include <cstdint>
#include <cstring>

#include "flashinfer/sampling/weights.cuh"

namespace flashinfer::cpu {

/** read_value of logits by masks: compilers turn choices into branches here, which are no vectors. */
FLASHINFER_HOST_DEVICE float read_logit(float x) {
  const uint32_t bits = float_as_bits(x);
  const uint32_t bounded = bits - (bits == 0x7f800000u ? 1 : 0);  // the largest float is the one before infinity
  const uint32_t nan = 0u - static_cast<uint32_t>((bits & 0x7fffffffu) > 0x7f800000u);
  return bits_as_float((bounded & ~nan) | (0xff800000u & nan));
}

/** As ordered_key, by masks. */
FLASHINFER_HOST_DEVICE uint32_t key_of(float x) {
  const uint32_t bits = float_as_bits(detail::add_rn(x, 0.0f));
  const uint32_t nan = 0u - static_cast<uint32_t>((bits & 0x7fffffffu) > 0x7f800000u);
  return (bits ^ ((0u - (bits >> 31)) | 0x80000000u)) & ~nan;
}

/** Values, their largest key and their smallest. */
template <class T, RowInput kInput>
struct ReadLoop {
  static FLASHINFER_HOST_DEVICE void Run(const T* x, int64_t count, float* values, uint32_t* largest,
                                         uint32_t* smallest) {
    uint32_t top = 0, bottom = 0xffffffffu;
    for (int64_t i = 0; i < count; ++i) {
      const float value = to_float(x[i]);
      values[i] = kInput == RowInput::kLogits ? read_logit(value) : read_value<kInput>(value);
      const uint32_t key = key_of(values[i]);
      top = key > top ? key : top;
      bottom = key < bottom ? key : bottom;
    }
    *largest = top;
    *smallest = bottom;
  }
};

/** What `x` has more than `less`, of probabilities; their largest key and their smallest. */
template <class T>
struct DifferenceLoop {
  static FLASHINFER_HOST_DEVICE void Run(const T* x, const T* less, int64_t count, float* values, uint32_t* largest,
                                         uint32_t* smallest) {
    uint32_t top = 0, bottom = 0xffffffffu;
    for (int64_t i = 0; i < count; ++i) {
      values[i] = read_value<RowInput::kProbs>(to_float(x[i]) - to_float(less[i]));
      const uint32_t key = key_of(values[i]);
      top = key > top ? key : top;
      bottom = key < bottom ? key : bottom;
    }
    *largest = top;
    *smallest = bottom;
  }
};

/**
 * 2^x for x up to 0, within 2e-7 of it; 0 below -126. Taylor's series of 2^f for f of at most a half: the same bits of
 * every instruction set.
 */
FLASHINFER_HOST_DEVICE float exp2_of(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: the sum's last bits are the nearest integer
  const float bounded = x > -126.0f ? x : -126.0f;
  const float shifted = bounded + kRound;
  const float f = bounded - (shifted - kRound);
  float p = 1.5252734e-5f;
  p = p * f + 1.5403530e-4f;
  p = p * f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  const float result = bits_as_float(float_as_bits(p) + (float_as_bits(shifted) << 23));
  return x >= -126.0f ? result : 0.0f;
}

/** Float weights of logits, those below `floor` 0. */
struct WeighLoop {
  static FLASHINFER_HOST_DEVICE void Run(const float* values, int64_t count, float max, float scale, float floor,
                                         float* weights) {
    for (int64_t i = 0; i < count; ++i) {
      const float weight = exp2_of((values[i] - max) * scale);
      weights[i] = weight >= floor ? weight : 0.0f;
    }
  }
};

/** The weight of a value from `low` up, else 0; without a branch, which the values of a row would mislead. */
FLASHINFER_HOST_DEVICE float kept_weight(float value, float weight, float low) {
  return bits_as_float(float_as_bits(weight) & (value >= low ? 0xffffffffu : 0u));
}

/**
 * As weight_of, by additions that compilers turn into vectors. The product has 24 significant bits: below 2^24, where it may
 * have a fraction, half and less than its last bit below it round to the integer below; above it is even, and so a tie
 * rounds to it.
 */
FLASHINFER_HOST_DEVICE uint64_t integer_weight(float weight, float factor) {
  constexpr double kHalf = 0.5 - 1.0 / (1 << 25);
  constexpr double kInteger = 6755399441055744.0;  // 1.5 * 2^52: the last bits of the sum are the nearest integer
  const double sum = (static_cast<double>(detail::mul_rn(weight, factor)) - kHalf) + kInteger;
  uint64_t bits;
  memcpy(&bits, &sum, sizeof(bits));
  return bits - 0x4338000000000000ull;
}

/** The sum of the weights of values from `low` up. */
struct SumLoop {
  static FLASHINFER_HOST_DEVICE void Run(const float* values, const float* weights, int64_t count, float low,
                                         float factor, uint64_t* sum) {
    uint64_t total = 0;
    for (int64_t i = 0; i < count; ++i) total += integer_weight(kept_weight(values[i], weights[i], low), factor);
    *sum = total;
  }
};

/** The sum of what top-p counts of the weights of values from `low` up. */
struct UnitsLoop {
  static FLASHINFER_HOST_DEVICE void Run(const float* values, const float* weights, int64_t count, float low,
                                         float factor, int shift, uint64_t* sum) {
    uint64_t total = 0;
    for (int64_t i = 0; i < count; ++i) {
      total += top_p_weight(integer_weight(kept_weight(values[i], weights[i], low), factor), shift);
    }
    *sum = total;
  }
};

/** Keys, and what top-p counts of their weights. */
struct TopPLoop {
  static FLASHINFER_HOST_DEVICE void Run(const float* values, const float* weights, int64_t count, float low,
                                         float factor, int shift, uint32_t* keys, uint32_t* counted) {
    for (int64_t i = 0; i < count; ++i) {
      keys[i] = key_of(values[i]);
      counted[i] = top_p_weight(integer_weight(kept_weight(values[i], weights[i], low), factor), shift);
    }
  }
};

/** The keys of `least` or more, one behind the other; there is room for all. */
struct CollectLoop {
  static FLASHINFER_HOST_DEVICE void Run(const float* values, int64_t count, uint32_t least, uint32_t* found,
                                         int64_t* number) {
    constexpr int64_t kBlock = 64;
    int64_t n = 0;
    for (int64_t begin = 0; begin < count; begin += kBlock) {
      const int64_t present = count - begin < kBlock ? count - begin : kBlock;
      uint32_t keys[kBlock], largest = 0;
      for (int64_t i = 0; i < present; ++i) {
        keys[i] = key_of(values[begin + i]);
        largest = keys[i] > largest ? keys[i] : largest;
      }
      if (largest < least) continue;
      for (int64_t i = 0; i < present; ++i) {
        found[n] = keys[i];
        n += keys[i] >= least ? 1 : 0;
      }
    }
    *number = n;
  }
};

struct ScaleLoop {
  static FLASHINFER_HOST_DEVICE void Run(float* values, int64_t count, float factor) {
    for (int64_t i = 0; i < count; ++i) values[i] *= factor;
  }
};

/** Values from `low` up times `factor`, else 0. */
template <class T>
struct RenormLoop {
  static FLASHINFER_HOST_DEVICE void Run(const float* values, int64_t count, float low, float factor, T* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = from_float<T>(values[i] >= low ? values[i] * factor : 0.0f);
  }
};

/** Values of keys from `least` up times `scale`, else -infinity. */
template <class T>
struct MaskLoop {
  static FLASHINFER_HOST_DEVICE void Run(const float* values, int64_t count, uint32_t least, float scale, T* out) {
    const float masked = -bits_as_float(0x7f800000u);
    for (int64_t i = 0; i < count; ++i) {
      out[i] = from_float<T>(key_of(values[i]) >= least ? values[i] * scale : masked);
    }
  }
};

}  // namespace flashinfer::cpu
