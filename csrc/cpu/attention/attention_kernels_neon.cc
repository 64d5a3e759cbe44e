// SPDX-License-Identifier: Apache-2.0
// Attention kernels: Advanced SIMD of arm64.
#include "cpu/attention/params.h"

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define FLASHINFER_ISA neon
#include "cpu/attention/kernels.h"
#define FLASHINFER_KERNELS &neon::kAttentionKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const AttentionKernels* AttentionKernelsNeon() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
