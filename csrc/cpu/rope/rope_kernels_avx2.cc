// SPDX-License-Identifier: Apache-2.0
// Rotary embedding kernels: AVX2, FMA and F16C.
#include "cpu/rope/rope.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define FLASHINFER_ISA avx2
#include "cpu/rope/kernels.h"
#define FLASHINFER_KERNELS &avx2::kRopeKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const RopeKernels* RopeKernelsAvx2() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
