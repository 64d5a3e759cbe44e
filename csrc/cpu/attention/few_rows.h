// SPDX-License-Identifier: Apache-2.0
// Decoding: up to kMaxFewRows query rows of one kv head, vectorised along the head dimension, so that every row of K
// and V is read from memory once and straight from its dtype. Compiled once an instruction set.
#pragma once
#include "cpu/attention/finish.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

/** Accumulators in flight: two FMA units with four cycles each need eight; more hides loads where registers allow. */
constexpr int kAccumulators = kRegisters == 32 ? 16 : 8;

struct FewRowsScratch {
  float* q;       // [rows, qStride], zero beyond headDimQk
  float* out;     // [rows, outStride]
  float* logits;  // [rows, kKvBlock]
  float* kBlock;  // [kKvBlock, headDimQk] and
  float* vBlock;  // [kKvBlock, headDimVo], for rows that are converted first
  float* row;     // one row
  int qStride;
  int outStride;

  FLASHINFER_INLINE FewRowsScratch(const AttentionParams& params, Arena& arena) {
    qStride = static_cast<int>(RoundUp(params.headDimQk, kLanes));
    outStride = static_cast<int>(RoundUp(params.headDimVo, kLanes));
    q = arena.Take<float>(kMaxFewRows * qStride);
    out = arena.Take<float>(kMaxFewRows * outStride);
    logits = arena.Take<float>(kMaxFewRows * kKvBlock);
    kBlock = arena.Take<float>(kKvBlock * params.headDimQk);
    vBlock = arena.Take<float>(kKvBlock * params.headDimVo);
    row = arena.Take<float>(outStride);
  }
};

/** Dot products of kRows queries with kKeys keys; `length` is a multiple of 8. */
template <class T, int kRows, int kKeys>
FLASHINFER_INLINE void DotRows(const float* q, int qStride, const uint8_t* const* rows, int length, float* logits) {
  Vec acc[kRows * kKeys];
  for (Vec& sum : acc) sum = Zero();
  const T* k[kKeys];
  for (int n = 0; n < kKeys; ++n) {
    k[n] = reinterpret_cast<const T*>(rows[n]);
    PrefetchRow(rows[n + kRowsAhead], length * static_cast<int>(sizeof(T)));
  }
  int d = 0;
  for (; d + kLanes <= length; d += kLanes) {
    Vec key[kKeys];
    for (int n = 0; n < kKeys; ++n) key[n] = Load(k[n] + d);
    for (int r = 0; r < kRows; ++r) {
      const Vec query = Load(q + r * qStride + d);
      for (int n = 0; n < kKeys; ++n) acc[r * kKeys + n] = Fma(query, key[n], acc[r * kKeys + n]);
    }
  }
  if (kLanes > 8 && d < length) {
    for (int n = 0; n < kKeys; ++n) {
      const Vec key = LoadHead(k[n] + d);
      for (int r = 0; r < kRows; ++r) acc[r * kKeys + n] = Fma(Load(q + r * qStride + d), key, acc[r * kKeys + n]);
    }
  }
  float sums[kRows * kKeys];
  StoreSums(acc, sums);
  for (int r = 0; r < kRows; ++r) memcpy(logits + r * kKvBlock, sums + r * kKeys, sizeof(float) * kKeys);
}

/**
 * out[r] = out[r] * alpha[r] + sum over keys of p[r][n] * v[n], for kVecs vectors from dimension d. The call for the
 * first dimensions prefetches whole rows, of prefetchBytes.
 */
template <class T, int kRows, int kVecs, bool kHead>
FLASHINFER_INLINE void AddRows(const uint8_t* const* rows, int count, int d, int prefetchBytes, const float* p,
                               const float* alpha, float* out, int outStride) {
  Vec acc[kRows][kVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVecs; ++c) acc[r][c] = Mul(Load(out + r * outStride + d + c * kLanes), Set1(alpha[r]));
  }
  for (int n = 0; n < count; ++n) {
    const T* v = reinterpret_cast<const T*>(rows[n]) + d;
    if (d == 0) PrefetchRow(rows[n + kRowsAhead], prefetchBytes);
    Vec value[kVecs];
    for (int c = 0; c < kVecs; ++c) value[c] = kHead ? LoadHead(v + c * kLanes) : Load(v + c * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = Set1(p[r * kKvBlock + n]);
      for (int c = 0; c < kVecs; ++c) acc[r][c] = Fma(weight, value[c], acc[r][c]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVecs; ++c) Store(out + r * outStride + d + c * kLanes, acc[r][c]);
  }
}

/** As AddRows, but a key of weight 0 adds nothing even where its value is NaN or infinite: it was masked. */
inline void AddRowsGuarded(const AttentionParams& params, const RowPointers& rows, int count, int numRows,
                           const float* p, const float* alpha, const FewRowsScratch& scratch) {
  for (int r = 0; r < numRows; ++r) {
    float* out = scratch.out + r * scratch.outStride;
    for (int d = 0; d < params.headDimVo; ++d) out[d] *= alpha[r];
  }
  for (int n = 0; n < count; ++n) {
    ConvertRow(params.kvDtype, rows[n], scratch.row, params.headDimVo);
    for (int r = 0; r < numRows; ++r) {
      const float weight = p[r * kKvBlock + n];
      if (weight == 0.0f) continue;
      float* out = scratch.out + r * scratch.outStride;
      for (int d = 0; d < params.headDimVo; ++d) out[d] += weight * scratch.row[d];
    }
  }
}

/** What the softmax of one row keeps between blocks, and the row's place. */
struct FewRowsState {
  int64_t i[kMaxFewRows];
  float slope[kMaxFewRows];
  int64_t begin[kMaxFewRows];
  int64_t end[kMaxFewRows];
  float max[kMaxFewRows];
  float sum[kMaxFewRows];
  float alpha[kMaxFewRows];
};

FLASHINFER_INLINE Vec KeyIndices(int n) {
  float lanes[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = static_cast<float>(n + lane);
  return Load(lanes);
}

/** Base-2 logits of one row in place, -inf where masked; returns whether a key was masked. */
inline bool LogitsRow(const AttentionParams& params, const LogitRule& rule, int64_t keyBegin, int count, int r,
                      const FewRowsState& state, float* logits) {
  const int begin = static_cast<int>(Most(0, Least(state.begin[r] - keyBegin, count)));
  const int end = static_cast<int>(Most(0, Least(state.end[r] - keyBegin, count)));
  const Vec first = Set1(static_cast<float>(begin));
  const Vec last = Set1(static_cast<float>(end));
  const Vec distance = Set1(static_cast<float>(keyBegin - state.i[r]));
  for (int n = 0; n < count; n += kLanes) {
    const Vec index = KeyIndices(n);
    const Vec s = Load(logits + n);
    const Vec logit =
        rule.Plain() ? Mul(s, Set1(rule.plainScale)) : rule.Apply(s, Mul(Set1(state.slope[r]), Add(distance, index)));
    Store(logits + n, KeepRange(logit, index, first, last));
  }
  bool masked = begin > 0 || end < count;
  if (params.maskMode == MaskMode::kCustom) {
    const uint64_t bits = MaskBits(params.customMask, state.i[r] * params.kvLen + keyBegin, count);
    for (int n = 0; n < count; ++n) {
      if ((bits >> n & 1) != 0) continue;
      logits[n] = -kInfinity;
      masked = true;
    }
  }
  return masked;
}

/** Turns one row of logits (whole vectors) into weights and moves the row's maximum and sum. */
inline void SoftmaxRow(int count, int r, float* logits, FewRowsState& state) {
  Vec max = Set1(state.max[r]);
  for (int n = 0; n < count; n += kLanes) max = Max(Load(logits + n), max);
  const float newMax = MaxLane(max);
  const float shift = newMax == -kInfinity ? 0.0f : newMax;
  Vec sum = Zero();
  for (int n = 0; n < count; n += kLanes) {
    const Vec p = Exp2(Sub(Load(logits + n), Set1(shift)));
    Store(logits + n, p);
    sum = Add(sum, p);
  }
  state.alpha[r] = Exp2Scalar(state.max[r] - shift);
  state.sum[r] = state.sum[r] * state.alpha[r] + Sum(sum);
  state.max[r] = newMax;
}

template <class T, int kRows>
void FewRowsBlocks(const AttentionParams& params, const AttentionTile& tile, bool convert, FewRowsState& state,
                   const FewRowsScratch& scratch) {
  constexpr int kKeys = kAccumulators / kRows < 8 ? kAccumulators / kRows : 8;
  constexpr int kVecs = kKeys;
  const LogitRule rule(params);
  const bool rope = params.posEncodingMode == PosEncodingMode::kRopeLlama;
  RowPointers kRowsOf, vRowsOf;
  for (int64_t begin = tile.kvBegin; begin < tile.kvEnd; begin += kKvBlock) {
    const int count = static_cast<int>(Least(kKvBlock, tile.kvEnd - begin));
    FindRows(params.k, tile.kvHead, begin, tile.kvEnd, kRowsOf);
    FindRows(params.v, tile.kvHead, begin, tile.kvEnd, vRowsOf);
    if (convert) {
      ConvertRows(params, rope ? begin : -1, count, params.headDimQk, scratch.kBlock, kRowsOf);
      ConvertRows(params, -1, count, params.headDimVo, scratch.vBlock, vRowsOf);
    }
    for (int n = 0; n < count; n += kKeys) {
      DotRows<T, kRows, kKeys>(scratch.q, scratch.qStride, kRowsOf + n, params.headDimQk, scratch.logits + n);
    }
    bool masked = false;
    for (int r = 0; r < tile.rowCount; ++r) {
      float* logits = scratch.logits + r * kKvBlock;
      masked |= LogitsRow(params, rule, begin, count, r, state, logits);
      SoftmaxRow(count, r, logits, state);
    }
    if (masked) {
      RowPointers original;
      FindRows(params.v, tile.kvHead, begin, tile.kvEnd, original);
      if (AnyNonFinite(params, original, count, params.headDimVo, scratch.row)) {
        AddRowsGuarded(params, original, count, tile.rowCount, scratch.logits, state.alpha, scratch);
        continue;
      }
    }
    const int rowBytes = params.headDimVo * static_cast<int>(sizeof(T));
    int d = 0;
    for (; d + kVecs * kLanes <= params.headDimVo; d += kVecs * kLanes) {
      AddRows<T, kRows, kVecs, false>(vRowsOf, count, d, rowBytes, scratch.logits, state.alpha, scratch.out,
                                      scratch.outStride);
    }
    for (; d + kLanes <= params.headDimVo; d += kLanes) {
      AddRows<T, kRows, 1, false>(vRowsOf, count, d, rowBytes, scratch.logits, state.alpha, scratch.out,
                                  scratch.outStride);
    }
    if (kLanes > 8 && d < params.headDimVo) {
      AddRows<T, kRows, 1, true>(vRowsOf, count, d, rowBytes, scratch.logits, state.alpha, scratch.out,
                                 scratch.outStride);
    }
  }
}

template <class T>
FLASHINFER_INLINE void FewRowsOf(const AttentionParams& params, const AttentionTile& tile, bool convert,
                                 FewRowsState& state, const FewRowsScratch& scratch) {
  if (tile.rowCount == 1) return FewRowsBlocks<T, 1>(params, tile, convert, state, scratch);
  if (tile.rowCount == 2) return FewRowsBlocks<T, 2>(params, tile, convert, state, scratch);
  if (tile.rowCount <= 4) return FewRowsBlocks<T, 4>(params, tile, convert, state, scratch);
  return FewRowsBlocks<T, 8>(params, tile, convert, state, scratch);
}

inline void RunFewRows(const AttentionParams& params, const AttentionTile& tile, const PartialState* partial,
                       const FewRowsScratch& scratch) {
  FewRowsState state;
  memset(scratch.q, 0, sizeof(float) * kMaxFewRows * scratch.qStride);
  memset(scratch.out, 0, sizeof(float) * kMaxFewRows * scratch.outStride);
  memset(scratch.logits, 0, sizeof(float) * kMaxFewRows * kKvBlock);
  for (int r = 0; r < kMaxFewRows; ++r) {
    const int64_t row = tile.rowBegin + r;
    state.max[r] = -kInfinity;
    state.sum[r] = 0.0f;
    state.alpha[r] = 0.0f;
    if (r >= tile.rowCount) continue;
    LoadQueryRow(params, tile.kvHead, row, scratch.q + r * scratch.qStride);
    state.i[r] = row / params.groupSize;
    state.begin[r] = params.VisibleBegin(state.i[r]);
    state.end[r] = params.VisibleEnd(state.i[r]);
    const bool alibi = params.posEncodingMode == PosEncodingMode::kAlibi;
    state.slope[r] = alibi ? params.alibiSlopes[tile.kvHead * params.groupSize + row % params.groupSize] : 0.0f;
  }
  const bool convert = params.posEncodingMode == PosEncodingMode::kRopeLlama;
  if (convert || params.kvDtype == DType::kFloat32) {
    FewRowsOf<float>(params, tile, convert, state, scratch);
  } else if (params.kvDtype == DType::kFloat16) {
    FewRowsOf<half_t>(params, tile, false, state, scratch);
  } else if (params.kvDtype == DType::kBFloat16) {
    FewRowsOf<bfloat16_t>(params, tile, false, state, scratch);
  } else if (params.kvDtype == DType::kFloat8E4M3) {
    FewRowsOf<fp8_e4m3_t>(params, tile, false, state, scratch);
  } else {
    FewRowsOf<fp8_e5m2_t>(params, tile, false, state, scratch);
  }
  for (int r = 0; r < tile.rowCount; ++r) {
    EmitRow(params, tile, partial, r, scratch.out + r * scratch.outStride, state.max[r], state.sum[r]);
  }
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
