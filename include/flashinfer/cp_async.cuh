// SPDX-License-Identifier: Apache-2.0
// Asynchronous 16-byte copies from global to shared memory (PTX ISA 9.7.9.25.3, cp.async; sm_80 and up).
// Before sm_80 the same calls load and store at once, so callers need no second code path.
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

/** Address of a pointer into shared memory, as PTX's 32-bit shared window wants it. */
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/** Copies 16 bytes; writes zeros instead when `valid` is false, and then does not read `src`. */
__device__ __forceinline__ void cp_async_16(uint32_t dst, const void* src, bool valid) {
#if __CUDA_ARCH__ >= 800
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;\n" ::"r"(dst), "l"(src), "r"(bytes));
#else
  uint4 value = make_uint4(0, 0, 0, 0);
  if (valid) value = *static_cast<const uint4*>(src);
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};\n" ::"r"(dst), "r"(value.x), "r"(value.y), "r"(value.z),
               "r"(value.w)
               : "memory");
#endif
}

/** Copies 16 bytes, in three instructions fewer than where it may have to write zeros. */
__device__ __forceinline__ void cp_async_16(uint32_t dst, const void* src) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;\n" ::"r"(dst), "l"(src));
#else
  cp_async_16(dst, src, true);
#endif
}

/** How copied lines age in L2 (PTX ISA 9.7.9.18, createpolicy; sm_80 and up): as any other, or as a policy says. */
struct NormalEviction {};
struct EvictionPolicy {
  uint64_t policy;
};

/**
 * Lines that the next ones replace first, where `first` says so: what L2 holds for others stays. Else the policy is
 * evict_unchanged, as fast as none; with evict_normal reading more than L2 holds took up to 12 % longer (H200), and choosing
 * between copies with and without a policy 1 to 2 %.
 */
__device__ __forceinline__ EvictionPolicy evict_first_if(bool first) {
  EvictionPolicy eviction{0};
#if __CUDA_ARCH__ >= 800
  if (first) asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;\n" : "=l"(eviction.policy));
  else asm volatile("createpolicy.fractional.L2::evict_unchanged.b64 %0, 1.0;\n" : "=l"(eviction.policy));
#endif
  return eviction;
}

__device__ __forceinline__ void cp_async_16(uint32_t dst, const void* src, bool valid, NormalEviction) {
  cp_async_16(dst, src, valid);
}

__device__ __forceinline__ void cp_async_16(uint32_t dst, const void* src, bool valid, EvictionPolicy eviction) {
#if __CUDA_ARCH__ >= 800
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2, %3;\n" ::"r"(dst), "l"(src),
               "r"(bytes), "l"(eviction.policy));
#else
  cp_async_16(dst, src, valid);
#endif
}

__device__ __forceinline__ void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::);
#endif
}

/** Waits until at most `PENDING` of this thread's newest groups are still in flight. */
template <int PENDING>
__device__ __forceinline__ void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(PENDING) : "memory");
#endif
}

}  // namespace flashinfer
