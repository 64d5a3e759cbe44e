// SPDX-License-Identifier: Apache-2.0
// Copies between any strides. The host drops and merges dimensions and orders them by the strides of dst, fastest last
// (packages/core/src/tensor/copyPlan.ts); strides are in elements of Config::Element, at most 16 bytes.
#pragma once

#include "flashinfer/dtype.cuh"

namespace flashinfer {

struct alignas(16) Bytes16 {
  uint32_t words[4];
};

/** Index: uint32_t while the number of elements fits in it, whose division is several times faster, else uint64_t. */
template <class Element_, int kRank_, class Index_>
struct CopyConfig {
  using Element = Element_;
  using Index = Index_;
  static constexpr int kRank = kRank_;
  static constexpr int kUnroll = 4;
  static constexpr int kTile = 32;
};

namespace detail {

struct CopyOffsets {
  int64_t src = 0;
  int64_t dst = 0;
};

/** Offsets of item `index` of the first kRank dimensions. */
template <int kRank, class Index, class Params>
__device__ __forceinline__ CopyOffsets copy_offsets(const Params& params, Index index) {
  const int64_t shape[8] = {params.shape0, params.shape1, params.shape2, params.shape3,
                            params.shape4, params.shape5, params.shape6, params.shape7};
  const int64_t src[8] = {params.src_stride0, params.src_stride1, params.src_stride2, params.src_stride3,
                          params.src_stride4, params.src_stride5, params.src_stride6, params.src_stride7};
  const int64_t dst[8] = {params.dst_stride0, params.dst_stride1, params.dst_stride2, params.dst_stride3,
                          params.dst_stride4, params.dst_stride5, params.dst_stride6, params.dst_stride7};
  CopyOffsets offsets;
#pragma unroll
  for (int d = kRank - 1; d >= 0; d--) {
    const Index size = static_cast<Index>(shape[d]);
    const Index next = d == 0 ? 0 : index / size;
    const int64_t i = static_cast<int64_t>(index - next * size);
    offsets.src += i * src[d];
    offsets.dst += i * dst[d];
    index = next;
  }
  return offsets;
}

template <int kDim, class Params>
__device__ __forceinline__ int64_t copy_shape(const Params& params) {
  const int64_t shape[8] = {params.shape0, params.shape1, params.shape2, params.shape3,
                            params.shape4, params.shape5, params.shape6, params.shape7};
  return shape[kDim];
}

template <int kDim, class Params>
__device__ __forceinline__ CopyOffsets copy_strides(const Params& params) {
  const int64_t src[8] = {params.src_stride0, params.src_stride1, params.src_stride2, params.src_stride3,
                          params.src_stride4, params.src_stride5, params.src_stride6, params.src_stride7};
  const int64_t dst[8] = {params.dst_stride0, params.dst_stride1, params.dst_stride2, params.dst_stride3,
                          params.dst_stride4, params.dst_stride5, params.dst_stride6, params.dst_stride7};
  return {src[kDim], dst[kDim]};
}

}  // namespace detail

/** One element a thread and step; `params.count` elements. Each block takes blockDim.x * kUnroll of them. */
template <class Config, class Params>
__device__ __forceinline__ void copy_strided(const Params& params) {
  using Element = typename Config::Element;
  using Index = typename Config::Index;
  const Element* src = static_cast<const Element*>(params.src);
  Element* dst = static_cast<Element*>(params.dst);
  const Index count = static_cast<Index>(params.count);
  const Index first = static_cast<Index>(blockIdx.x) * (blockDim.x * Config::kUnroll) + threadIdx.x;

  Element values[Config::kUnroll];
  int64_t targets[Config::kUnroll];
#pragma unroll
  for (int u = 0; u < Config::kUnroll; u++) {
    const Index i = first + u * blockDim.x;
    if (i >= count) continue;
    const detail::CopyOffsets offsets = detail::copy_offsets<Config::kRank>(params, i);
    values[u] = src[offsets.src];
    targets[u] = offsets.dst;
  }
#pragma unroll
  for (int u = 0; u < Config::kUnroll; u++) {
    const Index i = first + u * blockDim.x;
    if (i < count) dst[targets[u]] = values[u];
  }
}

/**
 * The last dimension is the fastest of dst, the one before it the fastest of src: a tile goes through shared memory, so
 * that both sides touch consecutive addresses. One block a tile; `params.count` tiles, in the order of the dimensions.
 */
template <class Config, class Params>
__device__ __forceinline__ void copy_transposed(const Params& params) {
  using Element = typename Config::Element;
  using Index = typename Config::Index;
  constexpr int kTile = Config::kTile;
  __shared__ Element tile[kTile][kTile + 1];  // the extra column keeps a column's elements in different banks

  const int64_t across_size = detail::copy_shape<Config::kRank - 2>(params);
  const int64_t along_size = detail::copy_shape<Config::kRank - 1>(params);
  const detail::CopyOffsets across = detail::copy_strides<Config::kRank - 2>(params);
  const detail::CopyOffsets along = detail::copy_strides<Config::kRank - 1>(params);
  const Index across_tiles = static_cast<Index>((across_size + kTile - 1) / kTile);
  const Index along_tiles = static_cast<Index>((along_size + kTile - 1) / kTile);

  const Index block = static_cast<Index>(blockIdx.x);
  const Index rest = block / along_tiles;
  const int64_t along_start = static_cast<int64_t>(block - rest * along_tiles) * kTile;
  const Index outer = rest / across_tiles;
  const int64_t across_start = static_cast<int64_t>(rest - outer * across_tiles) * kTile;
  const detail::CopyOffsets base = detail::copy_offsets<Config::kRank - 2>(params, outer);
  const Element* src = static_cast<const Element*>(params.src) + base.src;
  Element* dst = static_cast<Element*>(params.dst) + base.dst;

  const int lane = threadIdx.x % kTile;
  const int rows = blockDim.x / kTile;
  for (int row = threadIdx.x / kTile; row < kTile; row += rows) {
    const int64_t i = across_start + lane;
    const int64_t j = along_start + row;
    if (i < across_size && j < along_size) tile[row][lane] = src[i * across.src + j * along.src];
  }
  __syncthreads();
  for (int row = threadIdx.x / kTile; row < kTile; row += rows) {
    const int64_t i = across_start + row;
    const int64_t j = along_start + lane;
    if (i < across_size && j < along_size) dst[i * across.dst + j * along.dst] = tile[lane][row];
  }
}

}  // namespace flashinfer
