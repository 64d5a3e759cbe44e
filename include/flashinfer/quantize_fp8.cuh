// SPDX-License-Identifier: Apache-2.0
// Scaled fp8: q = fp8(x / scale), one scale a tile of rows and columns, and back. Tiles are tokens, groups of a token,
// blocks, or the whole tensor.
#pragma once
#include <flashinfer/reduce.cuh>
#include <flashinfer/saturate_fp8.cuh>
#include <flashinfer/vector.cuh>

namespace flashinfer {

/** Where scales come from: the tile's largest magnitude, memory, or the largest of partial maxima (the whole tensor). */
enum class Fp8Scale { kTile, kGiven, kPartials };

/**
 * VEC: elements an access; VECS: accesses a thread keeps. LANES: threads a tile, a power of two up to 32 or the whole
 * block; TILES: tiles a block. COLUMNS: accesses of a tile's row, 0: a tile is a whole row.
 */
template <class T_, class Out_, int VEC, int VECS, int LANES, int TILES, int COLUMNS, Fp8Scale SCALE>
struct QuantizeFp8Config {
  using T = T_;
  using Out = Out_;
  static constexpr int kVec = VEC;
  static constexpr int kVecs = VECS;
  static constexpr int kLanes = LANES;
  static constexpr int kTiles = TILES;
  static constexpr int kColumns = COLUMNS;
  static constexpr Fp8Scale kScale = SCALE;
  static_assert(LANES > 32 ? TILES == 1 : (LANES & (LANES - 1)) == 0, "a group of lanes is part of a warp or a block");
};

namespace detail {

/** The largest finite magnitude; infinities saturate, so they must not decide the scale. NaN is left out too. */
template <int N>
__device__ __forceinline__ float finite_max(const float (&x)[N], float largest) {
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float magnitude = fabsf(x[j]);
    if (magnitude < __int_as_float(0x7f800000)) largest = fmaxf(largest, magnitude);
  }
  return largest;
}

/** Zeros have scale 1, and no scale is subnormal: its reciprocal is finite. */
template <class Out>
__device__ __forceinline__ float fp8_scale(float largest) {
  return largest > 0.0f ? fmaxf(largest / largest_fp8<Out>(), 1.17549435e-38f) : 1.0f;
}

}  // namespace detail

/**
 * params: x, out, x_stride and out_stride between rows in elements, rows, columns = accesses of a row; tiles =
 * row_tiles * column_tiles, of tile_rows rows and tile_vectors = tile_rows * COLUMNS (or columns) accesses; scales,
 * float32, of tile (r, c) at r * scale_stride_r + c * scale_stride_c, written unless given; partials, num_partials.
 */
template <class Config, class Params>
__device__ __forceinline__ void quantize_fp8(const Params& params) {
  using T = typename Config::T;
  using Out = typename Config::Out;
  constexpr int kVec = Config::kVec, kVecs = Config::kVecs, kLanes = Config::kLanes;
  const uint32_t tile = blockIdx.x * Config::kTiles + threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const uint32_t column_tiles = params.column_tiles;
  const uint32_t tile_row = tile / column_tiles, tile_column = tile - tile_row * column_tiles;
  // All threads of the block meet in the maxima, so a tile past the end has no accesses instead of returning.
  const uint32_t vectors = tile < static_cast<uint32_t>(params.tiles) ? params.tile_vectors : 0;
  const T* x = static_cast<const T*>(params.x);
  Out* out = static_cast<Out*>(params.out);

  const auto locate = [&](uint32_t v, uint32_t& row, uint32_t& column) {
    row = tile_row, column = v;
    if constexpr (Config::kColumns > 0) {
      row = tile_row * params.tile_rows + v / Config::kColumns;
      column = tile_column * Config::kColumns + v % Config::kColumns;
    }
    return v < vectors && row < static_cast<uint32_t>(params.rows) && column < static_cast<uint32_t>(params.columns);
  };
  Vector<T, kVec> kept[kVecs];
  const auto load = [&](uint32_t first) {
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      uint32_t row, column;
      if (!locate(first + lane + i * kLanes, row, column)) continue;
      kept[i] = load_once<T, kVec>(x + row * params.x_stride + static_cast<int64_t>(column) * kVec);
    }
  };

  constexpr uint32_t kChunk = kLanes * kVecs;
  float largest = 0.0f;
  if constexpr (Config::kScale == Fp8Scale::kTile) {
    for (uint32_t first = 0; first < params.tile_vectors; first += kChunk) {
      load(first);
#pragma unroll
      for (int i = 0; i < kVecs; ++i) {
        uint32_t row, column;
        if (!locate(first + lane + i * kLanes, row, column)) continue;
        float values[kVec];
        unpack<T, kVec>(kept[i], values);
        largest = detail::finite_max(values, largest);
      }
    }
    GroupMax<kLanes> group_max;
    largest = group_max(largest);
  } else if constexpr (Config::kScale == Fp8Scale::kPartials) {
    load(0);
    for (int i = lane; i < params.num_partials; i += kLanes) {
      largest = fmaxf(largest, static_cast<const float*>(params.partials)[i]);
    }
    GroupMax<kLanes> group_max;
    largest = group_max(largest);
  } else {
    load(0);
  }

  float* scales = static_cast<float*>(params.scales);
  if (vectors == 0) return;
  const int64_t place = tile_row * params.scale_stride_r + tile_column * params.scale_stride_c;
  float scale;
  if constexpr (Config::kScale == Fp8Scale::kGiven) {
    scale = scales[place];
  } else {
    scale = detail::fp8_scale<Out>(largest);
    const bool writes = Config::kScale == Fp8Scale::kTile ? lane == 0 : blockIdx.x == 0 && threadIdx.x == 0;
    if (writes) scales[place] = scale;
  }
  const float factor = 1.0f / scale;
  for (uint32_t first = 0; first < vectors; first += kChunk) {
    // The maximum of a longer tile needed all of it before: it is read again.
    if (Config::kScale == Fp8Scale::kTile ? vectors > kChunk : first > 0) load(first);
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      uint32_t row, column;
      if (!locate(first + lane + i * kLanes, row, column)) continue;
      float values[kVec];
      unpack<T, kVec>(kept[i], values);
#pragma unroll
      for (int j = 0; j < kVec; ++j) values[j] *= factor;
      store<Out, kVec>(out + row * params.out_stride + static_cast<int64_t>(column) * kVec,
                       pack_saturated<Out, kVec>(values));
    }
  }
}

template <class T_, int VEC>
struct Fp8MaxConfig {
  using T = T_;
  static constexpr int kVec = VEC;
};

/** Largest finite magnitude of what each block reads. params: x, x_stride, rows, columns, partials `[gridDim.x]`. */
template <class Config, class Params>
__device__ __forceinline__ void fp8_partial_max(const Params& params) {
  using T = typename Config::T;
  constexpr int kVec = Config::kVec, kUnroll = 4, kThreads = 256;
  const int64_t columns = params.columns, total = params.rows * columns;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  float largest = 0.0f;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; first < total;
       first += kUnroll * step) {
    Vector<T, kVec> loaded[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int64_t v = first + u * step, row = v < columns ? 0 : v / columns;
      if (v >= total) continue;
      loaded[u] = load_shared_by_all<T, kVec>(static_cast<const T*>(params.x) + row * params.x_stride +
                                              (v - row * columns) * kVec);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (first + u * step >= total) continue;
      float values[kVec];
      unpack<T, kVec>(loaded[u], values);
      largest = detail::finite_max(values, largest);
    }
  }
  GroupMax<kThreads> group_max;
  largest = group_max(largest);
  if (threadIdx.x == 0) static_cast<float*>(params.partials)[blockIdx.x] = largest;
}

/** In is an fp8 type. */
template <class In_, class Out_, int VEC>
struct DequantizeFp8Config {
  using In = In_;
  using Out = Out_;
  static constexpr int kVec = VEC;
};

/**
 * out = x * scale. params: x, out, x_stride, out_stride, rows, columns = accesses of a row; scales of tiles of tile_rows
 * rows and tile_columns accesses, placed as in quantize_fp8.
 */
template <class Config, class Params>
__device__ __forceinline__ void dequantize_fp8(const Params& params) {
  using In = typename Config::In;
  using Out = typename Config::Out;
  constexpr int kVec = Config::kVec;
  // 32 bits: 64-bit divisions would take longer than the memory.
  const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x, columns = params.columns;
  const uint32_t row = index / columns, column = index - row * columns;
  if (row >= static_cast<uint32_t>(params.rows)) return;
  const uint32_t tile_row = row / static_cast<uint32_t>(params.tile_rows);
  const uint32_t tile_column = column / static_cast<uint32_t>(params.tile_columns);
  const float scale =
      static_cast<const float*>(params.scales)[tile_row * params.scale_stride_r + tile_column * params.scale_stride_c];
  const Vector<In, kVec> loaded = load_once<In, kVec>(static_cast<const In*>(params.x) + row * params.x_stride +
                                                      static_cast<int64_t>(column) * kVec);
  float values[kVec];
#pragma unroll
  for (int j = 0; j < kVec; ++j) {
    values[j] = to_float(In{static_cast<uint8_t>(loaded.words[j / 4] >> (j % 4 * 8))}) * scale;
  }
  store<Out, kVec>(static_cast<Out*>(params.out) + row * params.out_stride + static_cast<int64_t>(column) * kVec,
                   pack<Out, kVec>(values));
}

}  // namespace flashinfer
