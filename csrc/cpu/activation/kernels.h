// SPDX-License-Identifier: Apache-2.0
// The gated activations of one instruction set; included by activation_kernels_<isa>.cc after FLASHINFER_ISA is defined.
#pragma once
#include "cpu/activation/activation.h"
#include "cpu/isa/partial.h"
#include "cpu/isa/vec_math.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

/** x / (1 + e^-u): e^-|u| only, which cannot overflow. */
FLASHINFER_INLINE Vec TimesSigmoid(Vec x, Vec u) {
  const Vec e = Exp2(Mul(Abs(u), Set1(-1.4426950408889634f)));
  const Vec s = Div(Set1(1.0f), Add(Set1(1.0f), e));
  return Mul(x, Select(Less(u, Zero()), Mul(e, s), s));
}

struct Silu {
  static FLASHINFER_INLINE Vec Apply(Vec x) { return TimesSigmoid(x, x); }
};

/** x Φ(x); include/flashinfer/activation.cuh says where the polynomial comes from. */
struct Gelu {
  static FLASHINFER_INLINE Vec Apply(Vec x) {
    // At the bound the exponential is 0; beyond it infinity would meet 0. NaN passes Min as its second argument.
    const Vec a = Min(Set1(20.0f), Abs(x));
    const Vec t = Div(Set1(1.0f), Fma(Set1(0.31f), a, Set1(1.0f)));
    Vec p = Fma(Set1(0.035840824246406555f), t, Set1(-0.14160092175006866f));
    p = Fma(p, t, Set1(0.15506163239479065f));
    p = Fma(p, t, Set1(-0.014897680841386318f));
    p = Fma(p, t, Set1(0.11010709404945374f));
    p = Fma(p, t, Set1(0.10777202993631363f));
    p = Fma(p, t, Set1(0.12406018376350403f));
    p = Fma(p, t, Set1(0.12365692108869553f));
    const Vec tail = Mul(Mul(p, t), Exp2(Mul(Mul(a, a), Set1(-0.72134752044448170f))));
    return Mul(x, Select(Less(Zero(), x), Sub(Set1(1.0f), tail), tail));
  }
};

struct GeluTanh {
  static FLASHINFER_INLINE Vec Apply(Vec x) {
    const Vec u = Mul(Mul(Set1(1.5957691216057308f), x), Fma(Mul(Set1(0.044715f), x), x, Set1(1.0f)));
    return TimesSigmoid(x, u);
  }
};

template <class Activation, class T>
void ColumnsOf(const ActivationParams& params, int64_t row, int64_t begin, int64_t end) {
  const T* gate = static_cast<const T*>(params.x) + row * params.xStride + begin;
  const T* up = gate + params.length;
  T* out = static_cast<T*>(params.out) + row * params.outStride + begin;
  ForVectors(end - begin, [&](int64_t i, int64_t count) {
    const Vec x = LoadLanes(gate + i, count);
    StoreLanes(out + i, Mul(Activation::Apply(x), LoadLanes(up + i, count)), count);
  });
}

template <class Activation>
void ColumnsOfType(const ActivationParams& params, int64_t row, int64_t begin, int64_t end) {
  switch (params.dtype) {
    case DType::kFloat16:
      return ColumnsOf<Activation, half_t>(params, row, begin, end);
    case DType::kBFloat16:
      return ColumnsOf<Activation, bfloat16_t>(params, row, begin, end);
    default:
      return ColumnsOf<Activation, float>(params, row, begin, end);
  }
}

inline void Columns(const ActivationParams& params, int64_t row, int64_t begin, int64_t end) {
  switch (params.kind) {
    case ActivationKind::kSilu:
      return ColumnsOfType<Silu>(params, row, begin, end);
    case ActivationKind::kGelu:
      return ColumnsOfType<Gelu>(params, row, begin, end);
    default:
      return ColumnsOfType<GeluTanh>(params, row, begin, end);
  }
}

constexpr ActivationKernels kActivationKernels = {Columns};

}  // namespace flashinfer::cpu::FLASHINFER_ISA
