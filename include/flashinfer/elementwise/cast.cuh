// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "flashinfer/elementwise/convert.cuh"
#include "flashinfer/elementwise/pack.cuh"

namespace flashinfer {

/** Dst and Src are element types; kVec elements a memory access, to which both addresses must be aligned. */
template <class Src_, class Dst_, int kVec_>
struct CastConfig {
  using Src = Src_;
  using Dst = Dst_;
  static constexpr int kVec = kVec_;
  /** Accesses in flight a thread. */
  static constexpr int kUnroll = 4;
};

namespace detail {

/** Bytes that claim to be bool may hold anything; they are read as numbers. */
template <class T>
struct StoredAs {
  using type = T;
  static __device__ __forceinline__ T value(T stored) { return stored; }
};
template <>
struct StoredAs<bool> {
  using type = uint8_t;
  static __device__ __forceinline__ uint8_t value(uint8_t stored) { return stored != 0 ? 1 : 0; }
};

}  // namespace detail

/** dst[i] = convert(src[i]) for i < count. Each block takes blockDim.x * kUnroll accesses. */
template <class Config, class Params>
__device__ __forceinline__ void cast_contiguous(const Params& params) {
  using Dst = typename Config::Dst;
  using Source = detail::StoredAs<typename Config::Src>;
  using Stored = typename Source::type;
  using Load = Pack<Stored, Config::kVec>;
  using Store = Pack<Dst, Config::kVec>;
  const Stored* src = static_cast<const Stored*>(params.src);
  Dst* dst = static_cast<Dst*>(params.dst);
  const int64_t accesses = params.count / Config::kVec;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x * Config::kUnroll + threadIdx.x;

  Load loaded[Config::kUnroll];
#pragma unroll
  for (int u = 0; u < Config::kUnroll; u++) {
    const int64_t i = first + u * static_cast<int64_t>(blockDim.x);
    if (i < accesses) loaded[u] = reinterpret_cast<const Load*>(src)[i];
  }
#pragma unroll
  for (int u = 0; u < Config::kUnroll; u++) {
    const int64_t i = first + u * static_cast<int64_t>(blockDim.x);
    if (i >= accesses) break;
    Store result;
#pragma unroll
    for (int v = 0; v < Config::kVec; v++) result.values[v] = convert<Dst>(Source::value(loaded[u].values[v]));
    reinterpret_cast<Store*>(dst)[i] = result;
  }
  // What is left is shorter than one access.
  const int64_t rest = accesses * Config::kVec + first;
  if (rest < params.count && first < Config::kVec) dst[rest] = convert<Dst>(Source::value(src[rest]));
}

}  // namespace flashinfer
