// SPDX-License-Identifier: Apache-2.0
// Thread block clusters (PTX ISA 9.7.8.23 mapa, 9.7.8.12 st.async, 9.7.13.4 barrier.cluster; sm_90 and up). Before sm_90,
// and in a launch without the attribute, every block is a cluster of its own.
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

__device__ __forceinline__ int cluster_size() {
#if __CUDA_ARCH__ >= 900
  uint32_t size;
  asm("mov.u32 %0, %%cluster_nctarank;\n" : "=r"(size));
  return static_cast<int>(size);
#else
  return 1;
#endif
}

__device__ __forceinline__ int cluster_rank() {
#if __CUDA_ARCH__ >= 900
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return static_cast<int>(rank);
#else
  return 0;
#endif
}

/** What lies in block `rank` where `address`, of the shared window, lies in this block. */
__device__ __forceinline__ uint32_t cluster_peer(uint32_t address, int rank) {
#if __CUDA_ARCH__ >= 900
  uint32_t peer;
  asm("mapa.shared::cluster.u32 %0, %1, %2;\n" : "=r"(peer) : "r"(address), "r"(rank));
  return peer;
#else
  return address;
#endif
}

/** Stores into a block of the cluster; its mbarrier `barrier` counts the bytes when they are there. sm_90 and up. */
__device__ __forceinline__ void cluster_store(uint32_t address, uint32_t value, uint32_t barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];\n" ::"r"(address), "r"(value),
               "r"(barrier)
               : "memory");
#endif
}

__device__ __forceinline__ void cluster_store(uint32_t address, uint64_t value, uint32_t barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];\n" ::"r"(address), "l"(value),
               "r"(barrier)
               : "memory");
#endif
}

/** Half of a barrier of all threads of the cluster. Shows others no more than barriers behind mbarrier_init_fence(). */
__device__ __forceinline__ void cluster_arrive_relaxed() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\n" ::: "memory");
#endif
}

__device__ __forceinline__ void cluster_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;\n" ::: "memory");
#else
  __syncthreads();
#endif
}

/** The dynamic shared memory of the block. */
template <class T>
__device__ __forceinline__ T* dynamic_shared_memory() {
  extern __shared__ __align__(128) unsigned char flashinfer_dynamic_shared_memory[];
  return reinterpret_cast<T*>(flashinfer_dynamic_shared_memory);
}

}  // namespace flashinfer
