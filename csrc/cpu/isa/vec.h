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

/** Vectors round to an fp8 type as flashinfer::detail::encode does. */
template <class T>
struct Fp8Rounding;
template <>
struct Fp8Rounding<fp8_e4m3_t> : flashinfer::detail::Rounding<4, 3, false> {};
template <>
struct Fp8Rounding<fp8_e5m2_t> : flashinfer::detail::Rounding<5, 2, true> {};

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
