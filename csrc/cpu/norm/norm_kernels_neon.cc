// SPDX-License-Identifier: Apache-2.0
// Norm kernels: Advanced SIMD of arm64.
#include "cpu/norm/norm.h"

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define FLASHINFER_ISA neon
#include "cpu/norm/kernels.h"
#define FLASHINFER_KERNELS &neon::kNormKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const NormKernels* NormKernelsNeon() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
