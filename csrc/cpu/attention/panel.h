// SPDX-License-Identifier: Apache-2.0
// Prefill: FlashAttention (arXiv:2307.08691) with the query rows in the vector lanes. A panel is up to kPanelRows rows
// of one kv head; its scores and outputs are kept transposed, S^T [keys][rows] and O^T [headDimVo][rows]. So the
// elements of K and V are only ever broadcast: neither is transposed, K is not even copied where its dtype is the
// multiplication's, and the softmax works down the lanes without sums across them. Compiled once an instruction set.
#pragma once
#include "cpu/attention/finish.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

constexpr int kPanelVecs = kRegisters == 32 ? 4 : 3;
constexpr int kPanelRows = kPanelVecs * kLanes;
constexpr int kPanelsPerTile = 128 / kPanelRows;

/** Multiplication in float32: a word is one element. */
struct MacFloat {
  static constexpr int kElements = 1;
  using Packed = Vec;
  FLASHINFER_INLINE static Packed LoadPacked(const uint32_t* p) { return Load(reinterpret_cast<const float*>(p)); }
  FLASHINFER_INLINE static Packed Broadcast(const uint8_t* word) {
    float x;
    memcpy(&x, word, sizeof(x));
    return Set1(x);
  }
  FLASHINFER_INLINE static Vec Mac(Packed a, Packed b, Vec acc) { return Fma(a, b, acc); }
};

#ifdef __AVX512BF16__
/** vdpbf16ps: a word is two neighbours along the summation, products and sums in float32. */
struct MacBf16 {
  static constexpr int kElements = 2;
  using Packed = __m512bh;
  FLASHINFER_INLINE static Packed LoadPacked(const uint32_t* p) { return (__m512bh)_mm512_loadu_si512(p); }
  FLASHINFER_INLINE static Packed Broadcast(const uint8_t* word) {
    int32_t x;
    memcpy(&x, word, sizeof(x));
    return (__m512bh)_mm512_set1_epi32(x);
  }
  FLASHINFER_INLINE static Vec Mac(Packed a, Packed b, Vec acc) { return _mm512_dpbf16_ps(acc, a, b); }
};
#endif

/** Rows of the micro-kernels by vectors of lanes: as many accumulators as the registers hold. */
constexpr int ScoreKeys(int vecs) {
  return kRegisters == 32 ? (vecs == 4 ? 6 : vecs == 1 ? 16 : 8) : (vecs == 1 ? 8 : 4);
}
constexpr int OutputDims(int vecs) { return kRegisters == 32 ? (vecs == 4 ? 4 : 8) : (vecs == 1 ? 8 : 4); }

/** scores[key][lane] = scale * sum over words of k[key][word] * q[word][lane]. */
template <class Mac, int kKeys, int kVecs>
FLASHINFER_INLINE void ScoresMicro(const uint8_t* const* rows, const uint32_t* q, int words, float scale,
                                   float* scores) {
  constexpr int kWidth = kVecs * kLanes;
  const uint8_t* k[kKeys];
  for (int n = 0; n < kKeys; ++n) k[n] = rows[n];
  Vec acc[kKeys][kVecs];
  for (int n = 0; n < kKeys; ++n) {
    for (int c = 0; c < kVecs; ++c) acc[n][c] = Zero();
  }
  for (int w = 0; w < words; ++w) {
    typename Mac::Packed query[kVecs];
    for (int c = 0; c < kVecs; ++c) query[c] = Mac::LoadPacked(q + static_cast<int64_t>(w) * kWidth + c * kLanes);
    for (int n = 0; n < kKeys; ++n) {
      const typename Mac::Packed key = Mac::Broadcast(k[n] + static_cast<int64_t>(w) * 4);
      for (int c = 0; c < kVecs; ++c) acc[n][c] = Mac::Mac(key, query[c], acc[n][c]);
    }
  }
  for (int n = 0; n < kKeys; ++n) {
    for (int c = 0; c < kVecs; ++c) Store(scores + n * kWidth + c * kLanes, Mul(acc[n][c], Set1(scale)));
  }
}

/** out[dim][lane] = out[dim][lane] * alpha[lane] + sum over words of v[word][dim] * p[word][lane], kDims dimensions. */
template <class Mac, int kDims, int kVecs>
FLASHINFER_INLINE void OutputMicro(const uint8_t* const* rows, const uint32_t* p, int words, int dim,
                                   const float* alpha, float* out) {
  constexpr int kWidth = kVecs * kLanes;
  Vec acc[kDims][kVecs];
  for (int d = 0; d < kDims; ++d) {
    for (int c = 0; c < kVecs; ++c) acc[d][c] = Zero();
  }
  for (int w = 0; w < words; ++w) {
    const uint8_t* v = rows[w] + static_cast<int64_t>(dim) * 4;
    typename Mac::Packed weight[kVecs];
    for (int c = 0; c < kVecs; ++c) weight[c] = Mac::LoadPacked(p + static_cast<int64_t>(w) * kWidth + c * kLanes);
    for (int d = 0; d < kDims; ++d) {
      const typename Mac::Packed value = Mac::Broadcast(v + d * 4);
      for (int c = 0; c < kVecs; ++c) acc[d][c] = Mac::Mac(value, weight[c], acc[d][c]);
    }
  }
  for (int c = 0; c < kVecs; ++c) {
    const Vec scale = Load(alpha + c * kLanes);
    for (int d = 0; d < kDims; ++d) {
      float* o = out + static_cast<int64_t>(dim + d) * kWidth + c * kLanes;
      Store(o, Fma(Load(o), scale, acc[d][c]));
    }
  }
}

/** Lanes' places and softmax state. Lanes without a row see every key, so that they never ask for masking. */
struct Panel {
  uint32_t* q;  // [headDimQk / kElements][width], words
  float* out;   // [headDimVo][width]
  int rowCount;
  int64_t rowBegin;
  int64_t begin[kPanelRows];
  int64_t end[kPanelRows];
  int64_t i[kPanelRows];
  float slope[kPanelRows];
  float max[kPanelRows];
  float sum[kPanelRows];
  float alpha[kPanelRows];
  /** Keys that any row sees, and those that all rows see. */
  int64_t anyBegin, anyEnd, allBegin, allEnd;

  FLASHINFER_INLINE int Vecs() const { return (rowCount + kLanes - 1) / kLanes; }
};

struct PanelScratch {
  Panel panels[kPanelsPerTile];
  float* scores;    // [kKvBlock + kRowsAhead][kPanelRows]
  uint32_t* pairs;  // [kKvBlock / 2][kPanelRows], bfloat16 weights
  float* kBlock;    // converted rows of K,
  float* vBlock;    // and of V, or V's pairs of keys
  float* row;

  FLASHINFER_INLINE PanelScratch(const AttentionParams& params, int rowCount, Arena& arena) {
    for (int p = 0; p * kPanelRows < rowCount; ++p) {
      panels[p].q = arena.Take<uint32_t>(params.headDimQk * kPanelRows);
      panels[p].out = arena.Take<float>(params.headDimVo * kPanelRows);
    }
    scores = arena.Take<float>((kKvBlock + kRowsAhead) * kPanelRows);
    pairs = arena.Take<uint32_t>(kKvBlock / 2 * kPanelRows);
    kBlock = arena.Take<float>(kKvBlock * params.headDimQk);
    vBlock = arena.Take<float>(kKvBlock * params.headDimVo);
    row = arena.Take<float>(RoundUp(Most(params.headDimQk, params.headDimVo), 16));
  }
};

/** Whether the products may be taken in bfloat16: both operands are, and nothing rotates them in between. */
FLASHINFER_INLINE bool UsesBf16(const AttentionParams& params) {
#ifdef __AVX512BF16__
  return params.qDtype == DType::kBFloat16 && params.kvDtype == DType::kBFloat16 &&
         params.posEncodingMode != PosEncodingMode::kRopeLlama;
#else
  (void)params;
  return false;
#endif
}

inline void LoadPanelQueries(const AttentionParams& params, const AttentionTile& tile, Panel& panel, float* row) {
  const int width = panel.Vecs() * kLanes;
  const int elements = UsesBf16(params) ? 2 : 1;
  const int words = params.headDimQk / elements;
  for (int r = 0; r < width; ++r) {
    if (r >= panel.rowCount) {
      for (int w = 0; w < words; ++w) panel.q[static_cast<int64_t>(w) * width + r] = 0;
      continue;
    }
    LoadQueryRow(params, tile.kvHead, panel.rowBegin + r, row);
    for (int w = 0; w < words; ++w) {
      panel.q[static_cast<int64_t>(w) * width + r] =
          elements == 1 ? float_as_bits(row[w])
                        : (float_as_bits(row[2 * w]) >> 16) | (float_as_bits(row[2 * w + 1]) & 0xffff0000u);
    }
  }
}

inline void InitPanel(const AttentionParams& params, const AttentionTile& tile, Panel& panel, float* row) {
  const int width = panel.Vecs() * kLanes;
  panel.anyBegin = tile.kvEnd;
  panel.anyEnd = tile.kvBegin;
  panel.allBegin = tile.kvBegin;
  panel.allEnd = tile.kvEnd;
  for (int r = 0; r < width; ++r) {
    // Without softmax the sum stays 1 and nothing is ever rescaled.
    const bool softmax = params.UsesSoftmax();
    panel.max[r] = softmax ? -kInfinity : 0.0f;
    panel.sum[r] = softmax ? 0.0f : 1.0f;
    panel.alpha[r] = 1.0f;
    panel.begin[r] = tile.kvBegin;
    panel.end[r] = tile.kvEnd;
    panel.i[r] = 0;
    panel.slope[r] = 0.0f;
    if (r >= panel.rowCount) continue;
    const int64_t packed = panel.rowBegin + r;
    panel.i[r] = packed / params.groupSize;
    panel.begin[r] = params.VisibleBegin(panel.i[r]);
    panel.end[r] = params.VisibleEnd(panel.i[r]);
    if (params.posEncodingMode == PosEncodingMode::kAlibi) {
      panel.slope[r] = params.alibiSlopes[tile.kvHead * params.groupSize + packed % params.groupSize];
    }
    panel.anyBegin = Least(panel.anyBegin, panel.begin[r]);
    panel.anyEnd = Most(panel.anyEnd, panel.end[r]);
    panel.allBegin = Most(panel.allBegin, panel.begin[r]);
    panel.allEnd = Least(panel.allEnd, panel.end[r]);
  }
  memset(panel.out, 0, sizeof(float) * params.headDimVo * width);
  LoadPanelQueries(params, tile, panel, row);
}

/** As PanelLogits, for a custom variant: its hooks take rows. */
inline bool PanelVariantLogits(const AttentionParams& params, int32_t kvHead, const Panel& panel, int64_t keyBegin,
                               int count, float* scores) {
  const int width = panel.Vecs() * kLanes;
  bool masked = false;
  for (int r = 0; r < panel.rowCount; ++r) {
    float logits[kKvBlock];
    for (int n = 0; n < count; ++n) logits[n] = scores[n * width + r];
    const int begin = static_cast<int>(Most(0, Least(panel.begin[r] - keyBegin, count)));
    const int end = static_cast<int>(Most(0, Least(panel.end[r] - keyBegin, count)));
    masked |= VariantLogits(params, kvHead, panel.rowBegin + r, keyBegin, count, begin, end, logits);
    for (int n = 0; n < count; ++n) scores[n * width + r] = logits[n];
  }
  return masked;
}

/** Transforms and masks a block's scores [count][width] in place; returns whether a key was masked. */
inline bool PanelLogits(const AttentionParams& params, const LogitRule& rule, int32_t kvHead, const Panel& panel,
                        int64_t keyBegin, int count, float* scores) {
  const int width = panel.Vecs() * kLanes;
  if (rule.custom) return PanelVariantLogits(params, kvHead, panel, keyBegin, count, scores);
  const bool ranges = keyBegin < panel.allBegin || keyBegin + count > panel.allEnd;
  for (int c = 0; c < width && (ranges || !rule.Plain()); c += kLanes) {
    float begin[kLanes], end[kLanes], distance[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      begin[lane] = static_cast<float>(Most(0, Least(panel.begin[c + lane] - keyBegin, count)));
      end[lane] = static_cast<float>(Most(0, Least(panel.end[c + lane] - keyBegin, count)));
      distance[lane] = static_cast<float>(keyBegin - panel.i[c + lane]);
    }
    const Vec slope = Load(panel.slope + c);
    for (int n = 0; n < count; ++n) {
      float* at = scores + n * width + c;
      const Vec index = Set1(static_cast<float>(n));
      Vec s = Load(at);
      if (!rule.Plain()) s = rule.Apply(s, Mul(slope, Add(Load(distance), index)));
      Store(at, KeepRange(s, index, Load(begin), Load(end)));
    }
  }
  bool masked = ranges;
  if (params.maskMode == MaskMode::kCustom) {
    const uint64_t all = count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    for (int r = 0; r < panel.rowCount; ++r) {
      const uint64_t hidden = ~MaskBits(params.customMask, panel.i[r] * params.kvLen + keyBegin, count) & all;
      masked |= hidden != 0;
      for (int n = 0; n < count && hidden >> n != 0; ++n) {
        if ((hidden >> n & 1) != 0) scores[n * width + r] = -kInfinity;
      }
    }
  }
  return masked;
}

/** Logits to weights in place; moves maximum and sum of every lane and sets alpha. */
inline void PanelSoftmax(Panel& panel, int count, float* scores) {
  const int width = panel.Vecs() * kLanes;
  for (int c = 0; c < width; c += kLanes) {
    const Vec oldMax = Load(panel.max + c);
    Vec max = oldMax;
    for (int n = 0; n < count; ++n) max = Max(Load(scores + n * width + c), max);
    const Vec shift = FiniteMax(max);
    Vec sum = Zero();
    for (int n = 0; n < count; ++n) {
      const Vec p = Exp2(Sub(Load(scores + n * width + c), shift));
      Store(scores + n * width + c, p);
      sum = Add(sum, p);
    }
    const Vec alpha = Exp2(Sub(oldMax, shift));
    Store(panel.alpha + c, alpha);
    Store(panel.sum + c, Fma(Load(panel.sum + c), alpha, sum));
    Store(panel.max + c, max);
  }
}

/** Adds a block where a masked key's value is NaN or infinite: a weight of 0 adds nothing. */
inline void PanelOutputGuarded(const AttentionParams& params, Panel& panel, const RowPointers& original, int count,
                               const float* weights, float* row) {
  const int width = panel.Vecs() * kLanes;
  for (int n = -1; n < count; ++n) {
    if (n >= 0) ConvertRow(params.kvDtype, original[n], row, params.headDimVo);
    for (int d = 0; d < params.headDimVo; ++d) {
      for (int c = 0; c < width; c += kLanes) {
        float* out = panel.out + static_cast<int64_t>(d) * width + c;
        if (n < 0) {
          Store(out, Mul(Load(out), Load(panel.alpha + c)));
          continue;
        }
        const Vec weight = Load(weights + n * width + c);
        // Not "weight > 0": a NaN weight must act, and a negative one, which a variant may have.
        const Vec value = Select(Less(Abs(weight), Set1(1e-45f)), Zero(), Set1(row[d]));
        Store(out, Fma(weight, value, Load(out)));
      }
    }
  }
}

/** What the first panel of a tile prefetches while it makes scores: K's rows further on, V's rows of this block. */
struct PanelPrefetch {
  const uint8_t* const* v;
  int kBytes;
  int vBytes;
};

template <class Mac, int kVecs>
void PanelScores(const Panel& panel, const uint8_t* const* rows, int count, int words, float scale,
                 const PanelPrefetch& prefetch, float* scores) {
  constexpr int kKeys = ScoreKeys(kVecs);
  for (int n = 0; n < count; n += kKeys) {
    for (int i = 0; i < kKeys && prefetch.kBytes + prefetch.vBytes > 0; ++i) {
      PrefetchRow(rows[n + i + kRowsAhead], prefetch.kBytes);
      PrefetchRow(prefetch.v[n + i], prefetch.vBytes);
    }
    ScoresMicro<Mac, kKeys, kVecs>(rows + n, panel.q, words, scale, scores + n * kVecs * kLanes);
  }
}

template <class Mac, int kVecs>
void PanelOutput(Panel& panel, const uint8_t* const* rows, int words, const uint32_t* weights, int headDimVo) {
  constexpr int kDims = OutputDims(kVecs);
  int d = 0;
  if constexpr (kVecs == 1 && kRegisters == 32) {
    for (; d + 2 * kDims <= headDimVo; d += 2 * kDims) {
      OutputMicro<Mac, 2 * kDims, kVecs>(rows, weights, words, d, panel.alpha, panel.out);
    }
  }
  for (; d < headDimVo; d += kDims) {
    OutputMicro<Mac, kDims, kVecs>(rows, weights, words, d, panel.alpha, panel.out);
  }
}

#ifdef __AVX512BF16__
/** Weights of neighbouring keys side by side as bfloat16: [count][width] to [ceil(count / 2)][width] words. */
inline void PairWeights(const float* weights, int count, int width, uint32_t* pairs) {
  for (int n = 0; n < count; n += 2) {
    for (int c = 0; c < width; c += kLanes) {
      const Vec even = Load(weights + n * width + c);
      const Vec odd = n + 1 < count ? Load(weights + (n + 1) * width + c) : Zero();
      const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
      const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd)), 16);
      _mm512_storeu_si512(pairs + n / 2 * width + c, _mm512_or_si512(low, high));
    }
  }
}

/** Values of neighbouring keys side by side: rows [count] of bfloat16 to [ceil(count / 2)][headDimVo] words. */
inline void PairValues(const RowPointers& rows, int count, int headDimVo, uint32_t* pairs, RowPointers& pairRows) {
  for (int n = 0; n < count; n += 2) {
    PrefetchRow(rows[n + kRowsAhead], headDimVo * 2);
    PrefetchRow(rows[n + 1 + kRowsAhead], headDimVo * 2);
    const uint16_t* even = reinterpret_cast<const uint16_t*>(rows[n]);
    const uint16_t* odd = reinterpret_cast<const uint16_t*>(rows[n + 1 < count ? n + 1 : n]);
    const uint32_t keep = n + 1 < count ? 0xffff0000u : 0;
    uint32_t* pair = pairs + static_cast<int64_t>(n / 2) * headDimVo;
    for (int d = 0; d < headDimVo; ++d) pair[d] = even[d] | (static_cast<uint32_t>(odd[d]) << 16 & keep);
    pairRows[n / 2] = reinterpret_cast<const uint8_t*>(pair);
  }
}
#endif

/** One block of keys for one panel of kVecs vectors. */
template <int kVecs>
void PanelBlock(const AttentionParams& params, const LogitRule& rule, int32_t kvHead, Panel& panel, int64_t blockBegin,
                int blockCount, const RowPointers& k, const RowPointers& v, const PanelPrefetch& prefetch,
                const PanelScratch& scratch) {
  // Keys that no row of this panel sees are left out; the begin stays even for pairs of keys.
  const int skip = static_cast<int>(Most(0, panel.anyBegin - blockBegin)) & ~1;
  const int count = static_cast<int>(Least(blockCount, panel.anyEnd - blockBegin)) - skip;
  if (count <= 0) return;
  const int64_t keyBegin = blockBegin + skip;
  const float scale = rule.Plain() ? rule.plainScale : 1.0f;
  const bool bf16 = UsesBf16(params);
  if (!bf16) PanelScores<MacFloat, kVecs>(panel, k + skip, count, params.headDimQk, scale, prefetch, scratch.scores);
#ifdef __AVX512BF16__
  if (bf16) PanelScores<MacBf16, kVecs>(panel, k + skip, count, params.headDimQk / 2, scale, prefetch, scratch.scores);
#endif
  const bool masked = PanelLogits(params, rule, kvHead, panel, keyBegin, count, scratch.scores);
  if (params.UsesSoftmax()) PanelSoftmax(panel, count, scratch.scores);
  if (masked) {
    RowPointers original;
    FindRows(params.v, kvHead, keyBegin, keyBegin + count, original);
    if (AnyNonFinite(params, original, count, params.headDimVo, scratch.row)) {
      return PanelOutputGuarded(params, panel, original, count, scratch.scores, scratch.row);
    }
  }
  if (!bf16) {
    PanelOutput<MacFloat, kVecs>(panel, v + skip, count, reinterpret_cast<const uint32_t*>(scratch.scores),
                                 params.headDimVo);
  }
#ifdef __AVX512BF16__
  if (bf16) {
    PairWeights(scratch.scores, count, kVecs * kLanes, scratch.pairs);
    PanelOutput<MacBf16, kVecs>(panel, v + skip / 2, (count + 1) / 2, scratch.pairs, params.headDimVo);
  }
#endif
}

inline void EmitPanel(const AttentionParams& params, const AttentionTile& tile, const PartialState* partial,
                      const Panel& panel, float* row) {
  const int width = panel.Vecs() * kLanes;
  for (int r = 0; r < panel.rowCount; ++r) {
    for (int d = 0; d < params.headDimVo; ++d) row[d] = panel.out[static_cast<int64_t>(d) * width + r];
    EmitRow(params, tile, partial, 0, static_cast<int>(panel.rowBegin - tile.rowBegin) + r, row, panel.max[r],
            panel.sum[r]);
  }
}

inline void RunPanels(const AttentionParams& params, const AttentionTile& tile, const PartialState* partial,
                      PanelScratch& scratch) {
  const LogitRule rule(params);
  const bool rope = params.posEncodingMode == PosEncodingMode::kRopeLlama;
  const bool convert = !UsesBf16(params) && (rope || params.kvDtype != DType::kFloat32);
  const int numPanels = (tile.rowCount + kPanelRows - 1) / kPanelRows;
  for (int p = 0; p < numPanels; ++p) {
    scratch.panels[p].rowBegin = tile.rowBegin + p * kPanelRows;
    scratch.panels[p].rowCount = static_cast<int>(Least(kPanelRows, tile.rowCount - p * kPanelRows));
    InitPanel(params, tile, scratch.panels[p], scratch.row);
  }
  RowPointers k, v;
  for (int64_t begin = tile.kvBegin; begin < tile.kvEnd; begin += kKvBlock) {
    const int count = static_cast<int>(Least(kKvBlock, tile.kvEnd - begin));
    FindRows(params.k, tile.kvHead, begin, tile.kvEnd, k);
    FindRows(params.v, tile.kvHead, begin, tile.kvEnd, v);
    if (convert) {
      ConvertRows(params, rope ? begin : -1, count, params.headDimQk, scratch.kBlock, k);
      ConvertRows(params, -1, count, params.headDimVo, scratch.vBlock, v);
    }
#ifdef __AVX512BF16__
    RowPointers pairRows;
    if (UsesBf16(params)) {
      PairValues(v, count, params.headDimVo, reinterpret_cast<uint32_t*>(scratch.vBlock), pairRows);
      memcpy(v, pairRows, sizeof(v));
    }
#endif
    for (int p = 0; p < numPanels; ++p) {
      Panel& panel = scratch.panels[p];
      PanelPrefetch prefetch = {v, 0, 0};
      if (p == 0 && !convert) {
        prefetch.kBytes = params.headDimQk * (UsesBf16(params) ? 2 : 4);
        prefetch.vBytes = UsesBf16(params) ? 0 : params.headDimVo * 4;
      }
      switch (panel.Vecs()) {
        case 1:
          PanelBlock<1>(params, rule, tile.kvHead, panel, begin, count, k, v, prefetch, scratch);
          break;
        case 2:
          PanelBlock<2>(params, rule, tile.kvHead, panel, begin, count, k, v, prefetch, scratch);
          break;
        case 3:
          PanelBlock<3>(params, rule, tile.kvHead, panel, begin, count, k, v, prefetch, scratch);
          break;
        default:
          PanelBlock<kPanelVecs>(params, rule, tile.kvHead, panel, begin, count, k, v, prefetch, scratch);
      }
    }
  }
  for (int p = 0; p < numPanels; ++p) EmitPanel(params, tile, partial, scratch.panels[p], scratch.row);
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
