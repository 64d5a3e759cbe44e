// SPDX-License-Identifier: Apache-2.0
// Where a request's keys and values lie: in one strided matrix, or in the pages of a KV-cache.
#pragma once
#include <flashinfer/smem_tile.cuh>

namespace flashinfer {

/** Rows of one request at equal distances: a contiguous cache, or its part of a ragged one. */
struct ContiguousKv {
  /** `base` is row 0 of the head; ROWS rows from `first_row` on, those at or past `row_limit` as zeros. */
  template <bool IS_K, class T, class Tile, int ROWS, int THREADS, class Params>
  static __device__ __forceinline__ void load(const Params& params, uint32_t tile, const char* base, int first_row,
                                              int row_limit, int thread) {
    const int64_t row_stride = (IS_K ? params.k_stride_n : params.v_stride_n) * static_cast<int64_t>(sizeof(T));
    load_tile_async<Tile, ROWS, THREADS>(tile, base, row_stride, first_row, row_limit, thread);
  }
};

/**
 * Rows in pages of any size: row j is slot j % page_size of page kv_pages[j / page_size]. Division by the page size is a
 * multiplication by page_size_multiplier = ceil(2^32 / page_size) and a correction, exact below 2^31.
 */
struct PagedKv {
  /** `base` is slot 0 of page 0 of the head. */
  template <bool IS_K, class T, class Tile, int ROWS, int THREADS, class Params>
  static __device__ __forceinline__ void load(const Params& params, uint32_t tile, const char* base, int first_row,
                                              int row_limit, int thread) {
    const int64_t row_stride = (IS_K ? params.k_stride_n : params.v_stride_n) * static_cast<int64_t>(sizeof(T));
    const int64_t page_stride = (IS_K ? params.k_stride_page : params.v_stride_page) * static_cast<int64_t>(sizeof(T));
    constexpr int kPasses = ROWS * Tile::kChunks / THREADS;
    constexpr int kRowsPerPass = THREADS / Tile::kChunks;
    static_assert(kRowsPerPass * Tile::kChunks == THREADS && kPasses * kRowsPerPass == ROWS, "whole rows a pass only");
    const int row = thread / Tile::kChunks, chunk = thread % Tile::kChunks;
    const int32_t* pages = static_cast<const int32_t*>(params.kv_pages);
    const char* sources[kPasses];
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int wanted = first_row + row + i * kRowsPerPass;
      const int key = wanted < row_limit ? wanted : row_limit - 1;
      int page = static_cast<int>(__umulhi(static_cast<unsigned>(key), params.page_size_multiplier));
      if (params.page_size == 1) page = key;
      int slot = key - page * params.page_size;
      if (slot < 0) {  // the rounded-up multiplier may be one too high
        --page;
        slot += params.page_size;
      }
      sources[i] = base + __ldg(pages + page) * page_stride + slot * row_stride + chunk * 16;
    }
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const bool valid = first_row + row + i * kRowsPerPass < row_limit;
      cp_async_16(tile + Tile::offset(row + i * kRowsPerPass, chunk), sources[i], valid);
    }
  }
};

}  // namespace flashinfer
