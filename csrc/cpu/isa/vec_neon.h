// SPDX-License-Identifier: Apache-2.0
// Advanced SIMD of arm64; see vec.h.
#pragma once
#include <arm_neon.h>

#include "cpu/isa/vec.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

using Vec = float32x4_t;
using Mask = uint32x4_t;
constexpr int kLanes = 4;
constexpr int kRegisters = 32;
/** Scale2 by this, or less, gives 0. */
constexpr float kMinExponent = -127.0f;

FLASHINFER_INLINE Vec Zero() { return vdupq_n_f32(0.0f); }
FLASHINFER_INLINE Vec Set1(float x) { return vdupq_n_f32(x); }
FLASHINFER_INLINE Vec Load(const float* p) { return vld1q_f32(p); }
FLASHINFER_INLINE void Store(float* p, Vec x) { vst1q_f32(p, x); }
FLASHINFER_INLINE Vec Fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
FLASHINFER_INLINE Vec Add(Vec a, Vec b) { return vaddq_f32(a, b); }
FLASHINFER_INLINE Vec Sub(Vec a, Vec b) { return vsubq_f32(a, b); }
FLASHINFER_INLINE Vec Mul(Vec a, Vec b) { return vmulq_f32(a, b); }
FLASHINFER_INLINE Vec Div(Vec a, Vec b) { return vdivq_f32(a, b); }
// Not vmaxq/vminq: those return NaN.
FLASHINFER_INLINE Vec Max(Vec a, Vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
FLASHINFER_INLINE Vec Min(Vec a, Vec b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
FLASHINFER_INLINE Vec Abs(Vec x) { return vabsq_f32(x); }
FLASHINFER_INLINE Vec CopySign(Vec magnitude, Vec sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude); }
FLASHINFER_INLINE Vec Round(Vec x) { return vrndnq_f32(x); }
// 2^n from n's exponent bits: n in [-127, 127], and 2^-127 counts as 0.
FLASHINFER_INLINE Vec Scale2(Vec x, Vec n) {
  const int32x4_t exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
  return vmulq_f32(x, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
}
FLASHINFER_INLINE Mask Less(Vec a, Vec b) { return vcltq_f32(a, b); }
FLASHINFER_INLINE Vec Select(Mask m, Vec yes, Vec no) { return vbslq_f32(m, yes, no); }
FLASHINFER_INLINE float Sum(Vec x) { return vaddvq_f32(x); }
template <int kCount>
FLASHINFER_INLINE void StoreSums(const Vec (&x)[kCount], float* sums) {
  static_assert(kCount % 4 == 0, "sums are made four at a time");
  for (int i = 0; i < kCount; i += 4) {
    Store(sums + i, vpaddq_f32(vpaddq_f32(x[i], x[i + 1]), vpaddq_f32(x[i + 2], x[i + 3])));
  }
}
FLASHINFER_INLINE float MaxLane(Vec x) { return vmaxvq_f32(x); }

namespace detail {

FLASHINFER_INLINE uint16x4_t Widen4(const void* p) {
  uint32_t bytes;
  memcpy(&bytes, p, sizeof(bytes));
  return vget_low_u16(vmovl_u8(vcreate_u8(bytes)));
}
FLASHINFER_INLINE Vec FromHalf(uint16x4_t bits) { return vcvt_f32_f16(vreinterpret_f16_u16(bits)); }
template <class T>
FLASHINFER_INLINE void StoreFp8(T* p, Vec x) {
  using F = Fp8Rounding<T>;
  const int32x4_t magnitude = vreinterpretq_s32_f32(vabsq_f32(x)), magic = vdupq_n_s32(F::kMagic);
  const int32x4_t odd = vandq_s32(vshrq_n_s32(magnitude, F::kShift), vdupq_n_s32(1));
  const int32x4_t carried = vaddq_s32(vaddq_s32(magnitude, odd), vdupq_n_s32(F::kHalfBelow - F::kBiasDiff));
  const float32x4_t sum = vaddq_f32(vreinterpretq_f32_s32(magnitude), vreinterpretq_f32_s32(magic));
  const uint32x4_t subnormal = vcltq_s32(magnitude, vdupq_n_s32(F::kMinNormal));
  int32x4_t result =
      vbslq_s32(subnormal, vsubq_s32(vreinterpretq_s32_f32(sum), magic), vshrq_n_s32(carried, F::kShift));
  result = vbslq_s32(vceqq_f32(x, x), vminq_s32(result, vdupq_n_s32(F::kLargest)), vdupq_n_s32(F::kNan));
  const uint32x4_t sign = vandq_u32(vshrq_n_u32(vreinterpretq_u32_f32(x), 24), vdupq_n_u32(0x80));
  const uint16x4_t words = vmovn_u32(vorrq_u32(vreinterpretq_u32_s32(result), sign));
  const uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words))), 0);
  memcpy(p, &bytes, sizeof(bytes));
}

}  // namespace detail

FLASHINFER_INLINE Vec Load(const half_t* p) { return detail::FromHalf(vld1_u16(reinterpret_cast<const uint16_t*>(p))); }
FLASHINFER_INLINE Vec Load(const bfloat16_t* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)), 16));
}
// An e4m3 shifted to a half's place is the value times 2^-8, subnormals included; its one NaN must be put in.
FLASHINFER_INLINE Vec Load(const fp8_e4m3_t* p) {
  const uint16x4_t bits = detail::Widen4(p);
  const uint16x4_t magnitude = vand_u16(vshl_n_u16(bits, 7), vdup_n_u16(0x3f80));
  const uint16x4_t nan = vand_u16(vceq_u16(magnitude, vdup_n_u16(0x3f80)), vdup_n_u16(0x7e00));
  const uint16x4_t sign = vshl_n_u16(vshr_n_u16(bits, 7), 15);
  return vmulq_n_f32(detail::FromHalf(vorr_u16(vorr_u16(magnitude, nan), sign)), 256.0f);
}
// The upper byte of a half.
FLASHINFER_INLINE Vec Load(const fp8_e5m2_t* p) { return detail::FromHalf(vshl_n_u16(detail::Widen4(p), 8)); }
template <class T>
FLASHINFER_INLINE Vec LoadHead(const T* p) {
  return Load(p);
}

FLASHINFER_INLINE void Store(half_t* p, Vec x) {
  vst1_u16(reinterpret_cast<uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(x)));
}
FLASHINFER_INLINE void Store(bfloat16_t* p, Vec x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  vst1_u16(reinterpret_cast<uint16_t*>(p), vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16));
}
FLASHINFER_INLINE void Store(fp8_e4m3_t* p, Vec x) { detail::StoreFp8(p, x); }
FLASHINFER_INLINE void Store(fp8_e5m2_t* p, Vec x) { detail::StoreFp8(p, x); }
template <class T>
FLASHINFER_INLINE void StoreHead(T* p, Vec x) {
  Store(p, x);
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
