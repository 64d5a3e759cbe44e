// SPDX-License-Identifier: Apache-2.0
// Merging of states: AVX2, FMA and F16C.
#include "cpu/merge/merge.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define FLASHINFER_ISA avx2
#include "cpu/merge/kernels.h"
#define FLASHINFER_KERNELS &avx2::kMergeKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const MergeKernels* MergeKernelsAvx2() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
