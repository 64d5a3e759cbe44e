// SPDX-License-Identifier: Apache-2.0
// Norm kernels: AVX2, FMA and F16C.
#include "cpu/norm/norm.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define FLASHINFER_ISA avx2
#include "cpu/norm/kernels.h"
#define FLASHINFER_KERNELS &avx2::kNormKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const NormKernels* NormKernelsAvx2() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
