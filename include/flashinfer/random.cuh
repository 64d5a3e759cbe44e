// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers with the same bits on every device: Philox4x32-10 (Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011), uniforms and Box-Muller normals from integers and single roundings only.
// Host code that may use fused multiply-add must be compiled with -ffp-contract=off.
#pragma once

#include "flashinfer/dtype.cuh"

#ifndef __CUDACC_RTC__
#include <cmath>
#endif

namespace flashinfer {

/** Third word of the counter: keeps the streams of one seed apart. */
enum class RandomStream : uint32_t { kUniform = 0, kNormal = 1, kSampling = 2 };

struct Philox4 {
  uint32_t x, y, z, w;
};

namespace detail {

FLASHINFER_HOST_DEVICE uint32_t mul_high(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  return __umulhi(a, b);
#else
  return static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32);
#endif
}

// One rounding each, never contracted into a fused operation.
FLASHINFER_HOST_DEVICE float mul_rn(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

FLASHINFER_HOST_DEVICE float add_rn(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

FLASHINFER_HOST_DEVICE float sqrt_rn(float a) {
#ifdef __CUDA_ARCH__
  return __fsqrt_rn(a);
#else
  return std::sqrt(a);
#endif
}

}  // namespace detail

/** Ten rounds on `counter` under the key `seed`. */
FLASHINFER_HOST_DEVICE Philox4 philox4x32_10(Philox4 counter, uint64_t seed) {
  uint32_t key0 = static_cast<uint32_t>(seed);
  uint32_t key1 = static_cast<uint32_t>(seed >> 32);
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int round = 0; round < 10; round++) {
    const uint32_t high0 = detail::mul_high(0xd2511f53u, counter.x);
    const uint32_t high1 = detail::mul_high(0xcd9e8d57u, counter.z);
    const uint32_t low0 = 0xd2511f53u * counter.x;
    const uint32_t low1 = 0xcd9e8d57u * counter.z;
    counter = {high1 ^ counter.y ^ key0, low1, high0 ^ counter.w ^ key1, low0};
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return counter;
}

/** The four words of elements 4 * group .. 4 * group + 3 of a stream. */
FLASHINFER_HOST_DEVICE Philox4 random_words(RandomStream stream, uint64_t seed, uint64_t group) {
  return philox4x32_10(
      {static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), static_cast<uint32_t>(stream), 0}, seed);
}

/** Uniform multiple of 2^-kDigits in [0, 1); exact in a type with kDigits significant bits, so it never rounds to 1. */
template <int kDigits>
FLASHINFER_HOST_DEVICE float uniform_from_bits(uint32_t bits) {
  static_assert(kDigits <= 24, "a float has 24 significant bits");
  return detail::mul_rn(static_cast<float>(static_cast<int32_t>(bits >> (32 - kDigits))),
                        1.0f / static_cast<float>(1 << kDigits));
}

namespace detail {

/** One rounding, in two exact halves: not every processor converts unsigned integers in vectors. `plus`: at most 1. */
FLASHINFER_HOST_DEVICE float float_from_word(uint32_t word, uint32_t plus) {
  const float high = mul_rn(static_cast<float>(static_cast<int32_t>(word >> 16)), 65536.0f);
  return add_rn(high, static_cast<float>(static_cast<int32_t>((word & 0xffffu) + plus)));
}

/**
 * -2 ln(u), u = (bits + 1) / 2^32, from 0 to 44.4: accurate at both ends. Small u, which make the tails of the normals,
 * keep all 32 bits; near 1, what counts is 1 - u, which is taken from the integer.
 * log1p's polynomial: own minimax fit on [sqrt(1/2) - 1, sqrt(2) - 1], relative error 6e-9.
 */
FLASHINFER_HOST_DEVICE float minus_two_log(uint32_t bits) {
  const uint32_t t_bits = float_as_bits(float_from_word(bits, 1));
  const uint32_t exponent = (t_bits - 0x3f3504f3u) >> 23;  // leaves a mantissa in [sqrt(1/2), sqrt(2))
  const float below_one = mul_rn(float_from_word(~bits, 0), -2.3283064365386963e-10f);  // u - 1
  const float mantissa = add_rn(bits_as_float(t_bits - (exponent << 23)), -1.0f);
  const float f = exponent == 32 ? below_one : mantissa;
  const float e = static_cast<float>(static_cast<int32_t>(exponent) - 32);
  float p = -7.859606295824051e-2f;
  p = add_rn(mul_rn(p, f), 1.2881644070148468e-1f);
  p = add_rn(mul_rn(p, f), -1.3128754496574402e-1f);
  p = add_rn(mul_rn(p, f), 1.4181192219257355e-1f);
  p = add_rn(mul_rn(p, f), -1.6624553501605988e-1f);
  p = add_rn(mul_rn(p, f), 2.000228613615036e-1f);
  p = add_rn(mul_rn(p, f), -2.5000810623168945e-1f);
  p = add_rn(mul_rn(p, f), 3.3333316445350647e-1f);
  const float f2 = mul_rn(f, f);
  // ln 2 in two parts; the first has few bits, so that e times it is exact.
  float log = add_rn(mul_rn(mul_rn(p, f), f2), mul_rn(e, 1.428606765330187e-6f));
  log = add_rn(log, mul_rn(f2, -0.5f));
  log = add_rn(log, f);
  log = add_rn(log, mul_rn(e, 6.93145751953125e-1f));
  return mul_rn(log, -2.0f);
}

/**
 * sin and cos of 2 pi bits / 2^32. The reduction to [-pi/4, pi/4] is exact, in integers.
 * Own minimax fits; relative error of sin 4e-9, absolute error of cos 1e-10.
 */
FLASHINFER_HOST_DEVICE void sincos_turn(uint32_t bits, float* sine, float* cosine) {
  const uint32_t quadrant = (bits + 0x20000000u) >> 30;
  const int32_t rest = static_cast<int32_t>(bits - (quadrant << 30));
  const float x = mul_rn(static_cast<float>(rest), 1.4629180792671596e-9f);  // 2 pi / 2^32
  const float x2 = mul_rn(x, x);
  float s = -1.951729936990887e-4f;
  s = add_rn(mul_rn(s, x2), 8.332177996635437e-3f);
  s = add_rn(mul_rn(s, x2), -1.6666655242443085e-1f);
  s = add_rn(mul_rn(mul_rn(s, x2), x), x);
  float c = 2.4438451873720624e-5f;
  c = add_rn(mul_rn(c, x2), -1.388736767694354e-3f);
  c = add_rn(mul_rn(c, x2), 4.166664555668831e-2f);
  c = add_rn(mul_rn(mul_rn(c, x2), x2), add_rn(mul_rn(x2, -0.5f), 1.0f));
  const bool swap = (quadrant & 1) != 0;
  const uint32_t sine_bits = float_as_bits(swap ? c : s);
  const uint32_t cosine_bits = float_as_bits(swap ? s : c);
  *sine = bits_as_float(sine_bits ^ ((quadrant & 2) << 30));
  *cosine = bits_as_float(cosine_bits ^ (((quadrant + 1) & 2) << 30));
}

}  // namespace detail

/** Two independent standard normals of two random words (Box and Muller 1958); at most 6.66 in magnitude. */
FLASHINFER_HOST_DEVICE void normals_from_bits(uint32_t radius_bits, uint32_t angle_bits, float* first, float* second) {
  const float radius = detail::sqrt_rn(detail::minus_two_log(radius_bits));
  float sine, cosine;
  detail::sincos_turn(angle_bits, &sine, &cosine);
  *first = detail::mul_rn(radius, cosine);
  *second = detail::mul_rn(radius, sine);
}

}  // namespace flashinfer
