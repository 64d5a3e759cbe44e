// SPDX-License-Identifier: Apache-2.0
// Attention kernels: portable C++.
#define FLASHINFER_ISA generic
#define FLASHINFER_ISA_GENERIC
#include "cpu/attention/kernels.h"

namespace flashinfer::cpu {

const AttentionKernels* AttentionKernelsGeneric() { return &generic::kAttentionKernels; }

}  // namespace flashinfer::cpu
