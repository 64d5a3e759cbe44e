// SPDX-License-Identifier: Apache-2.0
// Gated activations on the cpu; what each field means is said in packages/core/src/native/binding.ts.
#pragma once
#include <cstdint>

#include "flashinfer/dtype.cuh"

namespace flashinfer::cpu {

enum class ActivationKind : int32_t { kSilu = 0, kGelu = 1, kGeluTanh = 2 };

struct ActivationParams {
  ActivationKind kind;
  DType dtype;
  const void* x;
  int64_t xStride;
  void* out;
  int64_t outStride;
  /** `length`: elements of a row of out, half of one of x. */
  int64_t rows, length;
};

/** The kernels of one instruction set. */
struct ActivationKernels {
  /** Columns [begin, end) of one row. */
  void (*Columns)(const ActivationParams& params, int64_t row, int64_t begin, int64_t end);
};

/** nullptr where this build has no code for the instruction set. */
const ActivationKernels* ActivationKernelsGeneric();
const ActivationKernels* ActivationKernelsNeon();
const ActivationKernels* ActivationKernelsAvx2();
const ActivationKernels* ActivationKernelsAvx512();

void RunActivation(const ActivationParams& params);

}  // namespace flashinfer::cpu
