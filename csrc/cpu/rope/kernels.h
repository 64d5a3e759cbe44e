// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings of one instruction set; included by rope_kernels_<isa>.cc after FLASHINFER_ISA is defined.
#pragma once
#include <limits>

#include "cpu/isa/partial.h"
#include "cpu/rope/rope.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

/** cos and sin of a token's pairs, in the order of the pairs. */
struct RopeRow {
  alignas(64) float cosine[kMaxRopePairs];
  alignas(64) float sine[kMaxRopePairs];
};

/**
 * sin and cos of 2πr for r in [-0.5, 0.5], absolute error 2e-7: polynomials of πr, fitted in float64 for the least
 * absolute error, and the double angle.
 */
FLASHINFER_INLINE void SinCosTurns(Vec r, Vec* s, Vec* c) {
  const Vec u = Mul(r, r);
  Vec p = Fma(Set1(0.07765956223011017f), u, Set1(-0.5982922315597534f));
  p = Fma(p, u, Set1(2.5500776767730713f));
  p = Fma(p, u, Set1(-5.167710304260254f));
  p = Fma(p, u, Set1(3.1415927410125732f));
  const Vec half_sine = Mul(p, r);
  Vec q = Fma(Set1(-0.024396726861596107f), u, Set1(0.23493756353855133f));
  q = Fma(q, u, Set1(-1.3352121114730835f));
  q = Fma(q, u, Set1(4.058709144592285f));
  q = Fma(q, u, Set1(-4.934802055358887f));
  q = Fma(q, u, Set1(1.0f));
  const Vec twice = Add(half_sine, half_sine);
  *s = Mul(twice, q);
  *c = Sub(Set1(1.0f), Mul(twice, half_sine));
}

inline void FillFromFrequencies(const RopeParams& params, int64_t position, RopeRow& row) {
  const int64_t pairs = params.rotaryDim / 2;
  for (int64_t d = 0; d < pairs; ++d) {
    const double turns = static_cast<double>(position) * params.frequencies[d];
    // Adding and taking off 1.5 * 2^52 rounds to an integer.
    row.sine[d] = static_cast<float>(turns - ((turns + 6755399441055744.0) - 6755399441055744.0));
  }
  ForVectors(pairs, [&](int64_t i, int64_t count) {
    Vec s, c;
    SinCosTurns(LoadLanes(row.sine + i, count), &s, &c);
    StoreLanes(row.sine + i, s, count);
    StoreLanes(row.cosine + i, c, count);
  });
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

inline void FillFromCache(const RopeParams& params, int64_t position, RopeRow& row) {
  const int64_t pairs = params.rotaryDim / 2;
  const bool known = position >= 0 && position < params.cacheRows;
  const float* cached = params.cache + (known ? position : 0) * params.cacheStride;
  for (int64_t d = 0; d < pairs; ++d) {
    row.cosine[d] = known ? cached[d] : kNan;
    row.sine[d] = known ? cached[pairs + d] : kNan;
  }
}

template <class T>
FLASHINFER_INLINE void RotateHalves(const T* x, T* out, int64_t pairs, const RopeRow& row) {
  ForVectors(pairs, [&](int64_t i, int64_t count) {
    const Vec a = LoadLanes(x + i, count), b = LoadLanes(x + pairs + i, count);
    const Vec c = LoadLanes(row.cosine + i, count), s = LoadLanes(row.sine + i, count);
    StoreLanes(out + i, Sub(Mul(a, c), Mul(b, s)), count);
    StoreLanes(out + pairs + i, Add(Mul(b, c), Mul(a, s)), count);
  });
}

template <class T>
FLASHINFER_INLINE void RotateInterleaved(const T* x, T* out, int64_t pairs, const RopeRow& row) {
  // Two vectors at a time through memory, where the compiler pairs neighbours as the instruction set does best.
  ForVectors(pairs, [&](int64_t i, int64_t count) {
    const int64_t firstCount = 2 * count < kLanes ? 2 * count : int64_t{kLanes}, secondCount = 2 * count - firstCount;
    float values[2 * kLanes];
    Store(values, LoadLanes(x + 2 * i, firstCount));
    Store(values + kLanes, LoadLanes(x + 2 * i + firstCount, secondCount));
    float rotated[2 * kLanes] = {};
    for (int64_t j = 0; j < count; ++j) {
      const float a = values[2 * j], b = values[2 * j + 1], c = row.cosine[i + j], s = row.sine[i + j];
      rotated[2 * j] = a * c - b * s;
      rotated[2 * j + 1] = b * c + a * s;
    }
    StoreLanes(out + 2 * i, Load(rotated), firstCount);
    StoreLanes(out + 2 * i + firstCount, Load(rotated + kLanes), secondCount);
  });
}

template <class T>
void RotateHeads(const RopeParams& params, const RopeHeads& x, int64_t token, const RopeRow& row) {
  const int64_t pairs = params.rotaryDim / 2;
  for (int64_t head = 0; head < x.heads; ++head) {
    const T* from = static_cast<const T*>(x.from) + token * x.strideN + head * x.strideH;
    T* to = static_cast<T*>(x.to) + token * x.outStrideN + head * x.outStrideH;
    if (params.interleave) {
      RotateInterleaved(from, to, pairs, row);
    } else {
      RotateHalves(from, to, pairs, row);
    }
    if (from == to) continue;
    for (int64_t d = params.rotaryDim; d < params.headDim; ++d) to[d] = from[d];
  }
}

template <class T>
void RotateToken(const RopeParams& params, int64_t token, int64_t position) {
  RopeRow row;
  if (params.cache != nullptr) {
    FillFromCache(params, position, row);
  } else {
    FillFromFrequencies(params, position, row);
  }
  RotateHeads<T>(params, params.q, token, row);
  RotateHeads<T>(params, params.k, token, row);
}

inline void RopeToken(const RopeParams& params, int64_t token, int64_t position) {
  switch (params.dtype) {
    case DType::kFloat16:
      return RotateToken<half_t>(params, token, position);
    case DType::kBFloat16:
      return RotateToken<bfloat16_t>(params, token, position);
    default:
      return RotateToken<float>(params, token, position);
  }
}

constexpr RopeKernels kRopeKernels = {RopeToken};

}  // namespace flashinfer::cpu::FLASHINFER_ISA
