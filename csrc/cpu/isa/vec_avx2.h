// SPDX-License-Identifier: Apache-2.0
// AVX2 with FMA and F16C; see vec.h.
#pragma once
#include <immintrin.h>

#include "cpu/isa/vec.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

using Vec = __m256;
using Mask = __m256;
constexpr int kLanes = 8;
constexpr int kRegisters = 16;
/** Scale2 by this, or less, gives 0. */
constexpr float kMinExponent = -127.0f;

FLASHINFER_INLINE Vec Zero() { return _mm256_setzero_ps(); }
FLASHINFER_INLINE Vec Set1(float x) { return _mm256_set1_ps(x); }
FLASHINFER_INLINE Vec Load(const float* p) { return _mm256_loadu_ps(p); }
FLASHINFER_INLINE void Store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
FLASHINFER_INLINE Vec Fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
FLASHINFER_INLINE Vec Add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
FLASHINFER_INLINE Vec Sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
FLASHINFER_INLINE Vec Mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
FLASHINFER_INLINE Vec Div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
FLASHINFER_INLINE Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
FLASHINFER_INLINE Vec Min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
FLASHINFER_INLINE Vec Abs(Vec x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
FLASHINFER_INLINE Vec CopySign(Vec magnitude, Vec sign) {
  return _mm256_or_ps(Abs(magnitude), _mm256_and_ps(sign, _mm256_set1_ps(-0.0f)));
}
FLASHINFER_INLINE Vec Round(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// 2^n from n's exponent bits: n in [-127, 127], and 2^-127 counts as 0.
FLASHINFER_INLINE Vec Scale2(Vec x, Vec n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
FLASHINFER_INLINE Mask Less(Vec a, Vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
FLASHINFER_INLINE Vec Select(Mask m, Vec yes, Vec no) { return _mm256_blendv_ps(no, yes, m); }
FLASHINFER_INLINE float Sum(Vec x) {
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
namespace detail {

/** In both halves, the sums of that half of four vectors. */
FLASHINFER_INLINE __m256 HalfSums(const Vec* x) {
  const __m256 a = _mm256_add_ps(_mm256_unpacklo_ps(x[0], x[1]), _mm256_unpackhi_ps(x[0], x[1]));
  const __m256 b = _mm256_add_ps(_mm256_unpacklo_ps(x[2], x[3]), _mm256_unpackhi_ps(x[2], x[3]));
  return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
}

}  // namespace detail

template <int kCount>
FLASHINFER_INLINE void StoreSums(const Vec (&x)[kCount], float* sums) {
  static_assert(kCount % 8 == 0, "sums are made eight at a time");
  for (int i = 0; i < kCount; i += 8) {
    const __m256 a = detail::HalfSums(x + i);
    const __m256 b = detail::HalfSums(x + i + 4);
    Store(sums + i, _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)));
  }
}
FLASHINFER_INLINE float MaxLane(Vec x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

namespace detail {

FLASHINFER_INLINE __m128i Load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
FLASHINFER_INLINE __m128i Load64(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
FLASHINFER_INLINE __m128i ToBf16(Vec x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
/** In the lower half. */
template <class T>
FLASHINFER_INLINE __m128i ToFp8(Vec x) {
  using F = Fp8Rounding<T>;
  const __m256i bits = _mm256_castps_si256(x), magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(magnitude, F::kShift), _mm256_set1_epi32(1));
  const __m256i carried =
      _mm256_add_epi32(_mm256_add_epi32(magnitude, odd), _mm256_set1_epi32(F::kHalfBelow - F::kBiasDiff));
  const __m256i magic = _mm256_set1_epi32(F::kMagic);
  const __m256 sum = _mm256_add_ps(_mm256_castsi256_ps(magnitude), _mm256_castsi256_ps(magic));
  const __m256i subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(F::kMinNormal), magnitude);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  __m256i result = _mm256_blendv_epi8(_mm256_srli_epi32(carried, F::kShift),
                                      _mm256_sub_epi32(_mm256_castps_si256(sum), magic), subnormal);
  result = _mm256_min_epi32(result, _mm256_set1_epi32(F::kLargest));
  result = _mm256_blendv_epi8(result, _mm256_set1_epi32(F::kNan), nan);
  result = _mm256_or_si256(result, _mm256_and_si256(_mm256_srli_epi32(bits, 24), _mm256_set1_epi32(0x80)));
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1));
  return _mm_packus_epi16(words, words);
}

}  // namespace detail

FLASHINFER_INLINE Vec Load(const half_t* p) { return _mm256_cvtph_ps(detail::Load128(p)); }
FLASHINFER_INLINE Vec Load(const bfloat16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(detail::Load128(p)), 16));
}
// An e4m3 shifted to a half's place is the value times 2^-8, subnormals included; its one NaN must be put in.
FLASHINFER_INLINE Vec Load(const fp8_e4m3_t* p) {
  const __m128i wide = _mm_slli_epi16(_mm_cvtepi8_epi16(detail::Load64(p)), 7);
  const __m128i half = _mm_and_si128(wide, _mm_set1_epi16(static_cast<int16_t>(0xbf80)));
  const __m128i top = _mm_set1_epi16(0x3f80);
  const __m128i nan = _mm_cmpeq_epi16(_mm_and_si128(half, top), top);
  const __m128i value = _mm_or_si128(half, _mm_and_si128(nan, _mm_set1_epi16(0x7e00)));
  return _mm256_mul_ps(_mm256_cvtph_ps(value), _mm256_set1_ps(256.0f));
}
// The upper byte of a half.
FLASHINFER_INLINE Vec Load(const fp8_e5m2_t* p) {
  return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(detail::Load64(p)), 8));
}
template <class T>
FLASHINFER_INLINE Vec LoadHead(const T* p) {
  return Load(p);
}

FLASHINFER_INLINE void Store(half_t* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
FLASHINFER_INLINE void Store(bfloat16_t* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), detail::ToBf16(x));
}
FLASHINFER_INLINE void Store(fp8_e4m3_t* p, Vec x) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), detail::ToFp8<fp8_e4m3_t>(x));
}
FLASHINFER_INLINE void Store(fp8_e5m2_t* p, Vec x) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), detail::ToFp8<fp8_e5m2_t>(x));
}
template <class T>
FLASHINFER_INLINE void StoreHead(T* p, Vec x) {
  Store(p, x);
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
