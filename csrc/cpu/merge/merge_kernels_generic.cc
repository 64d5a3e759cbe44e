// SPDX-License-Identifier: Apache-2.0
// Merging of states: portable C++.
#define FLASHINFER_ISA generic
#define FLASHINFER_ISA_GENERIC
#include "cpu/merge/kernels.h"

namespace flashinfer::cpu {

const MergeKernels* MergeKernelsGeneric() { return &generic::kMergeKernels; }

}  // namespace flashinfer::cpu
