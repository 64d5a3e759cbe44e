// SPDX-License-Identifier: Apache-2.0
// Norm kernels: portable C++.
#define FLASHINFER_ISA generic
#define FLASHINFER_ISA_GENERIC
#include "cpu/norm/kernels.h"

namespace flashinfer::cpu {

const NormKernels* NormKernelsGeneric() { return &generic::kNormKernels; }

}  // namespace flashinfer::cpu
