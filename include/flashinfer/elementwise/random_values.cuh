// SPDX-License-Identifier: Apache-2.0
// Elements of a random tensor: four a Philox counter, each a function of (seed, index) only, on every device.
#pragma once

#include "flashinfer/random.cuh"

namespace flashinfer {

struct RandomGroup {
  float values[4];
};

namespace detail {

/** Significant bits of a uniform value: what T represents exactly everywhere in [0, 1). */
template <class T>
struct UniformDigits;
template <>
struct UniformDigits<float> {
  static constexpr int value = 24;
};
template <>
struct UniformDigits<half_t> {
  static constexpr int value = 11;
};
template <>
struct UniformDigits<bfloat16_t> {
  static constexpr int value = 8;
};
template <>
struct UniformDigits<fp8_e4m3_t> {
  static constexpr int value = 4;
};
template <>
struct UniformDigits<fp8_e5m2_t> {
  static constexpr int value = 3;
};

}  // namespace detail

/** Uniform in [0, 1), on the grid of T's precision near 1. */
template <class T>
struct UniformDistribution {
  static FLASHINFER_HOST_DEVICE RandomGroup Group(uint64_t seed, uint64_t group) {
    constexpr int kDigits = detail::UniformDigits<T>::value;
    const Philox4 words = random_words(RandomStream::kUniform, seed, group);
    return {{uniform_from_bits<kDigits>(words.x), uniform_from_bits<kDigits>(words.y),
             uniform_from_bits<kDigits>(words.z), uniform_from_bits<kDigits>(words.w)}};
  }
};

/** Standard normal in float32; the caller rounds to T. */
template <class T>
struct NormalDistribution {
  static FLASHINFER_HOST_DEVICE RandomGroup Group(uint64_t seed, uint64_t group) {
    const Philox4 words = random_words(RandomStream::kNormal, seed, group);
    RandomGroup result;
    normals_from_bits(words.x, words.y, &result.values[0], &result.values[1]);
    normals_from_bits(words.z, words.w, &result.values[2], &result.values[3]);
    return result;
  }
};

}  // namespace flashinfer
