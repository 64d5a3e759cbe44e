// SPDX-License-Identifier: Apache-2.0
// One request of attention on the cpu and the pieces it is cut into. Plain data: shared by all instruction sets.
#pragma once
#include <cstddef>
#include <cstdint>

#include "flashinfer/attention/variant_table.h"
#include "flashinfer/dtype.cuh"

namespace flashinfer::cpu {

enum class MaskMode : int32_t { kNone = 0, kCausal = 1, kCustom = 2 };
enum class PosEncodingMode : int32_t { kNone = 0, kRopeLlama = 1, kAlibi = 2 };

/** Where the rows of K or V are; strides in bytes. With `pages`, row j is slot j % pageSize of page pages[j / pageSize]. */
struct RowSource {
  const uint8_t* base;
  int64_t rowStride;
  int64_t headStride;
  const int32_t* pages;
  int64_t pageSize;
  int64_t pageStride;
};

/** CpuAttentionArgs of packages/core/src/native/binding.ts. */
struct AttentionParams {
  const void* q;
  RowSource k;
  RowSource v;
  void* out;
  float* lse;
  DType qDtype;
  DType kvDtype;
  DType outDtype;
  int64_t qoLen;
  int64_t kvLen;
  int32_t numQoHeads;
  int32_t numKvHeads;
  int32_t groupSize;
  int32_t headDimQk;
  int32_t headDimVo;
  int64_t qStrideN, qStrideH;  // elements
  int64_t outStrideN, outStrideH;
  MaskMode maskMode;
  const uint8_t* customMask;
  PosEncodingMode posEncodingMode;
  const float* alibiSlopes;
  /** A logit a query head that joins the softmax, or null. */
  const float* sinks;
  int64_t windowLeft;  // negative: off
  float logitsSoftCap;
  float smScale;
  float vScale;
  /** Factors a query head of its queries, and a kv head of its keys and values; null: 1. */
  const float* qScales;
  const float* kScales;
  const float* vScales;
  /** Multiplies the base-2 lse. */
  float lseFactor;
  /** ROPE_LLAMA: cos [headDimQk / 2] then sin [headDimQk / 2] for every position from ropeBegin to kvLen. */
  const float* ropeTable;
  int64_t ropeBegin;
  /** A custom variant, or null; the struct of its params, and the request's number for its hooks. */
  const VariantTable* variant;
  const void* variantFields;
  int32_t batchIdx;

  /** False: logits are the weights, nothing is normalised. */
  FLASHINFER_HOST_DEVICE bool UsesSoftmax() const { return variant == nullptr || variant->uses_softmax != 0; }

  /** First key that query row i sees, and one past the last, before the custom mask. */
  FLASHINFER_HOST_DEVICE int64_t VisibleBegin(int64_t i) const {
    return windowLeft < 0 ? 0 : ClampToKv(i + kvLen - qoLen - windowLeft);
  }
  FLASHINFER_HOST_DEVICE int64_t VisibleEnd(int64_t i) const {
    return maskMode == MaskMode::kCausal ? ClampToKv(i + kvLen - qoLen + 1) : kvLen;
  }
  FLASHINFER_HOST_DEVICE int64_t ClampToKv(int64_t j) const { return j < 0 ? 0 : j > kvLen ? kvLen : j; }
};

/**
 * A piece of work: some query rows of headCount kv heads from kvHead on against the keys [kvBegin, kvEnd). The rows of
 * a kv head are (i, g) = (query row, head in the group), packed as i * groupSize + g, so that K and V are read once a
 * group. Only decoding tiles (rowCount <= kMaxFewRows) have several kv heads.
 */
struct AttentionTile {
  int32_t kvHead;
  int32_t headCount;
  int64_t rowBegin;
  int32_t rowCount;
  int64_t kvBegin;
  int64_t kvEnd;
};

/** Softmax state of a tile over part of its keys: out is not normalised yet, max is of base-2 logits. */
struct PartialState {
  float* out;  // [headCount, rowCount, headDimVo]
  float* max;  // [headCount, rowCount]
  float* sum;  // [headCount, rowCount]
};

/** Keys handled between two updates of the running maximum; splits of the keys are multiples of it. */
constexpr int kKvBlock = 64;
/** Up to this many rows a kv head, decoding kernels are used: they read K and V once, vectorised along the head. */
constexpr int kMaxFewRows = 8;
/**
 * Where the kv heads of a key lie side by side (NHD), a decoding tile takes as many of them as this many bytes hold.
 * One head alone is pieces of 256 bytes far apart, which no hardware prefetcher follows; lines asked for one by one
 * reach less than half of a core's bandwidth.
 */
constexpr int64_t kHeadGroupBytes = 4096;
constexpr int kMaxHeadGroup = 32;

/** The kernels of one instruction set. */
struct AttentionKernels {
  /** Rows a tile should have when there are many. */
  int tileRows;
  /** Bytes of 64-byte aligned scratch that RunTile needs. */
  size_t (*ScratchBytes)(const AttentionParams& params, const AttentionTile& tile);
  /** Computes one tile; the result goes to `partial` or, when that is null, to params.out and params.lse. */
  void (*RunTile)(const AttentionParams& params, const AttentionTile& tile, const PartialState* partial, void* scratch);
  /** Joins the states of one tile over consecutive parts of the keys, in this order, and writes the result. */
  void (*MergeTile)(const AttentionParams& params, const AttentionTile& tile, const PartialState* parts, int numParts);
};

/** nullptr where this build has no code for the instruction set. */
const AttentionKernels* AttentionKernelsGeneric();
const AttentionKernels* AttentionKernelsNeon();
const AttentionKernels* AttentionKernelsAvx2();
const AttentionKernels* AttentionKernelsAvx512();
const AttentionKernels* AttentionKernelsAvx512Bf16();

}  // namespace flashinfer::cpu
