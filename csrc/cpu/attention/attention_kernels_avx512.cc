// SPDX-License-Identifier: Apache-2.0
// Attention kernels: AVX-512.
#include "cpu/attention/params.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define FLASHINFER_ISA avx512
#include "cpu/attention/kernels.h"
#define FLASHINFER_KERNELS &avx512::kAttentionKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const AttentionKernels* AttentionKernelsAvx512() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
