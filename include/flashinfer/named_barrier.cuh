// SPDX-License-Identifier: Apache-2.0
// Barriers of some of a block's threads.
#pragma once

namespace flashinfer {

/** Barriers of the block's threads with numbers of their own (PTX ISA 9.7.13.1, bar); 0 is __syncthreads. */
template <int THREADS>
__device__ __forceinline__ void named_barrier_sync(int id) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "n"(THREADS) : "memory");
}
template <int THREADS>
__device__ __forceinline__ void named_barrier_arrive(int id) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "n"(THREADS) : "memory");
}

}  // namespace flashinfer
