// SPDX-License-Identifier: Apache-2.0
// Bulk prefetches into L2 (PTX ISA 9.7.9.25.4.3, cp.async.bulk.prefetch; sm_90 and up). Before sm_90 they do nothing.
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

/** Asks for `bytes` of global memory, and does not wait. Address and bytes are multiples of 16. */
__device__ __forceinline__ void prefetch_l2(const void* address, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;\n" ::"l"(address), "r"(bytes) : "memory");
#endif
}

}  // namespace flashinfer
