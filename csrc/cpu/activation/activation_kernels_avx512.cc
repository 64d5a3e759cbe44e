// SPDX-License-Identifier: Apache-2.0
// Activation kernels: AVX-512.
#include "cpu/activation/activation.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define FLASHINFER_ISA avx512
#include "cpu/activation/kernels.h"
#define FLASHINFER_KERNELS &avx512::kActivationKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const ActivationKernels* ActivationKernelsAvx512() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
