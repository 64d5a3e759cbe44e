// SPDX-License-Identifier: Apache-2.0
// Conversion between any two element types with one rounding:
//   float -> float     nearest, ties to even; overflow as dtype.cuh says
//   integer -> float   nearest, ties to even, straight to the target (not through float32)
//   float -> integer   toward zero; out of range saturates, NaN gives 0
//   integer -> integer wraps modulo 2^bits
//   anything -> bool   true unless zero (NaN is true); bool -> number 0 or 1
#pragma once

#include "flashinfer/dtype.cuh"

namespace flashinfer {

template <class T>
inline constexpr bool kIsFloatingDType = static_cast<int>(DTypeOf<T>::value) <= static_cast<int>(DType::kFloat8E5M2);

namespace detail {

template <class A, class B>
inline constexpr bool kSame = false;
template <class A>
inline constexpr bool kSame<A, A> = true;

/** Truncates, saturates, and gives 0 for NaN. F is float or double. Branch-free, so that loops over it vectorise. */
template <class T, class F>
FLASHINFER_HOST_DEVICE T truncate_saturated(F f) {
  constexpr bool kSigned = static_cast<T>(-1) < static_cast<T>(0);
  constexpr int kBits = 8 * static_cast<int>(sizeof(T)) - (kSigned ? 1 : 0);
  constexpr uint64_t kEndBits = uint64_t{1} << kBits;  // at most 2^63: there is no uint64 element
  constexpr F kEnd = static_cast<F>(kEndBits);
  constexpr F kLow = kSigned ? -kEnd : F(0);
  constexpr T kMax = static_cast<T>(kEndBits - 1);
  F inside = f > kLow ? f : kLow;
  inside = inside < kEnd ? inside : F(0);
  T result;
  if constexpr (sizeof(T) < 4) {
    result = static_cast<T>(static_cast<int32_t>(inside));
  } else {
    result = static_cast<T>(inside);
  }
  result = f >= kEnd ? kMax : result;
  return f == f ? result : T(0);
}

// Round to odd keeps, in float's last bit, whether anything was cut off; with at least two bits more than the final type
// the second rounding then gives what one rounding would (Boldo and Melquiond, "Emulation of FMA and correctly rounded
// sums: proved algorithms using rounding to odd", 2008).

FLASHINFER_HOST_DEVICE float round_to_odd(double x) {
  float f = static_cast<float>(x);
  const double magnitude = x < 0 ? -x : x;
  const double rounded = static_cast<double>(f < 0 ? -f : f);
  uint32_t bits = float_as_bits(f);
  bits -= rounded > magnitude ? 1u : 0u;  // toward zero
  bits |= rounded < magnitude || rounded > magnitude ? 1u : 0u;
  return bits_as_float(bits);
}

/** For targets of at most 11 significant bits: from 2^24 on, bits 0 to 7 are below the rounding position. */
FLASHINFER_HOST_DEVICE float round_to_odd(uint32_t magnitude) {
  const uint32_t jammed = (magnitude & 0xffffff00u) | ((magnitude & 0xffu) != 0 ? 0x100u : 0u);
  const uint32_t exact = magnitude < (1u << 24) ? magnitude : jammed;  // at most 24 significant bits
  return static_cast<float>(exact);
}

FLASHINFER_HOST_DEVICE float round_to_odd(uint64_t magnitude) {
  const float f = static_cast<float>(magnitude);  // at most 2^63
  const uint64_t rounded = static_cast<uint64_t>(f);
  uint32_t bits = float_as_bits(f);
  bits -= rounded > magnitude ? 1u : 0u;
  bits |= rounded != magnitude ? 1u : 0u;
  return bits_as_float(bits);
}

template <class Dst, class Src>
FLASHINFER_HOST_DEVICE Dst float_from_integer(Src x) {
  if constexpr (kSame<Dst, float> || sizeof(Src) < 4) {
    return from_float<Dst>(static_cast<float>(x));
  } else if constexpr (kSame<Src, uint32_t>) {
    return from_float<Dst>(round_to_odd(x));
  } else if constexpr (kSame<Src, int32_t>) {
    const uint32_t magnitude = x < 0 ? 0u - static_cast<uint32_t>(x) : static_cast<uint32_t>(x);
    const float f = round_to_odd(magnitude);
    return from_float<Dst>(x < 0 ? -f : f);
  } else {
    const uint64_t magnitude = x < 0 ? uint64_t{0} - static_cast<uint64_t>(x) : static_cast<uint64_t>(x);
    const float f = round_to_odd(magnitude);
    return from_float<Dst>(x < 0 ? -f : f);
  }
}

}  // namespace detail

template <class Dst, class Src>
FLASHINFER_HOST_DEVICE Dst convert(Src x) {
  if constexpr (detail::kSame<Dst, Src>) {
    return x;
  } else if constexpr (detail::kSame<Dst, bool>) {
    if constexpr (kIsFloatingDType<Src>) {
      return (float_as_bits(to_float(x)) & 0x7fffffffu) != 0;
    } else {
      return x != 0;
    }
  } else if constexpr (kIsFloatingDType<Src>) {
    if constexpr (kIsFloatingDType<Dst>) {
      return from_float<Dst>(to_float(x));  // to_float is exact
    } else {
      return detail::truncate_saturated<Dst>(to_float(x));
    }
  } else if constexpr (kIsFloatingDType<Dst>) {
    return detail::float_from_integer<Dst>(x);
  } else {
    return static_cast<Dst>(x);
  }
}

/** The same rules for a double, with one rounding. */
template <class Dst>
FLASHINFER_HOST_DEVICE Dst convert_double(double x) {
  if constexpr (detail::kSame<Dst, float>) {
    return static_cast<float>(x);
  } else if constexpr (detail::kSame<Dst, bool>) {
    return !(x == 0);
  } else if constexpr (kIsFloatingDType<Dst>) {
    return from_float<Dst>(detail::round_to_odd(x));
  } else {
    return detail::truncate_saturated<Dst>(x);
  }
}

}  // namespace flashinfer
