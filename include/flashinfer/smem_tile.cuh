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
 * Starts copying rows [first_row, first_row + ROWS) of a matrix into a tile; rows at or past `row_limit` become zeros.
 * Every one of THREADS threads takes part. `base` points at row 0; rows are `row_stride` bytes apart.
 */
template <class Tile, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile_async(uint32_t tile, const char* base, int64_t row_stride, int first_row,
                                                int row_limit, int thread) {
  constexpr int kPasses = ROWS * Tile::kChunks / THREADS;
  constexpr int kRowsPerPass = THREADS / Tile::kChunks;
  static_assert(kRowsPerPass * Tile::kChunks == THREADS && kPasses * kRowsPerPass == ROWS, "whole rows a pass only");
  const int row = thread / Tile::kChunks, chunk = thread % Tile::kChunks;
  const char* src = base + (first_row + row) * row_stride + chunk * 16;
  const int64_t pass_stride = kRowsPerPass * row_stride;
  if (first_row + ROWS <= row_limit) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      cp_async_16(tile + Tile::offset(row + i * kRowsPerPass, chunk), src, true);
      src += pass_stride;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const bool valid = first_row + row + i * kRowsPerPass < row_limit;
      cp_async_16(tile + Tile::offset(row + i * kRowsPerPass, chunk), valid ? src : base, valid);
      src += pass_stride;
    }
  }
}

}  // namespace flashinfer
