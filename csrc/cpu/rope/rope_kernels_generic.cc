// SPDX-License-Identifier: Apache-2.0
// Rotary embedding kernels: portable C++.
#define FLASHINFER_ISA generic
#define FLASHINFER_ISA_GENERIC
#include "cpu/rope/kernels.h"

namespace flashinfer::cpu {

const RopeKernels* RopeKernelsGeneric() { return &generic::kRopeKernels; }

}  // namespace flashinfer::cpu
