// SPDX-License-Identifier: Apache-2.0
// Plain C++ for every other processor, in loops of four that compilers turn into what the baseline has; see vec.h.
#pragma once
#include "cpu/isa/vec.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

constexpr int kLanes = 4;
constexpr int kRegisters = 16;
/** Scale2 by this, or less, gives 0. */
constexpr float kMinExponent = -127.0f;

struct Vec {
  float lane[kLanes];
};
struct Mask {
  bool lane[kLanes];
};

namespace detail {

template <class F>
FLASHINFER_INLINE Vec Map(F f) {
  Vec out;
  for (int i = 0; i < kLanes; ++i) out.lane[i] = f(i);
  return out;
}
FLASHINFER_INLINE float AbsLane(float x) { return bits_as_float(float_as_bits(x) & 0x7fffffffu); }
FLASHINFER_INLINE float CopySignLane(float x, float sign) {
  return bits_as_float((float_as_bits(x) & 0x7fffffffu) | (float_as_bits(sign) & 0x80000000u));
}
// Adding and taking off 1.5 * 2^23 rounds |x| < 2^22 to an integer, ties to even.
FLASHINFER_INLINE float RoundLane(float x) { return (x + 12582912.0f) - 12582912.0f; }

}  // namespace detail

FLASHINFER_INLINE Vec Set1(float x) {
  return detail::Map([&](int) { return x; });
}
FLASHINFER_INLINE Vec Zero() { return Set1(0.0f); }
template <class T>
FLASHINFER_INLINE Vec Load(const T* p) {
  return detail::Map([&](int i) { return to_float(p[i]); });
}
template <class T>
FLASHINFER_INLINE Vec LoadHead(const T* p) {
  return Load(p);
}
template <class T>
FLASHINFER_INLINE void Store(T* p, Vec x) {
  for (int i = 0; i < kLanes; ++i) p[i] = from_float<T>(x.lane[i]);
}
template <class T>
FLASHINFER_INLINE void StoreHead(T* p, Vec x) {
  Store(p, x);
}
// Two roundings: std::fma without hardware support would be a library call.
FLASHINFER_INLINE Vec Fma(Vec a, Vec b, Vec c) {
  return detail::Map([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
FLASHINFER_INLINE Vec Add(Vec a, Vec b) {
  return detail::Map([&](int i) { return a.lane[i] + b.lane[i]; });
}
FLASHINFER_INLINE Vec Sub(Vec a, Vec b) {
  return detail::Map([&](int i) { return a.lane[i] - b.lane[i]; });
}
FLASHINFER_INLINE Vec Mul(Vec a, Vec b) {
  return detail::Map([&](int i) { return a.lane[i] * b.lane[i]; });
}
FLASHINFER_INLINE Vec Div(Vec a, Vec b) {
  return detail::Map([&](int i) { return a.lane[i] / b.lane[i]; });
}
FLASHINFER_INLINE Vec Max(Vec a, Vec b) {
  return detail::Map([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
FLASHINFER_INLINE Vec Min(Vec a, Vec b) {
  return detail::Map([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
FLASHINFER_INLINE Vec Abs(Vec x) {
  return detail::Map([&](int i) { return detail::AbsLane(x.lane[i]); });
}
FLASHINFER_INLINE Vec CopySign(Vec magnitude, Vec sign) {
  return detail::Map([&](int i) { return detail::CopySignLane(magnitude.lane[i], sign.lane[i]); });
}
FLASHINFER_INLINE Vec Round(Vec x) {
  return detail::Map([&](int i) { return detail::RoundLane(x.lane[i]); });
}
// 2^n from n's exponent bits: n in [-127, 127], and 2^-127 counts as 0. A NaN in x passes through whatever n is.
FLASHINFER_INLINE Vec Scale2(Vec x, Vec n) {
  return detail::Map([&](int i) {
    // The low bits of 1.5 * 2^23 + n are n in two's complement.
    const uint32_t exponent = float_as_bits(n.lane[i] + 12582912.0f) - 0x4b400000u + 127u;
    return x.lane[i] * bits_as_float(exponent << 23);
  });
}
FLASHINFER_INLINE Mask Less(Vec a, Vec b) {
  Mask out;
  for (int i = 0; i < kLanes; ++i) out.lane[i] = a.lane[i] < b.lane[i];
  return out;
}
FLASHINFER_INLINE Vec Select(Mask m, Vec yes, Vec no) {
  return detail::Map([&](int i) { return m.lane[i] ? yes.lane[i] : no.lane[i]; });
}
FLASHINFER_INLINE float Sum(Vec x) { return (x.lane[0] + x.lane[2]) + (x.lane[1] + x.lane[3]); }
template <int kCount>
FLASHINFER_INLINE void StoreSums(const Vec (&x)[kCount], float* sums) {
  for (int i = 0; i < kCount; ++i) sums[i] = Sum(x[i]);
}
FLASHINFER_INLINE float MaxLane(Vec x) {
  float out = x.lane[0];
  for (int i = 1; i < kLanes; ++i) out = x.lane[i] > out ? x.lane[i] : out;
  return out;
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
