// SPDX-License-Identifier: Apache-2.0
// Finding, converting and rotating rows of Q, K and V; scratch memory. Compiled once an instruction set (isa/vec.h).
#pragma once
#include "cpu/attention/variant_rows.h"
#include "cpu/isa/vec_math.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

/** Hands out 64-byte aligned pieces of a block; with a null block it only measures. */
class Arena {
 public:
  FLASHINFER_INLINE explicit Arena(void* block) : block_(static_cast<uint8_t*>(block)) {}
  template <class T>
  FLASHINFER_INLINE T* Take(int64_t count) {
    T* piece = reinterpret_cast<T*>(block_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) & ~static_cast<size_t>(63);
    return piece;
  }
  FLASHINFER_INLINE size_t Used() const { return used_; }

 private:
  uint8_t* block_;
  size_t used_ = 0;
};

FLASHINFER_INLINE int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }
FLASHINFER_INLINE int64_t Most(int64_t a, int64_t b) { return a > b ? a : b; }
FLASHINFER_INLINE int64_t RoundUp(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

FLASHINFER_INLINE void PrefetchLine(const void* p) {
#if defined(__GNUC__) || defined(__clang__)
  __builtin_prefetch(p);
#else
  (void)p;
#endif
}

FLASHINFER_INLINE const uint8_t* RowAt(const RowSource& source, int32_t head, int64_t j) {
  const uint8_t* page = source.base + head * source.headStride;
  if (source.pages == nullptr) return page + j * source.rowStride;
  return page + source.pages[j / source.pageSize] * source.pageStride + j % source.pageSize * source.rowStride;
}

/**
 * Rows of a block, and some behind it: the micro-kernels take up to 16 rows at once and prefetch 16 further on, or the
 * next block where a tile has several heads.
 */
constexpr int kRowsAhead = 16;
constexpr int kRowPointers = 2 * kKvBlock + kRowsAhead;
using RowPointers = const uint8_t* [kRowPointers];

/** Rows from `begin`; in place of those from `end` on, the last one. */
inline void FindRows(const RowSource& source, int32_t head, int64_t begin, int64_t end, RowPointers& rows) {
  for (int n = 0; n < kRowPointers; ++n) rows[n] = RowAt(source, head, Least(begin + n, end - 1));
}

/** Prefetches a row of `bytes`. */
FLASHINFER_INLINE void PrefetchRow(const uint8_t* row, int bytes) {
  for (int b = 0; b < bytes; b += 64) PrefetchLine(row + b);
}

/**
 * Prefetches the heads of rows one after the other, in ascending addresses. The caller asks for as many bytes as it
 * consumes, step by step: bursts of lines would fill the miss buffers, and its own loads would queue behind them.
 */
class HeadPrefetch {
 public:
  FLASHINFER_INLINE HeadPrefetch(const uint8_t* const* rows, int64_t headStride, int heads, int bytes)
      : row_(rows), headStride_(headStride), heads_(heads), bytes_(bytes) {}
  /** Called in step after step with kBytes each, a power of two. */
  template <int kBytes>
  FLASHINFER_INLINE void Advance(int step) {
    if (kBytes < 64 && step % (64 / (kBytes < 64 ? kBytes : 64)) != 0) return;
    for (int b = 0; b < kBytes; b += 64) Line();
  }

 private:
  FLASHINFER_INLINE void Line() {
    PrefetchLine(*row_ + offset_ + byte_);
    byte_ += 64;
    if (byte_ < bytes_) return;
    byte_ = 0;
    offset_ += headStride_;
    if (++head_ < heads_) return;
    head_ = 0;
    offset_ = 0;
    ++row_;
  }

  const uint8_t* const* row_;
  int64_t headStride_;
  int64_t offset_ = 0;
  int heads_;
  int bytes_;
  int head_ = 0;
  int byte_ = 0;
};

template <class T>
FLASHINFER_INLINE void ToFloats(const T* src, float* dst, int count) {
  int d = 0;
  for (; d + kLanes <= count; d += kLanes) Store(dst + d, Load(src + d));
  if (kLanes > 8 && d < count) StoreHead(dst + d, LoadHead(src + d));
}

/** count (a multiple of 8) elements of any floating dtype as floats. */
inline void ConvertRow(DType dtype, const void* src, float* dst, int count) {
  switch (dtype) {
    case DType::kFloat16:
      return ToFloats(static_cast<const half_t*>(src), dst, count);
    case DType::kBFloat16:
      return ToFloats(static_cast<const bfloat16_t*>(src), dst, count);
    case DType::kFloat8E4M3:
      return ToFloats(static_cast<const fp8_e4m3_t*>(src), dst, count);
    case DType::kFloat8E5M2:
      return ToFloats(static_cast<const fp8_e5m2_t*>(src), dst, count);
    default:
      return ToFloats(static_cast<const float*>(src), dst, count);
  }
}

/** Rotates the pairs (d, d + headDim / 2) by the angles of `position`. */
inline void RotateRow(const AttentionParams& params, int64_t position, float* row) {
  const int half = params.headDimQk / 2;
  const float* cosine = params.ropeTable + (position - params.ropeBegin) * params.headDimQk;
  const float* sine = cosine + half;
  for (int d = 0; d < half; ++d) {
    const float low = row[d];
    const float high = row[d + half];
    row[d] = low * cosine[d] - high * sine[d];
    row[d + half] = high * cosine[d] + low * sine[d];
  }
}

/** Replaces the rows by float copies in `buffer` [count, length]; those of K (begin >= 0: first key) are rotated. */
inline void ConvertRows(const AttentionParams& params, int64_t ropeFrom, int count, int length, float* buffer,
                        RowPointers& rows) {
  for (int n = 0; n < count; ++n) {
    float* row = buffer + static_cast<int64_t>(n) * length;
    PrefetchRow(rows[n + kRowsAhead], length * (params.kvDtype == DType::kFloat32 ? 4 : 2));
    ConvertRow(params.kvDtype, rows[n], row, length);
    if (ropeFrom >= 0) RotateRow(params, ropeFrom + n, row);
    rows[n] = reinterpret_cast<const uint8_t*>(row);
  }
  for (int n = count; n < kRowPointers; ++n) rows[n] = rows[count - 1];
}

/** Query row `row` (packed: i * groupSize + g) of a kv head as floats, rotated where RoPE is on. */
inline void LoadQueryRow(const AttentionParams& params, int32_t kvHead, int64_t row, float* dst) {
  const int64_t i = row / params.groupSize;
  const int64_t head = static_cast<int64_t>(kvHead) * params.groupSize + row % params.groupSize;
  const int64_t elementBytes = params.qDtype == DType::kFloat32 ? 4 : params.qDtype == DType::kFloat8E4M3 ? 1 : 2;
  const uint8_t* src =
      static_cast<const uint8_t*>(params.q) + (i * params.qStrideN + head * params.qStrideH) * elementBytes;
  ConvertRow(params.qDtype, src, dst, params.headDimQk);
  if (params.qScales != nullptr || params.kScales != nullptr) {
    const float scale = (params.qScales == nullptr ? 1.0f : params.qScales[head]) *
                        (params.kScales == nullptr ? 1.0f : params.kScales[kvHead]);
    for (int d = 0; d < params.headDimQk; ++d) dst[d] *= scale;
  }
  if (params.posEncodingMode == PosEncodingMode::kRopeLlama) {
    RotateRow(params, i + params.kvLen - params.qoLen, dst);
  }
  if (params.variant != nullptr && params.variant->transform_query != nullptr) {
    params.variant->transform_query(VariantRowOf(params, kvHead, row), dst, params.headDimQk);
    RoundRow(params.qDtype, dst, params.headDimQk);
  }
}

/** Whether any of the rows holds a NaN or an infinity. */
inline bool AnyNonFinite(const AttentionParams& params, const RowPointers& rows, int count, int length, float* buffer) {
  Vec sum = Zero();
  for (int n = 0; n < count; ++n) {
    ConvertRow(params.kvDtype, rows[n], buffer, length);
    for (int d = length; d % kLanes != 0; ++d) buffer[d] = 0.0f;
    // x * 0 is 0 for finite x and NaN for the others.
    for (int d = 0; d < length; d += kLanes) sum = Fma(Load(buffer + d), Zero(), sum);
  }
  const float total = Sum(sum);
  return !(total == 0.0f);
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
