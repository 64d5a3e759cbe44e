// SPDX-License-Identifier: Apache-2.0
// Activation kernels: Advanced SIMD of arm64.
#include "cpu/activation/activation.h"

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define FLASHINFER_ISA neon
#include "cpu/activation/kernels.h"
#define FLASHINFER_KERNELS &neon::kActivationKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const ActivationKernels* ActivationKernelsNeon() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
