// SPDX-License-Identifier: Apache-2.0
// Shared-memory barriers that count arrivals and bytes of asynchronous copies (PTX ISA 9.7.13.15, mbarrier; sm_90).
// A barrier is named by its address in the shared window. Waiting takes the parity of the phase: a fresh barrier is in
// phase 0, so waiting for parity 1 returns at once.
#pragma once
#include <flashinfer/cp_async.cuh>

namespace flashinfer {

__device__ __forceinline__ void mbarrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals) : "memory");
}

/** Makes initialised barriers visible to the copy engine; by the thread that initialised, before a block barrier. */
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(barrier) : "memory");
}

/** Arrives and announces `bytes` that copies will complete in this phase. */
__device__ __forceinline__ void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes) : "memory");
}

/** This thread's arrival follows when its cp.async copies so far have landed; counts as one expected arrival. */
__device__ __forceinline__ void mbarrier_arrive_after_copies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\n" ::"r"(barrier) : "memory");
}

/** Waits until the phase of this parity has completed. */
__device__ __forceinline__ void mbarrier_wait(uint32_t barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni finished;\n"
      "bra.uni again;\n"
      "finished:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

}  // namespace flashinfer
