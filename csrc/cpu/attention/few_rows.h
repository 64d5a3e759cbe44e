// SPDX-License-Identifier: Apache-2.0
// Decoding: up to kMaxFewRows query rows of one kv head, vectorised along the head dimension, so that every row of K
// and V is read from memory once and straight from its dtype. Compiled once an instruction set.
#pragma once
#include "cpu/attention/finish.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

/** Accumulators in flight: two FMA units with four cycles each need eight; more hides loads where registers allow. */
constexpr int kAccumulators = kRegisters == 32 ? 16 : 8;

struct FewRowsScratch {
  float* q;       // [headCount, rows, qStride], zero beyond headDimQk
  float* out;     // [headCount, rows, outStride]
  float* logits;  // [rows, kKvBlock]
  float* kBlock;  // [kKvBlock, headDimQk] and
  float* vBlock;  // [kKvBlock, headDimVo], for rows that are converted first
  float* row;     // one row
  int rows;       // as many as the kernel for rowCount rows touches
  int qStride;
  int outStride;

  FLASHINFER_INLINE FewRowsScratch(const AttentionParams& params, const AttentionTile& tile, Arena& arena) {
    rows = tile.rowCount <= 2 ? tile.rowCount : tile.rowCount <= 4 ? 4 : kMaxFewRows;
    qStride = static_cast<int>(RoundUp(params.headDimQk, kLanes));
    outStride = static_cast<int>(RoundUp(params.headDimVo, kLanes));
    q = arena.Take<float>(int64_t{tile.headCount} * rows * qStride);
    out = arena.Take<float>(int64_t{tile.headCount} * rows * outStride);
    logits = arena.Take<float>(kMaxFewRows * kKvBlock);
    kBlock = arena.Take<float>(kKvBlock * params.headDimQk);
    vBlock = arena.Take<float>(kKvBlock * params.headDimVo);
    row = arena.Take<float>(outStride);
  }
  FLASHINFER_INLINE float* Q(int h) const { return q + static_cast<int64_t>(h) * rows * qStride; }
  FLASHINFER_INLINE float* Out(int h) const { return out + static_cast<int64_t>(h) * rows * outStride; }
};

/** Dot products of kRows queries with kKeys keys, `offset` bytes into their rows; `length` is a multiple of 8. */
template <class T, int kRows, int kKeys>
FLASHINFER_INLINE void DotRows(const float* q, int qStride, const uint8_t* const* rows, int64_t offset, int length,
                               HeadPrefetch& prefetch, float* logits) {
  Vec acc[kRows * kKeys];
  for (Vec& sum : acc) sum = Zero();
  const T* k[kKeys];
  for (int n = 0; n < kKeys; ++n) {
    k[n] = reinterpret_cast<const T*>(rows[n] + offset);
  }
  int d = 0;
  for (; d + kLanes <= length; d += kLanes) {
    prefetch.Advance<kKeys * kLanes* static_cast<int>(sizeof(T))>(d / kLanes);
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
 * out[r] = out[r] * alpha[r] + sum over keys of p[r][n] * v[n], for kVecs vectors from dimension d of values `offset`
 * bytes into their rows. It prefetches as much as it reads.
 */
template <class T, int kRows, int kVecs, bool kHead>
FLASHINFER_INLINE void AddRows(const uint8_t* const* rows, int64_t offset, int count, int d, HeadPrefetch& prefetch,
                               const float* p, const float* alpha, float* out, int outStride) {
  Vec acc[kRows][kVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVecs; ++c) acc[r][c] = Mul(Load(out + r * outStride + d + c * kLanes), Set1(alpha[r]));
  }
  for (int n = 0; n < count; ++n) {
    const T* v = reinterpret_cast<const T*>(rows[n] + offset) + d;
    prefetch.Advance<kVecs * kLanes* static_cast<int>(sizeof(T))>(n);
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
                           const float* p, const float* alpha, float* out, const FewRowsScratch& scratch) {
  for (int r = 0; r < numRows; ++r) {
    for (int d = 0; d < params.headDimVo; ++d) out[r * scratch.outStride + d] *= alpha[r];
  }
  for (int n = 0; n < count; ++n) {
    ConvertRow(params.kvDtype, rows[n], scratch.row, params.headDimVo);
    for (int r = 0; r < numRows; ++r) {
      const float weight = p[r * kKvBlock + n];
      if (weight == 0.0f) continue;
      float* dst = out + r * scratch.outStride;
      for (int d = 0; d < params.headDimVo; ++d) dst[d] += weight * scratch.row[d];
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
inline bool LogitsRow(const AttentionParams& params, const LogitRule& rule, int32_t kvHead, int64_t packedRow,
                      int64_t keyBegin, int count, int r, const FewRowsState& state, float* logits) {
  const int begin = static_cast<int>(Most(0, Least(state.begin[r] - keyBegin, count)));
  const int end = static_cast<int>(Most(0, Least(state.end[r] - keyBegin, count)));
  if (rule.custom) {
    // The softmax takes whole vectors.
    for (int n = count; n % kLanes != 0; ++n) logits[n] = -kInfinity;
    return VariantLogits(params, kvHead, packedRow, keyBegin, count, begin, end, logits);
  }
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

/** Keys of a block: with several heads, K and V of this block and of the next one, prefetched, shall fit in L2. */
FLASHINFER_INLINE int FewRowsBlockKeys(const AttentionParams& params, const AttentionTile& tile) {
  constexpr int64_t kBlockBytes = 64 * 1024;
  if (tile.headCount == 1) return kKvBlock;
  const int64_t keyBytes = tile.headCount * Most(params.k.headStride, params.v.headStride);
  return static_cast<int>(Most(16, Least(kKvBlock, kBlockBytes / keyBytes / 16 * 16)));
}

/** Rows of one block of keys from the tile's first head on, and what to prefetch meanwhile. */
struct FewRowsBlock {
  int64_t begin;
  int count;
  const uint8_t* const* k;
  const uint8_t* const* v;
  HeadPrefetch kPrefetch;
  HeadPrefetch vPrefetch;
};

/** One block of keys for head h of the tile. */
template <class T, int kRows>
void FewRowsHead(const AttentionParams& params, const AttentionTile& tile, const LogitRule& rule, int h,
                 FewRowsBlock& block, FewRowsState& state, const FewRowsScratch& scratch) {
  constexpr int kKeys = kAccumulators / kRows < 8 ? kAccumulators / kRows : 8;
  constexpr int kVecs = kKeys;
  const int count = block.count;
  const float* q = scratch.Q(h);
  float* out = scratch.Out(h);
  const int64_t kOffset = h * params.k.headStride;
  const int64_t vOffset = h * params.v.headStride;
  for (int n = 0; n < count; n += kKeys) {
    DotRows<T, kRows, kKeys>(q, scratch.qStride, block.k + n, kOffset, params.headDimQk, block.kPrefetch,
                             scratch.logits + n);
  }
  bool masked = false;
  for (int r = 0; r < tile.rowCount; ++r) {
    float* logits = scratch.logits + r * kKvBlock;
    masked |= LogitsRow(params, rule, tile.kvHead + h, tile.rowBegin + r, block.begin, count, r, state, logits);
    if (params.UsesSoftmax()) SoftmaxRow(count, r, logits, state);
  }
  if (masked) {
    RowPointers original;
    FindRows(params.v, tile.kvHead + h, block.begin, tile.kvEnd, original);
    if (AnyNonFinite(params, original, count, params.headDimVo, scratch.row)) {
      return AddRowsGuarded(params, original, count, tile.rowCount, scratch.logits, state.alpha, out, scratch);
    }
  }
  int d = 0;
  for (; d + kVecs * kLanes <= params.headDimVo; d += kVecs * kLanes) {
    AddRows<T, kRows, kVecs, false>(block.v, vOffset, count, d, block.vPrefetch, scratch.logits, state.alpha, out,
                                    scratch.outStride);
  }
  for (; d + kLanes <= params.headDimVo; d += kLanes) {
    AddRows<T, kRows, 1, false>(block.v, vOffset, count, d, block.vPrefetch, scratch.logits, state.alpha, out,
                                scratch.outStride);
  }
  if (kLanes > 8 && d < params.headDimVo) {
    AddRows<T, kRows, 1, true>(block.v, vOffset, count, d, block.vPrefetch, scratch.logits, state.alpha, out,
                               scratch.outStride);
  }
}

template <class T, int kRows>
void FewRowsBlocks(const AttentionParams& params, const AttentionTile& tile, bool convert, FewRowsState* states,
                   const FewRowsScratch& scratch) {
  const LogitRule rule(params);
  const bool rope = params.posEncodingMode == PosEncodingMode::kRopeLlama;
  const int blockKeys = FewRowsBlockKeys(params, tile);
  const int kBytes = params.headDimQk * static_cast<int>(sizeof(T));
  const int vBytes = params.headDimVo * static_cast<int>(sizeof(T));
  RowPointers k, v;
  for (int64_t begin = tile.kvBegin; begin < tile.kvEnd; begin += blockKeys) {
    const int count = static_cast<int>(Least(blockKeys, tile.kvEnd - begin));
    FindRows(params.k, tile.kvHead, begin, tile.kvEnd, k);
    FindRows(params.v, tile.kvHead, begin, tile.kvEnd, v);
    if (convert) {
      ConvertRows(params, rope ? begin : -1, count, params.headDimQk, scratch.kBlock, k);
      ConvertRows(params, -1, count, params.headDimVo, scratch.vBlock, v);
    }
    // Several heads of a block prefetch all heads of the next one; a single head its rows a little further on.
    const int ahead = tile.headCount > 1 ? count : kRowsAhead;
    FewRowsBlock block = {begin,
                          count,
                          k,
                          v,
                          HeadPrefetch(k + ahead, params.k.headStride, tile.headCount, kBytes),
                          HeadPrefetch(v + ahead, params.v.headStride, tile.headCount, vBytes)};
    for (int h = 0; h < tile.headCount; ++h) {
      FewRowsHead<T, kRows>(params, tile, rule, h, block, states[h], scratch);
    }
  }
}

template <class T>
FLASHINFER_INLINE void FewRowsOf(const AttentionParams& params, const AttentionTile& tile, bool convert,
                                 FewRowsState* states, const FewRowsScratch& scratch) {
  if (tile.rowCount == 1) return FewRowsBlocks<T, 1>(params, tile, convert, states, scratch);
  if (tile.rowCount == 2) return FewRowsBlocks<T, 2>(params, tile, convert, states, scratch);
  if (tile.rowCount <= 4) return FewRowsBlocks<T, 4>(params, tile, convert, states, scratch);
  return FewRowsBlocks<T, 8>(params, tile, convert, states, scratch);
}

/** Loads the queries of head h of the tile and starts its softmax. */
inline void StartFewRows(const AttentionParams& params, const AttentionTile& tile, int h, const FewRowsScratch& scratch,
                         FewRowsState& state) {
  const int32_t kvHead = tile.kvHead + h;
  for (int r = 0; r < kMaxFewRows; ++r) {
    const int64_t row = tile.rowBegin + r;
    // Without softmax the sum stays 1 and nothing is ever rescaled.
    const bool softmax = params.UsesSoftmax();
    state.max[r] = softmax ? -kInfinity : 0.0f;
    state.sum[r] = softmax ? 0.0f : 1.0f;
    state.alpha[r] = softmax ? 0.0f : 1.0f;
    if (r >= tile.rowCount) continue;
    LoadQueryRow(params, kvHead, row, scratch.Q(h) + r * scratch.qStride);
    state.i[r] = row / params.groupSize;
    state.begin[r] = params.VisibleBegin(state.i[r]);
    state.end[r] = params.VisibleEnd(state.i[r]);
    const bool alibi = params.posEncodingMode == PosEncodingMode::kAlibi;
    state.slope[r] = alibi ? params.alibiSlopes[kvHead * params.groupSize + row % params.groupSize] : 0.0f;
  }
}

inline void RunFewRows(const AttentionParams& params, const AttentionTile& tile, const PartialState* partial,
                       const FewRowsScratch& scratch) {
  FewRowsState states[kMaxHeadGroup];
  const size_t rows = static_cast<size_t>(tile.headCount) * scratch.rows;
  memset(scratch.q, 0, sizeof(float) * rows * scratch.qStride);
  memset(scratch.out, 0, sizeof(float) * rows * scratch.outStride);
  memset(scratch.logits, 0, sizeof(float) * kMaxFewRows * kKvBlock);
  for (int h = 0; h < tile.headCount; ++h) StartFewRows(params, tile, h, scratch, states[h]);
  const bool convert = params.posEncodingMode == PosEncodingMode::kRopeLlama;
  if (convert || params.kvDtype == DType::kFloat32) {
    FewRowsOf<float>(params, tile, convert, states, scratch);
  } else if (params.kvDtype == DType::kFloat16) {
    FewRowsOf<half_t>(params, tile, false, states, scratch);
  } else if (params.kvDtype == DType::kBFloat16) {
    FewRowsOf<bfloat16_t>(params, tile, false, states, scratch);
  } else if (params.kvDtype == DType::kFloat8E4M3) {
    FewRowsOf<fp8_e4m3_t>(params, tile, false, states, scratch);
  } else {
    FewRowsOf<fp8_e5m2_t>(params, tile, false, states, scratch);
  }
  for (int h = 0; h < tile.headCount; ++h) {
    for (int r = 0; r < tile.rowCount; ++r) {
      EmitRow(params, tile, partial, h, r, scratch.Out(h) + r * scratch.outStride, states[h].max[r], states[h].sum[r]);
    }
  }
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
