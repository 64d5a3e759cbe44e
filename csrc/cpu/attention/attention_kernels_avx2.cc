// SPDX-License-Identifier: Apache-2.0
// Attention kernels: AVX2, FMA and F16C.
#include "cpu/attention/params.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define FLASHINFER_ISA avx2
#include "cpu/attention/kernels.h"
#define FLASHINFER_KERNELS &avx2::kAttentionKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const AttentionKernels* AttentionKernelsAvx2() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
