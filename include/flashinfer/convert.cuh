// SPDX-License-Identifier: Apache-2.0
// Packed conversions kernels use in registers (PTX ISA 9.7.9.22, cvt). Single values: dtype.cuh.
#pragma once
#include <flashinfer/dtype.cuh>
#include <flashinfer/math.cuh>

namespace flashinfer {

/** Two floats rounded to nearest even and packed, `low` in bits 0..15. */
template <class T>
__device__ __forceinline__ uint32_t pack2(float low, float high);

template <>
__device__ __forceinline__ uint32_t pack2<half_t>(float low, float high) {
#if __CUDA_ARCH__ >= 800
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  uint16_t l, h;
  asm("cvt.rn.f16.f32 %0, %1;\n" : "=h"(l) : "f"(low));
  asm("cvt.rn.f16.f32 %0, %1;\n" : "=h"(h) : "f"(high));
  return static_cast<uint32_t>(l) | (static_cast<uint32_t>(h) << 16);
#endif
}

template <>
__device__ __forceinline__ uint32_t pack2<bfloat16_t>(float low, float high) {
#if __CUDA_ARCH__ >= 800
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  return 0;  // bfloat16 is refused below sm_80
#endif
}

/** The inverse of pack2; exact. */
template <class T>
__device__ __forceinline__ void unpack2(uint32_t packed, float& low, float& high);

template <>
__device__ __forceinline__ void unpack2<half_t>(uint32_t packed, float& low, float& high) {
  const uint16_t l = static_cast<uint16_t>(packed), h = static_cast<uint16_t>(packed >> 16);
  asm("cvt.f32.f16 %0, %1;\n" : "=f"(low) : "h"(l));
  asm("cvt.f32.f16 %0, %1;\n" : "=f"(high) : "h"(h));
}

template <>
__device__ __forceinline__ void unpack2<bfloat16_t>(uint32_t packed, float& low, float& high) {
  low = __uint_as_float(packed << 16);
  high = __uint_as_float(packed & 0xffff0000u);
}

/** Two fp8 values in the low 16 bits of `pair` → packed float16; exact, NaN and infinity kept. */
template <class T>
__device__ __forceinline__ uint32_t fp8x2_to_half2(uint32_t pair);

template <>
__device__ __forceinline__ uint32_t fp8x2_to_half2<fp8_e4m3_t>(uint32_t pair) {
#if __CUDA_ARCH__ >= 890
  uint32_t result;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;\n" : "=r"(result) : "h"(static_cast<uint16_t>(pair)));
  return result;
#else
  // Same fields, moved: e4m3's exponent bias is 7 and float16's 15, so the value comes out 2^8 too small.
  const uint32_t spread = (pair & 0xffu) | ((pair & 0xff00u) << 8);
  const uint32_t magnitude = (spread & 0x007f007fu) << 7;
  uint32_t scaled;
  asm("mul.f16x2 %0, %1, %2;\n" : "=r"(scaled) : "r"(magnitude), "r"(0x5c005c00u));
  if ((spread & 0x7fu) == 0x7fu) scaled |= 0x00007fffu;
  if ((spread & 0x7f0000u) == 0x7f0000u) scaled |= 0x7fff0000u;
  return scaled | ((spread & 0x00800080u) << 8);
#endif
}

template <>
__device__ __forceinline__ uint32_t fp8x2_to_half2<fp8_e5m2_t>(uint32_t pair) {
  return ((pair & 0xffu) << 8) | ((pair & 0xff00u) << 16);
}

/** Two fp8 values → two packed values of T; exact: both 16-bit formats hold every fp8 value. */
template <class T, class Fp8>
__device__ __forceinline__ uint32_t fp8x2_to_pack2(uint32_t pair) {
  const uint32_t halves = fp8x2_to_half2<Fp8>(pair);
  float low, high;
  unpack2<half_t>(halves, low, high);
  return pack2<T>(low, high);
}

template <>
__device__ __forceinline__ uint32_t fp8x2_to_pack2<half_t, fp8_e4m3_t>(uint32_t pair) {
  return fp8x2_to_half2<fp8_e4m3_t>(pair);
}

template <>
__device__ __forceinline__ uint32_t fp8x2_to_pack2<half_t, fp8_e5m2_t>(uint32_t pair) {
  return fp8x2_to_half2<fp8_e5m2_t>(pair);
}

}  // namespace flashinfer
