// SPDX-License-Identifier: Apache-2.0
// Tensor copies by the copy engine (PTX ISA 9.7.9.27.1.2, cp.async.bulk.tensor; sm_90). Boxes and swizzles are those of
// the tensor map; coordinates count elements, innermost first; what is outside the tensor arrives as zeros.
#pragma once
#include <flashinfer/mbarrier.cuh>

namespace flashinfer {

__device__ __forceinline__ void tma_prefetch_map(const void* map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");
}

/** Completes on `barrier`, which must have been told the bytes of a whole box. */
__device__ __forceinline__ void tma_load_3d(uint32_t dst, const void* map, uint32_t barrier, int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];\n" ::
          "r"(dst),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}

__device__ __forceinline__ void tma_load_4d(uint32_t dst, const void* map, uint32_t barrier, int c0, int c1, int c2,
                                            int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], "
      "[%2];\n" ::"r"(dst),
      "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}

/** A box goes from shared to global memory, as part of this thread's next group; what is outside the tensor is left out. */
__device__ __forceinline__ void tma_store_3d(const void* map, uint32_t src, int c0, int c1, int c2) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];\n" ::"l"(map), "r"(src),
               "r"(c0), "r"(c1), "r"(c2)
               : "memory");
}

/** Groups of a thread's stores (PTX ISA 9.7.9.25.6); waiting is for their reads of shared memory alone. */
__device__ __forceinline__ void tma_store_commit() { asm volatile("cp.async.bulk.commit_group;\n" ::: "memory"); }
__device__ __forceinline__ void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;\n" ::: "memory");
}

/** Orders this thread's ordinary accesses to shared memory before later ones of the copy engine and of wgmma. */
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }

}  // namespace flashinfer
