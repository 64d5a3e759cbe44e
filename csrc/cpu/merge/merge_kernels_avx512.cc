// SPDX-License-Identifier: Apache-2.0
// Merging of states: AVX-512.
#include "cpu/merge/merge.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define FLASHINFER_ISA avx512
#include "cpu/merge/kernels.h"
#define FLASHINFER_KERNELS &avx512::kMergeKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const MergeKernels* MergeKernelsAvx512() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
