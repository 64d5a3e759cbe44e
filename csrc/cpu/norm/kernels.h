// SPDX-License-Identifier: Apache-2.0
// The norms of one instruction set; included by norm_kernels_<isa>.cc after FLASHINFER_ISA is defined.
#pragma once
#include "cpu/isa/partial.h"
#include "cpu/norm/norm.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

/** Independent sums, so that additions overlap and each sums few terms. */
constexpr int kNormSums = 4;

/** Sum over value(offset, lanes), which gives 0 in lanes past the end. */
template <class Value>
FLASHINFER_INLINE float SumOver(int64_t count, const Value& value) {
  Vec sums[kNormSums];
  for (int k = 0; k < kNormSums; ++k) sums[k] = Zero();
  int64_t i = 0;
  for (; i + kNormSums * kLanes <= count; i += kNormSums * kLanes) {
    for (int k = 0; k < kNormSums; ++k) sums[k] = Add(sums[k], value(i + k * kLanes, int64_t{kLanes}));
  }
  for (; i < count; i += kLanes) sums[0] = Add(sums[0], value(i, count - i < kLanes ? count - i : int64_t{kLanes}));
  return Sum(Add(Add(sums[0], sums[1]), Add(sums[2], sums[3])));
}

/** The lanes below `count` of x, the rest 0. */
FLASHINFER_INLINE Vec Head(Vec x, int64_t count) {
  float lanes[kLanes];
  Store(lanes, x);
  return LoadPartial(lanes, count);
}

/** What the library does with a float that leaves a row: rounding, or scaling and saturating to fp8. */
template <class Out>
FLASHINFER_INLINE void StoreNormalized(Out* out, Vec x, int64_t count, float rcpScale) {
  if constexpr (sizeof(Out) == 1) {
    constexpr float kMax = DTypeOf<Out>::value == DType::kFloat8E4M3 ? 448.0f : 57344.0f;
    // NaN passes Max and Min as their second argument.
    x = Min(Set1(kMax), Max(Set1(-kMax), Mul(x, Set1(rcpScale))));
  }
  StoreLanes(out, x, count);
}

template <bool kLayer, bool kAdd, class T, class Weight, class Out>
FLASHINFER_INLINE void NormRow(const NormParams& p, const T* x, T* residual, Out* out) {
  const Weight* weight = static_cast<const Weight*>(p.weight);
  const auto input = [&](int64_t i, int64_t count) {
    const Vec value = LoadLanes(x + i, count);
    if constexpr (kAdd) return Add(value, LoadLanes(residual + i, count));
    return value;
  };
  const float rcpLength = 1.0f / static_cast<float>(p.length);
  float mean = 0.0f;
  if constexpr (kLayer) mean = SumOver(p.length, input) * rcpLength;
  const Vec center = Set1(mean);
  const float squares = SumOver(p.length, [&](int64_t i, int64_t count) {
    Vec value = input(i, count);
    if constexpr (kLayer) {
      value = Sub(value, center);
      if (count < kLanes) value = Head(value, count);
    }
    return Mul(value, value);
  });
  const Vec factor = Div(Set1(1.0f), Set1(__builtin_sqrtf(squares * rcpLength + p.eps)));
  const Vec offset = Set1(p.weightOffset);
  ForVectors(p.length, [&](int64_t i, int64_t count) {
    Vec value = input(i, count);
    if constexpr (kAdd) StoreLanes(residual + i, value, count);
    if constexpr (kLayer) value = Sub(value, center);
    value = Mul(Mul(value, factor), Add(LoadLanes(weight + i, count), offset));
    if constexpr (kLayer) value = Add(value, LoadLanes(static_cast<const Weight*>(p.bias) + i, count));
    StoreNormalized(out + i, value, count, p.rcpScale);
  });
}

template <bool kLayer, bool kAdd, class T, class Weight, class Out>
void NormRowsOf(const NormParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t token = row / p.heads, head = row % p.heads;
    const T* x = static_cast<const T*>(p.x) + token * p.xStrideN + head * p.xStrideH;
    T* residual = static_cast<T*>(p.residual) + token * p.residualStrideN + head * p.residualStrideH;
    Out* out = static_cast<Out*>(p.out) + token * p.outStrideN + head * p.outStrideH;
    NormRow<kLayer, kAdd, T, Weight, Out>(p, x, residual, out);
  }
}

/** Weights of LayerNorm, which adds no residual, are float32, those of RMSNorm are x's type. */
template <class T, class Out>
void NormRowsTo(const NormParams& p, int64_t begin, int64_t end) {
  if (p.layer) return NormRowsOf<true, false, T, float, Out>(p, begin, end);
  if (p.residual != nullptr) return NormRowsOf<false, true, T, T, Out>(p, begin, end);
  NormRowsOf<false, false, T, T, Out>(p, begin, end);
}

/** out is x's type or fp8. */
template <class T>
void NormRowsOfType(const NormParams& p, int64_t begin, int64_t end) {
  if (p.outDtype == DType::kFloat8E4M3) return NormRowsTo<T, fp8_e4m3_t>(p, begin, end);
  if (p.outDtype == DType::kFloat8E5M2) return NormRowsTo<T, fp8_e5m2_t>(p, begin, end);
  NormRowsTo<T, T>(p, begin, end);
}

inline void NormRows(const NormParams& p, int64_t begin, int64_t end) {
  switch (p.dtype) {
    case DType::kFloat16:
      return NormRowsOfType<half_t>(p, begin, end);
    case DType::kBFloat16:
      return NormRowsOfType<bfloat16_t>(p, begin, end);
    default:
      return NormRowsOfType<float>(p, begin, end);
  }
}

constexpr NormKernels kNormKernels = {NormRows};

}  // namespace flashinfer::cpu::FLASHINFER_ISA
