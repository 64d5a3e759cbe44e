// SPDX-License-Identifier: Apache-2.0
// Element types and their conversions to and from float, for host C++17, nvcc and NVRTC without any toolkit header.
//
// Narrowing rounds to nearest, ties to even, as PyTorch's casts do:
//   float16, float8_e5m2  overflow gives an infinity        bfloat16  overflow gives an infinity
//   float8_e4m3fn         has no infinity: overflow, also of infinities, gives +-448, as PyTorch from 2.13 on
// Subnormals are exact and independent of flush-to-zero modes, -0 keeps its sign, NaN stays NaN (which NaN is unspecified:
// hardware conversions and the portable ones differ in sign and payload).
#pragma once

#ifndef __CUDACC_RTC__
#include <cstdint>
#include <cstring>
#endif

#ifdef __CUDACC__
#define FLASHINFER_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define FLASHINFER_HOST_DEVICE __forceinline
#else
// Must inline into functions compiled for a wider instruction set than their file; see csrc/cpu.
#define FLASHINFER_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace flashinfer {

#ifdef __CUDACC_RTC__
using int8_t = signed char;
using uint8_t = unsigned char;
using int16_t = short;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
using std::int16_t;
using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;
#endif

/** Codes of packages/core/src/tensor/dtype.ts. */
enum class DType : int32_t {
  kFloat16 = 0,
  kBFloat16 = 1,
  kFloat32 = 2,
  kFloat8E4M3 = 3,
  kFloat8E5M2 = 4,
  kInt8 = 5,
  kUint8 = 6,
  kInt32 = 7,
  kUint32 = 8,
  kInt64 = 9,
  kBool = 10,
};

struct half_t {
  uint16_t bits;
};
struct bfloat16_t {
  uint16_t bits;
};
struct fp8_e4m3_t {
  uint8_t bits;
};
struct fp8_e5m2_t {
  uint8_t bits;
};

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<half_t> {
  static constexpr DType value = DType::kFloat16;
};
template <>
struct DTypeOf<bfloat16_t> {
  static constexpr DType value = DType::kBFloat16;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kFloat32;
};
template <>
struct DTypeOf<fp8_e4m3_t> {
  static constexpr DType value = DType::kFloat8E4M3;
};
template <>
struct DTypeOf<fp8_e5m2_t> {
  static constexpr DType value = DType::kFloat8E5M2;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = DType::kInt8;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kUint8;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kInt32;
};
template <>
struct DTypeOf<uint32_t> {
  static constexpr DType value = DType::kUint32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kInt64;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::kBool;
};

FLASHINFER_HOST_DEVICE uint32_t float_as_bits(float f) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(f);
#else
  uint32_t bits;
  memcpy(&bits, &f, sizeof(bits));
  return bits;
#endif
}

FLASHINFER_HOST_DEVICE float bits_as_float(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float f;
  memcpy(&f, &bits, sizeof(f));
  return f;
#endif
}

namespace detail {

/**
 * What rounding a float to `kExp` exponent and `kMan` mantissa bits with the IEEE bias takes; magnitudes are float bits.
 * Without infinities (float8_e4m3fn) the all-ones pattern is the only NaN, the top exponent is a number, and overflow
 * saturates.
 */
template <int kExp, int kMan, bool kHasInf>
struct Rounding {
  static constexpr int kShift = 23 - kMan;
  /** What the exponents differ by, and half a unit of the last place less one, to be added before the shift. */
  static constexpr uint32_t kBiasDiff = (127u - ((1u << (kExp - 1)) - 1)) << 23, kHalfBelow = (1u << (kShift - 1)) - 1;
  static constexpr uint32_t kMinNormal = kBiasDiff + (1u << 23);
  /** Adding this constant leaves a subnormal's mantissa, rounded to nearest even, in the sum's low bits. */
  static constexpr uint32_t kMagic = kBiasDiff + ((kShift + 1u) << 23);
  static constexpr uint32_t kInf = ((1u << kExp) - 1) << kMan;
  static constexpr uint32_t kNan = kHasInf ? kInf | (1u << (kMan - 1)) : (1u << (kExp + kMan)) - 1;
  /** What rounds past the last number comes out greater, however far past it was. */
  static constexpr uint32_t kLargest = kHasInf ? kInf : kNan - 1;
};

/** Bits of a float so rounded. Branch-free, so that loops over it vectorise. */
template <int kExp, int kMan, bool kHasInf>
FLASHINFER_HOST_DEVICE uint32_t encode(float f) {
  using R = Rounding<kExp, kMan, kHasInf>;
  const uint32_t bits = float_as_bits(f);
  const uint32_t sign = (bits >> 31) << (kExp + kMan);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude - R::kBiasDiff + R::kHalfBelow + ((magnitude >> R::kShift) & 1)) >> R::kShift;
  const uint32_t subnormal = float_as_bits(bits_as_float(magnitude) + bits_as_float(R::kMagic)) - R::kMagic;
  uint32_t result = magnitude < R::kMinNormal ? subnormal : normal;
  result = result < R::kLargest ? result : R::kLargest;
  result = magnitude > 0x7f800000u ? R::kNan : result;
  return sign | result;
}

/** The inverse of `encode`; exact. */
template <int kExp, int kMan, bool kHasInf>
FLASHINFER_HOST_DEVICE float decode(uint32_t bits) {
  constexpr int kShift = 23 - kMan;
  constexpr uint32_t kBiasDiff = 127u - ((1u << (kExp - 1)) - 1);
  constexpr uint32_t kMagnitude = (1u << (kExp + kMan)) - 1;
  constexpr uint32_t kInf = ((1u << kExp) - 1) << kMan;

  const uint32_t magnitude = bits & kMagnitude;
  const uint32_t sign = (bits >> (kExp + kMan)) << 31;
  const uint32_t normal = (magnitude << kShift) + (kBiasDiff << 23);
  // A subnormal is read with the smallest normal exponent; subtracting that power of two is exact.
  const float power = bits_as_float((kBiasDiff + 1) << 23);
  const uint32_t subnormal = float_as_bits(bits_as_float((magnitude << kShift) + ((kBiasDiff + 1) << 23)) - power);
  uint32_t result = magnitude < (1u << kMan) ? subnormal : normal;
  if (kHasInf) {
    result = magnitude >= kInf ? normal + (kBiasDiff << 23) : result;
  } else {
    result = magnitude == kMagnitude ? 0x7fc00000u : result;
  }
  return bits_as_float(sign | result);
}

FLASHINFER_HOST_DEVICE uint32_t encode_bf16(float f) {
  const uint32_t bits = float_as_bits(f);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded;
}

}  // namespace detail

FLASHINFER_HOST_DEVICE float to_float(float x) { return x; }

FLASHINFER_HOST_DEVICE float to_float(half_t x) {
#ifdef __CUDA_ARCH__
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(x.bits));
  return f;
#else
  return detail::decode<5, 10, true>(x.bits);
#endif
}

FLASHINFER_HOST_DEVICE float to_float(bfloat16_t x) { return bits_as_float(static_cast<uint32_t>(x.bits) << 16); }

FLASHINFER_HOST_DEVICE float to_float(fp8_e5m2_t x) {
  // The upper byte of a half.
  return to_float(half_t{static_cast<uint16_t>(x.bits << 8)});
}

FLASHINFER_HOST_DEVICE float to_float(fp8_e4m3_t x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint32_t halves;  // every e4m3 value is exact in a half
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(x.bits)));
  return to_float(half_t{static_cast<uint16_t>(halves)});
#else
  return detail::decode<4, 3, false>(x.bits);
#endif
}

/** Nearest value of T, ties to even; overflow as the file header says. */
template <class T>
FLASHINFER_HOST_DEVICE T from_float(float f);

template <>
FLASHINFER_HOST_DEVICE float from_float<float>(float f) {
  return f;
}

template <>
FLASHINFER_HOST_DEVICE half_t from_float<half_t>(float f) {
#ifdef __CUDA_ARCH__
  half_t x;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x.bits) : "f"(f));
  return x;
#else
  return {static_cast<uint16_t>(detail::encode<5, 10, true>(f))};
#endif
}

template <>
FLASHINFER_HOST_DEVICE bfloat16_t from_float<bfloat16_t>(float f) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  bfloat16_t x;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(x.bits) : "f"(f));
  return x;
#else
  return {static_cast<uint16_t>(detail::encode_bf16(f))};
#endif
}

template <>
FLASHINFER_HOST_DEVICE fp8_e4m3_t from_float<fp8_e4m3_t>(float f) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(f));
  return {static_cast<uint8_t>(pair)};
#else
  return {static_cast<uint8_t>(detail::encode<4, 3, false>(f))};
#endif
}

template <>
FLASHINFER_HOST_DEVICE fp8_e5m2_t from_float<fp8_e5m2_t>(float f) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  // The instruction saturates; from the midpoint 61440 on, round to nearest even gives infinity.
  uint16_t pair;
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(f));
  const uint32_t magnitude = float_as_bits(f) & 0x7fffffffu;
  const uint32_t overflow = (magnitude > 0x7f800000u ? 0x7fu : 0x7cu) | ((float_as_bits(f) >> 31) << 7);
  return {static_cast<uint8_t>(magnitude < 0x47700000u ? pair : overflow)};
#else
  return {static_cast<uint8_t>(detail::encode<5, 2, true>(f))};
#endif
}

/** Two rounded 16-bit values in one register, `lo` in the low half: the layout of mma fragments. */
template <class T>
FLASHINFER_HOST_DEVICE uint32_t pack_floats(float lo, float hi) {
  static_assert(sizeof(T) == 2, "pack_floats packs two 16-bit values");
  return from_float<T>(lo).bits | (static_cast<uint32_t>(from_float<T>(hi).bits) << 16);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
template <>
FLASHINFER_HOST_DEVICE uint32_t pack_floats<half_t>(float lo, float hi) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(hi), "f"(lo));
  return packed;
}

template <>
FLASHINFER_HOST_DEVICE uint32_t pack_floats<bfloat16_t>(float lo, float hi) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(hi), "f"(lo));
  return packed;
}
#endif

}  // namespace flashinfer
