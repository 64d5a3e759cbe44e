// SPDX-License-Identifier: Apache-2.0
// RMSNorm and LayerNorm on the cpu; what each field means is said in packages/core/src/native/binding.ts.
#pragma once
#include <cstdint>

#include "flashinfer/dtype.cuh"

namespace flashinfer::cpu {

struct NormParams {
  DType dtype, weightDtype, outDtype;
  bool layer;
  const void* x;
  int64_t xStrideN, xStrideH;
  /** Null: nothing is added. */
  void* residual;
  int64_t residualStrideN, residualStrideH;
  void* out;
  int64_t outStrideN, outStrideH;
  const void* weight;
  const void* bias;
  int64_t tokens, heads, length;
  float eps, weightOffset, rcpScale;
};

/** The kernels of one instruction set. */
struct NormKernels {
  /** Rows [begin, end) of tokens * heads. */
  void (*Rows)(const NormParams& params, int64_t begin, int64_t end);
};

/** nullptr where this build has no code for the instruction set. */
const NormKernels* NormKernelsGeneric();
const NormKernels* NormKernelsNeon();
const NormKernels* NormKernelsAvx2();
const NormKernels* NormKernelsAvx512();

void RunNorm(const NormParams& params);

}  // namespace flashinfer::cpu
