// SPDX-License-Identifier: Apache-2.0
// Merging states with one instruction set; included by merge_kernels_<isa>.cc after FLASHINFER_ISA is defined.
#pragma once
#include <math.h>

#include "cpu/isa/partial.h"
#include "cpu/isa/vec_math.h"
#include "cpu/merge/merge.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

/** The log-sum-exp of an empty state. */
constexpr float kNoKeys = -__builtin_inff();

/** Elements summed at a time: they and their sums stay in the first-level cache. */
constexpr int64_t kColumns = 512;

FLASHINFER_INLINE float FirstLane(Vec x) {
  float lanes[kLanes];
  Store(lanes, x);
  return lanes[0];
}

/** Where the states of one head of one row are. */
template <class T>
struct HeadStates {
  const T *v, *vOther;
  const float *s, *sOther;
  const int32_t* shifts;
  int64_t vStride, sStride, shiftStride;
  bool isPair;
  float lseFactor, slope;

  FLASHINFER_INLINE HeadStates(const MergeParams& p, int64_t n, int64_t h)
      : v(static_cast<const T*>(p.a.v) + n * p.a.vStrideN + h * p.a.vStrideH),
        vOther(static_cast<const T*>(p.b.v) + n * p.b.vStrideN + h * p.b.vStrideH),
        s(p.a.s + n * p.a.sStrideN + h * p.a.sStrideH),
        sOther(p.b.s + n * p.b.sStrideN + h * p.b.sStrideH),
        shifts(p.shifts == nullptr ? nullptr : p.shifts + n),
        vStride(p.vStrideI),
        sStride(p.sStrideI),
        shiftStride(p.shiftStrideI),
        isPair(p.isPair),
        lseFactor(p.lseInFactor),
        slope(p.shifts == nullptr ? 0.0f : p.slopes[h] * 1.4426950408889634f) {}

  FLASHINFER_INLINE float Lse(int64_t i) const {
    if (isPair) return (i == 0 ? *s : *sOther) * lseFactor;
    const float own = s[i * sStride] * lseFactor;
    return shifts == nullptr ? own : own + slope * static_cast<float>(shifts[i * shiftStride]);
  }
  FLASHINFER_INLINE const T* Values(int64_t i) const { return isPair ? (i == 0 ? v : vOther) : v + i * vStride; }
};

/** out[begin, begin + count) of one head; returns the sum of the weights. An empty state's values count as 0. */
template <class T>
float MergeColumns(const HeadStates<T>& states, int64_t numStates, float top, int64_t begin, int64_t count, T* out) {
  alignas(64) float sums[kColumns];
  ForVectors(count, [&](int64_t d, int64_t lanes) { StoreLanes(sums + d, Zero(), lanes); });
  float total = 0.0f;
  for (int64_t i = 0; i < numStates; ++i) {
    const float lse = states.Lse(i);
    if (lse == kNoKeys) continue;
    const Vec weight = Exp2(Set1(lse - top));
    total += FirstLane(weight);
    const T* v = states.Values(i) + begin;
    ForVectors(count, [&](int64_t d, int64_t lanes) {
      StoreLanes(sums + d, Fma(weight, LoadLanes(v + d, lanes), LoadLanes(sums + d, lanes)), lanes);
    });
  }
  const Vec factor = Set1(total == 0.0f ? 0.0f : 1.0f / total);
  ForVectors(count, [&](int64_t d, int64_t lanes) {
    StoreLanes(out + begin + d, Mul(LoadLanes(sums + d, lanes), factor), lanes);
  });
  return total;
}

template <class T>
void MergeHead(const MergeParams& p, int64_t n, int64_t h) {
  const HeadStates<T> states(p, n, h);
  float top = kNoKeys;
  for (int64_t i = 0; i < p.numStates; ++i) {
    const float lse = states.Lse(i);
    if (top == top && !(lse <= top)) top = lse;  // NaN comes in, and stays
  }
  T* out = static_cast<T*>(p.out) + n * p.outStrideN + h * p.outStrideH;
  float total = 0.0f;
  for (int64_t begin = 0; begin < p.length; begin += kColumns) {
    const int64_t count = p.length - begin < kColumns ? p.length - begin : kColumns;
    total = MergeColumns(states, p.numStates, top, begin, count, out);
  }
  if (p.lse == nullptr) return;
  p.lse[n * p.lseStrideN + h * p.lseStrideH] = top == kNoKeys ? top : (top + log2f(total)) * p.lseOutFactor;
}

inline void Heads(const MergeParams& p, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = item / p.heads, h = item % p.heads;
    if (p.mask != nullptr && p.mask[n] == 0) continue;
    switch (p.dtype) {
      case DType::kFloat16:
        MergeHead<half_t>(p, n, h);
        break;
      case DType::kBFloat16:
        MergeHead<bfloat16_t>(p, n, h);
        break;
      default:
        MergeHead<float>(p, n, h);
    }
  }
}

constexpr MergeKernels kMergeKernels = {Heads};

}  // namespace flashinfer::cpu::FLASHINFER_ISA
