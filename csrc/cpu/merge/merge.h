// SPDX-License-Identifier: Apache-2.0
// Merging attention states on the cpu; what each field means is said in packages/core/src/native/binding.ts.
#pragma once
#include <cstdint>

#include "flashinfer/dtype.cuh"

namespace flashinfer::cpu {

/** Values and log-sum-exps of one set of states; strides of rows (N) and heads (H) in elements. */
struct StateParams {
  const void* v;
  const float* s;
  int64_t vStrideN, vStrideH, sStrideN, sStrideH;
};

struct MergeParams {
  DType dtype;
  StateParams a;
  /** The second state of a pair; without it the states of `a` are vStrideI and sStrideI apart. */
  bool isPair;
  StateParams b;
  int64_t vStrideI, sStrideI;
  void* out;
  /** nullptr: not written. */
  float* lse;
  int64_t outStrideN, outStrideH, lseStrideN, lseStrideH;
  /** nullptr, or a byte a row: rows with 0 are left alone. */
  const uint8_t* mask;
  /** nullptr, or int32 [numStates, rows], shiftStrideI apart, times float32 [heads]: added to natural logarithms. */
  const int32_t* shifts;
  int64_t shiftStrideI;
  const float* slopes;
  int64_t rows, heads, length, numStates;
  float lseInFactor, lseOutFactor;
};

/** The kernels of one instruction set. */
struct MergeKernels {
  /** Heads [begin, end), counted through all rows. */
  void (*Heads)(const MergeParams& params, int64_t begin, int64_t end);
};

/** nullptr where this build has no code for the instruction set. */
const MergeKernels* MergeKernelsGeneric();
const MergeKernels* MergeKernelsNeon();
const MergeKernels* MergeKernelsAvx2();
const MergeKernels* MergeKernelsAvx512();

void RunMerge(const MergeParams& params);

}  // namespace flashinfer::cpu
