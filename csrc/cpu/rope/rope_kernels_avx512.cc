// SPDX-License-Identifier: Apache-2.0
// Rotary embedding kernels: AVX-512.
#include "cpu/rope/rope.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define FLASHINFER_ISA avx512
#include "cpu/rope/kernels.h"
#define FLASHINFER_KERNELS &avx512::kRopeKernels
#else
#define FLASHINFER_KERNELS nullptr
#endif

namespace flashinfer::cpu {

const RopeKernels* RopeKernelsAvx512() { return FLASHINFER_KERNELS; }

}  // namespace flashinfer::cpu
