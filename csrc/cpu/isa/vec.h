// SPDX-License-Identifier: Apache-2.0
// A vector of floats for kernels that are compiled once an instruction set. The including file defines
// FLASHINFER_ISA (the namespace its code lives in) and, for an instruction set, is compiled with its flags.
//
// Invariant: such files must not instantiate inline functions of the standard library. The linker keeps one copy of
// those, and a copy with AVX-512 inside would then run on machines without it. Everything here is in its own namespace.
//
// Every instruction set provides: Vec, Mask, kLanes, kRegisters (architectural vector registers),
//   kMinExponent, and
//   Set1 Zero Load Store Fma Add Sub Mul Div Max Min Abs CopySign Round Scale2 (x * 2^n, integral n) Less Select Sum MaxLane
//   StoreSums (the sums of an array of vectors)
//   Load and Store of half_t, bfloat16_t, fp8_e4m3_t, fp8_e5m2_t; LoadHead (the first 8 elements, the rest 0), and
//   StoreHead of those that are not fp8.
// Max(a, b) and Min(a, b) return b where either is NaN.
#pragma once
#include <cstdint>
#include <cstring>

#include "flashinfer/dtype.cuh"

#if defined(__GNUC__) || defined(__clang__)
#define FLASHINFER_INLINE inline __attribute__((always_inline))
#else
#define FLASHINFER_INLINE __forceinline
#endif

namespace flashinfer::cpu::FLASHINFER_ISA {

/** What rounding to an fp8 type takes; flashinfer::detail::encode has the arithmetic, which vectors do as it is there. */
template <class T>
struct Fp8Format {
  static constexpr bool kHasInf = DTypeOf<T>::value == DType::kFloat8E5M2;
  static constexpr int kMan = kHasInf ? 2 : 3, kShift = 23 - kMan;
  /** Exponent bits of 2^-bias in a float, to be taken off; the least magnitude that is normal; half an ulp, less one. */
  static constexpr int kBias = (127 - (kHasInf ? 15 : 7)) << 23, kMinNormal = kBias + (1 << 23);
  static constexpr int kHalfBelow = (1 << (kShift - 1)) - 1;
  /** Added to a subnormal, it leaves the rounded mantissa in the low bits of the sum. */
  static constexpr int kMagic = kBias + ((kShift + 1) << 23);
  static constexpr int kNan = kHasInf ? 0x7e : 0x7f, kLargest = kHasInf ? 0x7c : 0x7e;
};

}  // namespace flashinfer::cpu::FLASHINFER_ISA

#if defined(__AVX512F__)
#include "cpu/isa/vec_avx512.h"
#elif defined(__AVX2__)
#include "cpu/isa/vec_avx2.h"
#elif defined(__aarch64__) && !defined(FLASHINFER_ISA_GENERIC)
#include "cpu/isa/vec_neon.h"
#else
#include "cpu/isa/vec_generic.h"
#endif
