// SPDX-License-Identifier: Apache-2.0
// The steps around attention over a paged KV-cache: writing new tokens into pages, and the indices this needs.
#pragma once
#include <flashinfer/find_request.cuh>
#include <flashinfer/pdl.cuh>
#include <flashinfer/vector.cuh>

namespace flashinfer {

/** BYTES: of an access; elements are only moved. ROWS: tokens a thread moves its part of. STREAM: by store_once. */
template <int BYTES, int ROWS, bool STREAM>
struct AppendConfig {
  static constexpr int kBytes = BYTES;
  static constexpr int kRows = ROWS;
  static constexpr bool kStream = STREAM;
  /** Most tokens that the threads of a block share at a time. */
  static constexpr int kMaxSlots = 32;
};

namespace detail {

/** Where a token goes. */
struct PageEntry {
  int page, entry;
};

/** page < 0: nowhere. The host cannot see the indices, so nothing they hold may lead out of the cache. */
template <class Params>
__device__ __forceinline__ PageEntry find_page_entry(const Params& params, uint32_t row) {
  const int* indptr = static_cast<const int*>(params.kv_indptr);
  const int request = static_cast<const int*>(params.batch_indices)[row];
  const int position = static_cast<const int*>(params.positions)[row];
  if (request < 0 || request >= params.batch_size || position < 0) return {-1, 0};
  const int page_of_request = position / params.page_size;
  const int64_t index = static_cast<int64_t>(indptr[request]) + page_of_request;
  if (index < 0 || index >= indptr[request + 1] || index >= params.num_indices) return {-1, 0};
  const int page = static_cast<const int*>(params.kv_indices)[index];
  return {page < params.num_pages ? page : -1, position - page_of_request * params.page_size};
}

}  // namespace detail

/**
 * Copies k and v of `rows` tokens to their places in the cache. params: strides in bytes; k_chunks, v_chunks accesses a
 * head, items = heads * (k_chunks + v_chunks) a token; slots tokens whose items fit into a block, or 1, whose items are
 * spread along the grid's y. Tokens of request -1, and those that the page table has no place for, are left out.
 */
template <class Config, class Params>
__device__ __forceinline__ void append_paged_kv(const Params& params) {
  constexpr int kBytes = Config::kBytes, kRows = Config::kRows;
  __shared__ detail::PageEntry entries[Config::kMaxSlots * kRows];
  const uint32_t items = params.items, slots = params.slots, rows = params.rows;
  const uint32_t index = blockIdx.y * blockDim.x + threadIdx.x;
  const uint32_t slot = index / items;
  uint32_t item = index - slot * items;
  const bool active = slot < slots;

  const uint32_t k_items = params.heads * params.k_chunks;
  const bool is_k = item < k_items;
  if (!is_k) item -= k_items;
  const uint32_t chunks = is_k ? params.k_chunks : params.v_chunks;
  const int64_t head = item / chunks;
  const int64_t offset = (item - head * chunks) * kBytes;
  const uint8_t* from = static_cast<const uint8_t*>(is_k ? params.k : params.v) +
                        head * (is_k ? params.k_stride_h : params.v_stride_h) + offset;
  uint8_t* to = static_cast<uint8_t*>(is_k ? params.k_cache : params.v_cache) +
                head * (is_k ? params.k_cache_stride_h : params.v_cache_stride_h) + offset;
  const int64_t stride_n = is_k ? params.k_stride_n : params.v_stride_n;
  const int64_t stride_page = is_k ? params.k_cache_stride_page : params.v_cache_stride_page;
  const int64_t stride_entry = is_k ? params.k_cache_stride_n : params.v_cache_stride_n;

  wait_for_previous_grid();
  launch_next_grid();
  const uint32_t base = blockIdx.x * slots * kRows;
  Vector<uint8_t, kBytes> data[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const uint32_t row = base + r * slots + slot;
    if (active && row < rows) data[r] = load_once<uint8_t, kBytes>(from + row * stride_n);
  }
  // Looked up once a token, while its data is on the way.
  if (threadIdx.x < slots * kRows && base + threadIdx.x < rows) {
    entries[threadIdx.x] = detail::find_page_entry(params, base + threadIdx.x);
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const uint32_t local = r * slots + slot;
    if (!active || base + local >= rows) continue;
    const detail::PageEntry at = entries[local];
    if (at.page < 0) continue;
    uint8_t* place = to + at.page * stride_page + at.entry * stride_entry;
    if constexpr (Config::kStream) {
      store_once<uint8_t, kBytes>(place, data[r]);
    } else {
      store<uint8_t, kBytes>(place, data[r]);
    }
  }
}

/**
 * Request and position of each appended token: those of request r, rows append_indptr[r] up to append_indptr[r + 1], are
 * the last of its seq_lens[r]. Rows of no request get -1 and 0.
 */
template <class Params>
__device__ __forceinline__ void batch_indices_positions(const Params& params) {
  const uint32_t row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= static_cast<uint32_t>(params.rows)) return;
  const int* indptr = static_cast<const int*>(params.append_indptr);
  const int last = indptr[params.batch_size], token = static_cast<int>(row);
  int request = -1, position = 0;
  if (params.batch_size > 0 && token >= indptr[0] && token < last) {
    request = find_request(indptr, params.batch_size, row);
    position = static_cast<const int*>(params.seq_lens)[request] - (indptr[request + 1] - token);
  }
  static_cast<int*>(params.batch_indices)[row] = request;
  static_cast<int*>(params.positions)[row] = position;
}

/** Tokens of each request: all pages are full but the last. */
template <class Params>
__device__ __forceinline__ void seq_lens(const Params& params) {
  const int request = blockIdx.x * blockDim.x + threadIdx.x;
  if (request >= params.batch_size) return;
  const int* indptr = static_cast<const int*>(params.kv_indptr);
  const int full = indptr[request + 1] - indptr[request] - 1;
  static_cast<int*>(params.seq_lens)[request] =
      (full > 0 ? full : 0) * params.page_size + static_cast<const int*>(params.kv_last_page_len)[request];
}

}  // namespace flashinfer
