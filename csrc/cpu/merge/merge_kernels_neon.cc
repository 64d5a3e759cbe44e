// SPDX-License-Identifier: Apache-2.0
// Merging of states: Advanced SIMD of arm64.
#include "cpu/merge/merge.h"

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define FLASHINFER_ISA neon
#include "cpu/merge/kernels.h"
#define FLASHINFER_KERNELS &neon::kMergeKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const MergeKernels* MergeKernelsNeon() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
