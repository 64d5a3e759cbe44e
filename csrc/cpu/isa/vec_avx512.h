// SPDX-License-Identifier: Apache-2.0
// AVX-512 (F, BW, DQ, VL); see vec.h.
#pragma once
#include <immintrin.h>

#include "cpu/isa/vec.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

using Vec = __m512;
using Mask = __mmask16;
constexpr int kLanes = 16;
constexpr int kRegisters = 32;
/** Scale2 by this, or less, gives 0. */
constexpr float kMinExponent = -160.0f;

FLASHINFER_INLINE Vec Zero() { return _mm512_setzero_ps(); }
FLASHINFER_INLINE Vec Set1(float x) { return _mm512_set1_ps(x); }
FLASHINFER_INLINE Vec Load(const float* p) { return _mm512_loadu_ps(p); }
FLASHINFER_INLINE void Store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
FLASHINFER_INLINE Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
FLASHINFER_INLINE Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
FLASHINFER_INLINE Vec Sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
FLASHINFER_INLINE Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
FLASHINFER_INLINE Vec Div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
FLASHINFER_INLINE Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
FLASHINFER_INLINE Vec Min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
FLASHINFER_INLINE Vec Abs(Vec x) { return _mm512_abs_ps(x); }
FLASHINFER_INLINE Vec CopySign(Vec magnitude, Vec sign) {
  return _mm512_or_ps(_mm512_abs_ps(magnitude), _mm512_and_ps(sign, _mm512_set1_ps(-0.0f)));
}
FLASHINFER_INLINE Vec Round(Vec x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
FLASHINFER_INLINE Vec Scale2(Vec x, Vec n) { return _mm512_scalef_ps(x, n); }
FLASHINFER_INLINE Mask Less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
FLASHINFER_INLINE Vec Select(Mask m, Vec yes, Vec no) { return _mm512_mask_blend_ps(m, no, yes); }
FLASHINFER_INLINE float Sum(Vec x) { return _mm512_reduce_add_ps(x); }
namespace detail {

/** In every quarter, the sums of that quarter of four vectors. */
FLASHINFER_INLINE __m512 QuarterSums(const Vec* x) {
  const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
  const __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
}
/** Adds neighbouring quarters: a's two sums, then b's. */
FLASHINFER_INLINE __m512 AddQuarters(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

}  // namespace detail

template <int kCount>
FLASHINFER_INLINE void StoreSums(const Vec (&x)[kCount], float* sums) {
  static_assert(kCount == 8 || kCount == 16, "sums are made eight or sixteen at a time");
  const __m512 a = detail::AddQuarters(detail::QuarterSums(x), detail::QuarterSums(x + 4));
  if constexpr (kCount == 8) {
    _mm256_storeu_ps(sums, _mm512_castps512_ps256(detail::AddQuarters(a, a)));
  } else {
    const __m512 b = detail::AddQuarters(detail::QuarterSums(x + 8), detail::QuarterSums(x + 12));
    _mm512_storeu_ps(sums, detail::AddQuarters(a, b));
  }
}
FLASHINFER_INLINE float MaxLane(Vec x) { return _mm512_reduce_max_ps(x); }

namespace detail {

FLASHINFER_INLINE Vec FromHalf(__m256i bits) { return _mm512_cvtph_ps(bits); }
FLASHINFER_INLINE Vec FromBf16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
// An e4m3 shifted to a half's place is the value times 2^-8, subnormals included; its one NaN must be put in.
FLASHINFER_INLINE Vec FromE4M3(__m128i bits) {
  const __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(bits), 7);
  const __m256i half = _mm256_and_si256(wide, _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
  const __mmask16 number = _mm_cmpneq_epi8_mask(_mm_or_si128(bits, _mm_set1_epi8(-128)), _mm_set1_epi8(-1));
  return _mm512_mask_mul_ps(_mm512_set1_ps(__builtin_nanf("")), number, _mm512_cvtph_ps(half), _mm512_set1_ps(256.0f));
}
// The upper byte of a half.
FLASHINFER_INLINE Vec FromE5M2(__m128i bits) {
  return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bits), 8));
}
FLASHINFER_INLINE __m256i ToBf16(Vec x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
}
FLASHINFER_INLINE __m256i ToHalf(Vec x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
template <class T>
FLASHINFER_INLINE __m128i ToFp8(Vec x) {
  using F = Fp8Rounding<T>;
  const __m512i bits = _mm512_castps_si512(x), magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(magnitude, F::kShift), _mm512_set1_epi32(1));
  const __m512i carried =
      _mm512_add_epi32(_mm512_add_epi32(magnitude, odd), _mm512_set1_epi32(F::kHalfBelow - F::kBiasDiff));
  const __m512i magic = _mm512_set1_epi32(F::kMagic);
  const __m512 sum = _mm512_add_ps(_mm512_castsi512_ps(magnitude), _mm512_castsi512_ps(magic));
  const __mmask16 subnormal = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(F::kMinNormal));
  __m512i result = _mm512_srli_epi32(carried, F::kShift);
  result = _mm512_mask_sub_epi32(result, subnormal, _mm512_castps_si512(sum), magic);
  result = _mm512_min_epi32(result, _mm512_set1_epi32(F::kLargest));
  result = _mm512_mask_mov_epi32(result, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_set1_epi32(F::kNan));
  const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(bits, 24), _mm512_set1_epi32(0x80));
  return _mm512_cvtepi32_epi8(_mm512_or_si512(result, sign));
}
FLASHINFER_INLINE __m128i Load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
FLASHINFER_INLINE __m256i Load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
FLASHINFER_INLINE __m256i Head256(const void* p) { return _mm256_zextsi128_si256(Load128(p)); }
FLASHINFER_INLINE __m128i Head128(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }

}  // namespace detail

FLASHINFER_INLINE Vec Load(const half_t* p) { return detail::FromHalf(detail::Load256(p)); }
FLASHINFER_INLINE Vec Load(const bfloat16_t* p) { return detail::FromBf16(detail::Load256(p)); }
FLASHINFER_INLINE Vec Load(const fp8_e4m3_t* p) { return detail::FromE4M3(detail::Load128(p)); }
FLASHINFER_INLINE Vec Load(const fp8_e5m2_t* p) { return detail::FromE5M2(detail::Load128(p)); }

FLASHINFER_INLINE Vec LoadHead(const float* p) { return _mm512_maskz_loadu_ps(0xff, p); }
FLASHINFER_INLINE Vec LoadHead(const half_t* p) { return detail::FromHalf(detail::Head256(p)); }
FLASHINFER_INLINE Vec LoadHead(const bfloat16_t* p) { return detail::FromBf16(detail::Head256(p)); }
FLASHINFER_INLINE Vec LoadHead(const fp8_e4m3_t* p) { return detail::FromE4M3(detail::Head128(p)); }
FLASHINFER_INLINE Vec LoadHead(const fp8_e5m2_t* p) { return detail::FromE5M2(detail::Head128(p)); }

FLASHINFER_INLINE void Store(half_t* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), detail::ToHalf(x));
}
FLASHINFER_INLINE void Store(bfloat16_t* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), detail::ToBf16(x));
}
FLASHINFER_INLINE void Store(fp8_e4m3_t* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), detail::ToFp8<fp8_e4m3_t>(x));
}
FLASHINFER_INLINE void Store(fp8_e5m2_t* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), detail::ToFp8<fp8_e5m2_t>(x));
}
FLASHINFER_INLINE void StoreHead(float* p, Vec x) { _mm512_mask_storeu_ps(p, 0xff, x); }
FLASHINFER_INLINE void StoreHead(half_t* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(detail::ToHalf(x)));
}
FLASHINFER_INLINE void StoreHead(bfloat16_t* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(detail::ToBf16(x)));
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
