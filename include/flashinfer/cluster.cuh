// SPDX-License-Identifier: Apache-2.0
// Thread block clusters (PTX ISA 9.7.8.23 mapa, 9.7.13.4 barrier.cluster; sm_90 and up). Before sm_90, and in a launch
// without the attribute, every block is a cluster of its own.
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

/** The variable of block `rank` that lies where `address`, in shared memory, lies in this block. */
template <class T>
__device__ __forceinline__ T* cluster_peer(T* address, int rank) {
#if __CUDA_ARCH__ >= 900
  uint64_t peer;
  asm("mapa.u64 %0, %1, %2;\n" : "=l"(peer) : "l"(reinterpret_cast<uint64_t>(address)), "r"(rank));
  return reinterpret_cast<T*>(peer);
#else
  return address;
#endif
}

/** Half of a barrier of all threads of the cluster; what was written before is visible after the other half. */
__device__ __forceinline__ void cluster_arrive() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;\n" ::: "memory");
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
  extern __shared__ __align__(16) unsigned char flashinfer_dynamic_shared_memory[];
  return reinterpret_cast<T*>(flashinfer_dynamic_shared_memory);
}

}  // namespace flashinfer
