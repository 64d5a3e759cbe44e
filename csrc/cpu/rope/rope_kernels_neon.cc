// SPDX-License-Identifier: Apache-2.0
// Rotary embedding kernels: Advanced SIMD of arm64.
#include "cpu/rope/rope.h"

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define FLASHINFER_ISA neon
#include "cpu/rope/kernels.h"
#define FLASHINFER_KERNELS &neon::kRopeKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const RopeKernels* RopeKernelsNeon() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
