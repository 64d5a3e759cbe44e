// SPDX-License-Identifier: Apache-2.0
// Activation kernels: portable C++.
#define FLASHINFER_ISA generic
#define FLASHINFER_ISA_GENERIC
#include "cpu/activation/kernels.h"

namespace flashinfer::cpu {

const ActivationKernels* ActivationKernelsGeneric() { return &generic::kActivationKernels; }

}  // namespace flashinfer::cpu
