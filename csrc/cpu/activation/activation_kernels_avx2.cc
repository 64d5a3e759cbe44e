// SPDX-License-Identifier: Apache-2.0
// Activation kernels: AVX2, FMA and F16C.
#include "cpu/activation/activation.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define FLASHINFER_ISA avx2
#include "cpu/activation/kernels.h"
#define FLASHINFER_KERNELS &avx2::kActivationKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const ActivationKernels* ActivationKernelsAvx2() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
