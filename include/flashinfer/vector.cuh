// SPDX-License-Identifier: Apache-2.0
// N elements in registers, moved in accesses of up to 16 bytes, computed with as floats.
#pragma once
#include <flashinfer/convert.cuh>

namespace flashinfer {

/** sizeof(T) * N is a power of two up to 32; below 4 bytes the upper bits of the word are not defined. */
template <class T, int N>
struct Vector {
  static constexpr int kBytes = static_cast<int>(sizeof(T)) * N;
  static constexpr int kWords = kBytes < 4 ? 1 : kBytes / 4;
  static_assert(kBytes <= 32 && (kBytes & (kBytes - 1)) == 0, "one or two accesses");
  uint32_t words[kWords];
};

/**
 * Reads data that is used once. Volatile, so that it stays behind wait_for_previous_grid(); not the read-only path, since
 * operators in place write where they read. Without a hint to pass L1 by: that cost 3 to 8 % of the bandwidth (H200,
 * siluAndMul 8192 x 14336 174.5 to 161.8 us, rmsnorm 8192 x 8192 69.0 to 65.7), L1::evict_first as much, L2 hints nothing.
 */
template <class T, int N>
__device__ __forceinline__ Vector<T, N> load_once(const T* address) {
  using V = Vector<T, N>;
  V v;
  if constexpr (V::kBytes == 1) {
    asm volatile("ld.global.u8 %0, [%1];\n" : "=r"(v.words[0]) : "l"(address));
  } else if constexpr (V::kBytes == 2) {
    uint16_t bits;
    asm volatile("ld.global.u16 %0, [%1];\n" : "=h"(bits) : "l"(address));
    v.words[0] = bits;
  } else if constexpr (V::kBytes == 4) {
    asm volatile("ld.global.u32 %0, [%1];\n" : "=r"(v.words[0]) : "l"(address));
  } else if constexpr (V::kBytes == 8) {
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];\n" : "=r"(v.words[0]), "=r"(v.words[1]) : "l"(address));
  } else {
#pragma unroll
    for (int i = 0; i < V::kWords; i += 4) {
      asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n"
                   : "=r"(v.words[i]), "=r"(v.words[i + 1]), "=r"(v.words[i + 2]), "=r"(v.words[i + 3])
                   : "l"(reinterpret_cast<const uint32_t*>(address) + i));
    }
  }
  return v;
}

/** Reads what other threads of the multiprocessor read too: weights, tables. */
template <class T, int N>
__device__ __forceinline__ Vector<T, N> load_shared_by_all(const T* address) {
  using V = Vector<T, N>;
  V v;
  if constexpr (V::kBytes == 1) {
    v.words[0] = *reinterpret_cast<const uint8_t*>(address);
  } else if constexpr (V::kBytes == 2) {
    v.words[0] = *reinterpret_cast<const uint16_t*>(address);
  } else if constexpr (V::kBytes == 4) {
    v.words[0] = *reinterpret_cast<const uint32_t*>(address);
  } else if constexpr (V::kBytes == 8) {
    const uint2 pair = *reinterpret_cast<const uint2*>(address);
    v.words[0] = pair.x, v.words[1] = pair.y;
  } else {
#pragma unroll
    for (int i = 0; i < V::kWords; i += 4) {
      const uint4 four = reinterpret_cast<const uint4*>(address)[i / 4];
      v.words[i] = four.x, v.words[i + 1] = four.y, v.words[i + 2] = four.z, v.words[i + 3] = four.w;
    }
  }
  return v;
}

template <class T, int N>
__device__ __forceinline__ void store(T* address, const Vector<T, N>& v) {
  using V = Vector<T, N>;
  if constexpr (V::kBytes == 1) {
    *reinterpret_cast<uint8_t*>(address) = static_cast<uint8_t>(v.words[0]);
  } else if constexpr (V::kBytes == 2) {
    *reinterpret_cast<uint16_t*>(address) = static_cast<uint16_t>(v.words[0]);
  } else if constexpr (V::kBytes == 4) {
    *reinterpret_cast<uint32_t*>(address) = v.words[0];
  } else if constexpr (V::kBytes == 8) {
    *reinterpret_cast<uint2*>(address) = make_uint2(v.words[0], v.words[1]);
  } else {
#pragma unroll
    for (int i = 0; i < V::kWords; i += 4) {
      reinterpret_cast<uint4*>(address)[i / 4] = make_uint4(v.words[i], v.words[i + 1], v.words[i + 2], v.words[i + 3]);
    }
  }
}

/** As store, of data that nothing reads before much else was written: first to leave the L2 cache. */
template <class T, int N>
__device__ __forceinline__ void store_once(T* address, const Vector<T, N>& v) {
  using V = Vector<T, N>;
  if constexpr (V::kBytes < 4) {
    store<T, N>(address, v);
  } else if constexpr (V::kBytes == 4) {
    asm volatile("st.global.cs.u32 [%0], %1;\n" ::"l"(address), "r"(v.words[0]) : "memory");
  } else if constexpr (V::kBytes == 8) {
    asm volatile("st.global.cs.v2.u32 [%0], {%1, %2};\n" ::"l"(address), "r"(v.words[0]), "r"(v.words[1]) : "memory");
  } else {
#pragma unroll
    for (int i = 0; i < V::kWords; i += 4) {
      asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};\n" ::"l"(reinterpret_cast<uint32_t*>(address) + i),
                   "r"(v.words[i]), "r"(v.words[i + 1]), "r"(v.words[i + 2]), "r"(v.words[i + 3])
                   : "memory");
    }
  }
}

/** Exact. T is a 16-bit type or float. */
template <class T, int N>
__device__ __forceinline__ void unpack(const Vector<T, N>& v, float (&x)[N]) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = __uint_as_float(v.words[i]);
  } else if constexpr (N == 1) {
    x[0] = to_float(T{static_cast<uint16_t>(v.words[0])});
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 2) unpack2<T>(v.words[i / 2], x[i], x[i + 1]);
  }
}

/** Rounds to nearest even; fp8 as from_float. */
template <class T, int N>
__device__ __forceinline__ Vector<T, N> pack(const float (&x)[N]) {
  Vector<T, N> v;
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < N; ++i) v.words[i] = __float_as_uint(x[i]);
  } else if constexpr (sizeof(T) == 2 && N == 1) {
    v.words[0] = from_float<T>(x[0]).bits;
  } else if constexpr (sizeof(T) == 2) {
#pragma unroll
    for (int i = 0; i < N; i += 2) v.words[i / 2] = pack_floats<T>(x[i], x[i + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < Vector<T, N>::kWords; ++i) v.words[i] = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) v.words[i / 4] |= static_cast<uint32_t>(from_float<T>(x[i]).bits) << (i % 4 * 8);
  }
  return v;
}

}  // namespace flashinfer
