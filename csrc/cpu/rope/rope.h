// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings of q and k on the cpu; what each field means is said in packages/core/src/native/binding.ts.
#pragma once
#include <cstdint>

#include "flashinfer/dtype.cuh"

namespace flashinfer::cpu {

/** Largest rotary dimension / 2. */
constexpr int64_t kMaxRopePairs = 512;

/** The heads of q or of k; strides in elements. */
struct RopeHeads {
  const void* from;
  void* to;
  int64_t heads, strideN, strideH, outStrideN, outStrideH;
};

struct RopeParams {
  DType dtype;
  RopeHeads q, k;
  int64_t tokens, headDim, rotaryDim;
  bool interleave;
  /** Request boundaries, or null: `positions` has one element a token. */
  const void* indptr;
  const void* positions;
  bool wideIndices;
  int64_t batchSize;
  /** `[cacheRows, rotaryDim]`, cosines then sines, or null: angles come from the frequencies. */
  const float* cache;
  int64_t cacheRows, cacheStride;
  /** Turns a position of each pair. */
  const double* frequencies;
};

/** The kernels of one instruction set. */
struct RopeKernels {
  /** All heads of one token. */
  void (*Token)(const RopeParams& params, int64_t token, int64_t position);
};

/** nullptr where this build has no code for the instruction set. */
const RopeKernels* RopeKernelsGeneric();
const RopeKernels* RopeKernelsNeon();
const RopeKernels* RopeKernelsAvx2();
const RopeKernels* RopeKernelsAvx512();

/** theta^(-2d/D) / scale with Llama 3.1's smoothing, as include/flashinfer/rope_angle.cuh. */
struct RopeFrequencyOptions {
  double rcpScale, theta, smoothA, smoothB;
};

void RunRope(RopeParams params, const RopeFrequencyOptions& options);

}  // namespace flashinfer::cpu
