// SPDX-License-Identifier: Apache-2.0
// A tile of 16-bit elements in shared memory, rows of COLS elements, with 16-byte chunks xor-swizzled by row:
// the eight rows one ldmatrix phase reads fall into eight different 16-byte bank groups.
#pragma once
#include <flashinfer/cp_async.cuh>

namespace flashinfer {

template <int COLS>
struct SmemTile {
  static constexpr int kChunks = COLS / 8;
  static constexpr int kRowBytes = COLS * 2;
  static_assert(kChunks % 8 == 0, "rows shorter than 128 bytes would need another swizzle");

  /** Byte offset of 16-byte chunk `chunk` of row `row`. */
  static __device__ __forceinline__ uint32_t offset(int row, int chunk) {
    return row * kRowBytes + ((chunk ^ (row & 7)) << 4);
  }

  /**
   * From the address of (row, chunk), chunk 0 or 1, to (row + rows, chunk + 2 * pairs): one xor, the rest folds into
   * an immediate. `rows` must be a multiple of 8 and the tile aligned to 128 bytes.
   */
  static __device__ __forceinline__ uint32_t step(uint32_t address, int rows, int pairs) {
    return (address ^ ((pairs & 3) << 5)) + (pairs >> 2) * 128 + rows * kRowBytes;
  }
};

/** Rows of raw bytes in shared memory without a swizzle: fp8 tiles waiting for conversion. */
template <int ROW_BYTES>
struct LinearTile {
  static constexpr int kChunks = ROW_BYTES / 16;
  static __device__ __forceinline__ uint32_t offset(int row, int chunk) { return row * ROW_BYTES + (chunk << 4); }
};

/** std::conditional, which NVRTC does not have. */
template <bool CONDITION, class A, class B>
struct Choose {
  using type = A;
};
template <class A, class B>
struct Choose<false, A, B> {
  using type = B;
};

/**
 * How THREADS threads cover a tile of ROWS rows by 16-byte chunks: a pass takes some rows of one column of chunks, a
 * power of two wide, so that a thread's chunks of a row are a fixed distance apart: 24 chunks are three columns of 8,
 * after which the swizzle repeats.
 */
template <class Tile, int ROWS, int THREADS>
struct TileCover {
  static constexpr int kColumnChunks = Tile::kChunks & -Tile::kChunks;
  static constexpr int kRowsPerPass = THREADS / kColumnChunks;
  static constexpr int kPasses = (ROWS + kRowsPerPass - 1) / kRowsPerPass;
  static_assert(kRowsPerPass * kColumnChunks == THREADS, "whole rows a pass only");

  /** False where the last pass goes past the tile. */
  static __device__ __forceinline__ bool covers(int row) { return kPasses * kRowsPerPass == ROWS || row < ROWS; }
};

/**
 * Starts copying rows [first_row, first_row + ROWS) of a matrix into a tile; rows at or past `row_limit` become zeros.
 * Every one of THREADS threads takes part. `base` points at row 0; rows are `row_stride` bytes apart.
 */
template <class Tile, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile_async(uint32_t tile, const char* base, int64_t row_stride, int first_row,
                                                int row_limit, int thread) {
  using Cover = TileCover<Tile, ROWS, THREADS>;
  const int first = thread / Cover::kColumnChunks, chunk = thread % Cover::kColumnChunks;
  const char* src = base + (first_row + first) * row_stride + chunk * 16;
  const int64_t pass_stride = Cover::kRowsPerPass * row_stride;
  if (first_row + ROWS <= row_limit) {
#pragma unroll
    for (int i = 0; i < Cover::kPasses; ++i) {
      const int row = first + i * Cover::kRowsPerPass;
#pragma unroll
      for (int c = 0; c < Tile::kChunks; c += Cover::kColumnChunks) {
        if (Cover::covers(row)) cp_async_16(tile + Tile::offset(row, chunk) + c * 16, src + c * 16, true);
      }
      src += pass_stride;
    }
  } else {
#pragma unroll
    for (int i = 0; i < Cover::kPasses; ++i) {
      const int row = first + i * Cover::kRowsPerPass;
      const bool valid = first_row + row < row_limit;
#pragma unroll
      for (int c = 0; c < Tile::kChunks; c += Cover::kColumnChunks) {
        if (Cover::covers(row)) {
          cp_async_16(tile + Tile::offset(row, chunk) + c * 16, valid ? src + c * 16 : base, valid);
        }
      }
      src += pass_stride;
    }
  }
}

}  // namespace flashinfer
