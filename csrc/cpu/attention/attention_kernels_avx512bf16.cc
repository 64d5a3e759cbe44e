// SPDX-License-Identifier: Apache-2.0
// Attention kernels: AVX-512 with bfloat16 products.
#include "cpu/attention/params.h"

#if defined(__AVX512BF16__)
#define FLASHINFER_ISA avx512bf16
#include "cpu/attention/kernels.h"
#define FLASHINFER_KERNELS &avx512bf16::kAttentionKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const AttentionKernels* AttentionKernelsAvx512Bf16() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
