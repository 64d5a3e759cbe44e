// SPDX-License-Identifier: Apache-2.0
// The steps around attention over a paged KV-cache: writing new tokens into pages, and the indices this needs.
#pragma once
#include <flashinfer/divide.cuh>
#include <flashinfer/find_request.cuh>
#include <flashinfer/pdl.cuh>
#include <flashinfer/prefetch.cuh>
#include <flashinfer/vector.cuh>

namespace flashinfer {

/**
 * BYTES: of an access; elements are only moved. ROWS: tokens a thread moves its part of. UNIFORM: the threads of a warp
 * move parts of the same tokens, as those of append_whole_tokens always do.
 */
template <int BYTES, int ROWS, bool UNIFORM>
struct AppendConfig {
  static constexpr int kBytes = BYTES;
  static constexpr int kRows = ROWS;
  static constexpr bool kUniform = UNIFORM;
};

namespace detail {

/** Where it is written, ahead of what is known about its use. */
__device__ __forceinline__ int load_int(const int* address) {
  return static_cast<int>(load_once<int, 1>(address).words[0]);
}

/** Where a token goes; page < 0: nowhere. */
struct PageEntry {
  int page, entry;
};

/**
 * The host cannot see the indices, so nothing they hold may lead out of the cache. GUESS: in decode a token is its
 * request; read ahead for that one, the bounds do not wait for the request.
 */
template <bool GUESS, class Params>
__device__ __forceinline__ PageEntry find_page_entry(const Params& params, uint32_t row) {
  const int* indptr = static_cast<const int*>(params.kv_indptr);
  const int request = load_int(static_cast<const int*>(params.batch_indices) + row);
  const int position = load_int(static_cast<const int*>(params.positions) + row);
  const int guess = static_cast<int>(row);
  int first = 0, last = 0;
  if constexpr (GUESS) {
    if (guess < params.batch_size) {
      first = load_int(indptr + guess);
      last = load_int(indptr + guess + 1);
    }
  }
  if (request < 0 || request >= params.batch_size || position < 0) return {-1, 0};
  if (!GUESS || request != guess) first = indptr[request], last = indptr[request + 1];
  const int page_of_request = divide(position, params.page_size, params.page_size_multiplier);
  const int64_t index = static_cast<int64_t>(first) + page_of_request;
  if (index < 0 || index >= last || index >= params.num_indices) return {-1, 0};
  const int page = static_cast<const int*>(params.kv_indices)[index];
  return {page < params.num_pages ? page : -1, position - page_of_request * params.page_size};
}

/** All threads of the grid together bring an array into L2, as far as they go. */
__device__ __forceinline__ void prefetch_together(const void* ints, int count) {
  constexpr uint32_t kIntsPerSector = 8;
  const uint32_t block = blockIdx.y * gridDim.x + blockIdx.x;
  const uint32_t at = (block * blockDim.x + threadIdx.x) * kIntsPerSector;
  if (at < static_cast<uint32_t>(count)) {
    asm volatile("prefetch.global.L2 [%0];\n" ::"l"(static_cast<const int*>(ints) + at));
  }
}

template <class Params>
__device__ __forceinline__ void prefetch_page_table(const Params& params) {
  prefetch_together(params.kv_indptr, params.batch_size + 1);
  prefetch_together(params.kv_indices, params.num_indices);
}

/** These find no page table in L2; behind them, and in an array of any length, few threads are enough to bring it. */
constexpr uint32_t kFirstBlocks = 64;

/**
 * Asks for k, by even threads, and v, by odd ones, of the tokens that a later block moves: params.ahead_run tokens a
 * thread, which lie together.
 */
template <class Params>
__device__ __forceinline__ void prefetch_later_tokens(const Params& params, uint32_t first, uint32_t tokens) {
  const uint32_t rows = params.rows, most = params.ahead_run, offset = threadIdx.x / 2 * most;
  const uint32_t row = first + params.ahead + offset;
  if (blockIdx.y > 0 || offset >= tokens || row >= rows) return;
  const bool is_k = threadIdx.x % 2 == 0;
  const uint32_t run = rows - row < most ? rows - row : most;
  prefetch_l2(
      static_cast<const uint8_t*>(is_k ? params.k : params.v) + row * (is_k ? params.k_stride_n : params.v_stride_n),
      run * (is_k ? params.k_ahead_bytes : params.v_ahead_bytes));
}

}  // namespace detail

/**
 * Copies k and v of `rows` tokens to their places in the cache. params: strides in bytes; k_chunks, v_chunks accesses a
 * head, items = heads * (k_chunks + v_chunks) a token; slots tokens whose items fit into a block, or 1, whose items are
 * spread along the grid's y; what divide() takes for divisors; ahead tokens from a block's own to those it asks for, as
 * many as there are for none; k_ahead_bytes and v_ahead_bytes of a token. Tokens of request -1, and those that the page
 * table has no place for, are left out.
 */
template <class Config, class Params>
__device__ __forceinline__ void append_paged_kv(const Params& params) {
  constexpr int kBytes = Config::kBytes, kRows = Config::kRows;
  const uint32_t items = params.items, slots = params.slots, rows = params.rows;
  const uint32_t index = blockIdx.y * blockDim.x + threadIdx.x;
  const uint32_t slot = divide(index, items, params.items_multiplier);
  uint32_t item = index - slot * items;
  const uint32_t k_items = params.heads * params.k_chunks;
  const bool is_k = item < k_items;
  if (!is_k) item -= k_items;
  const uint32_t chunks = is_k ? params.k_chunks : params.v_chunks;
  const uint32_t head = divide(item, chunks, is_k ? params.k_chunks_multiplier : params.v_chunks_multiplier);
  const int64_t offset = (item - head * chunks) * kBytes;
  const uint8_t* from = static_cast<const uint8_t*>(is_k ? params.k : params.v) +
                        head * (is_k ? params.k_stride_h : params.v_stride_h) + offset;
  const int64_t stride_n = is_k ? params.k_stride_n : params.v_stride_n;

  wait_for_previous_grid();
  launch_next_grid();
  // Few tokens take as long as their accesses that wait for one another: these find the indices in L2.
  if constexpr (kRows == 1) detail::prefetch_page_table(params);
  if (slot >= slots) return;
  const uint32_t first = blockIdx.x * slots * kRows + slot;
  Vector<uint8_t, kBytes> data[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const uint32_t row = first + r * slots;
    if (row < rows) data[r] = load_once<uint8_t, kBytes>(from + row * stride_n);
  }
  if constexpr (kRows > 1) {
    detail::prefetch_later_tokens(params, blockIdx.x * slots * kRows, slots * kRows);
    if (blockIdx.x < detail::kFirstBlocks) detail::prefetch_page_table(params);
  }
  // Looked up while the data is on the way, a token a lane where all lanes move the same ones.
  detail::PageEntry places[kRows];
  if constexpr (Config::kUniform && kRows > 1) {
    const uint32_t lane = threadIdx.x % 32, row = first + lane * slots;
    const detail::PageEntry mine =
        lane < kRows && row < rows ? detail::find_page_entry<kRows == 1>(params, row) : detail::PageEntry{-1, 0};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      places[r] = {__shfl_sync(0xffffffffu, mine.page, r), __shfl_sync(0xffffffffu, mine.entry, r)};
    }
  } else {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint32_t row = first + r * slots;
      places[r] = row < rows ? detail::find_page_entry<kRows == 1>(params, row) : detail::PageEntry{-1, 0};
    }
  }
  uint8_t* to = static_cast<uint8_t*>(is_k ? params.k_cache : params.v_cache) +
                head * (is_k ? params.k_cache_stride_h : params.v_cache_stride_h) + offset;
  const int64_t stride_page = is_k ? params.k_cache_stride_page : params.v_cache_stride_page;
  const int64_t stride_entry = is_k ? params.k_cache_stride_n : params.v_cache_stride_n;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (places[r].page < 0) continue;
    store<uint8_t, kBytes>(to + places[r].page * stride_page + places[r].entry * stride_entry, data[r]);
  }
}

/**
 * As append_paged_kv, of tokens whose k and v are two runs of memory of equal length, also in the cache: a thread has the same
 * part of both, and neither heads nor tokens to divide by. params.items: accesses of k, or of v, of a token, spread along
 * threads and the grid's y; heads, chunks, slots and their strides and multipliers are not read.
 */
template <class Config, class Params>
__device__ __forceinline__ void append_whole_tokens(const Params& params) {
  constexpr int kBytes = Config::kBytes, kRows = Config::kRows;
  const uint32_t rows = params.rows, first = blockIdx.x * kRows;
  const uint32_t item = blockIdx.y * blockDim.x + threadIdx.x;
  const int64_t offset = item * kBytes;

  wait_for_previous_grid();
  launch_next_grid();
  if constexpr (kRows == 1) detail::prefetch_page_table(params);
  if (item >= static_cast<uint32_t>(params.items)) return;
  Vector<uint8_t, kBytes> k[kRows], v[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t row = first + r;
    if (row >= rows) break;
    k[r] = load_once<uint8_t, kBytes>(static_cast<const uint8_t*>(params.k) + row * params.k_stride_n + offset);
    v[r] = load_once<uint8_t, kBytes>(static_cast<const uint8_t*>(params.v) + row * params.v_stride_n + offset);
  }
  if constexpr (kRows > 1) {
    detail::prefetch_later_tokens(params, first, kRows);
    if (blockIdx.x < detail::kFirstBlocks) detail::prefetch_page_table(params);
  }
  detail::PageEntry places[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    places[r] = first + r < rows ? detail::find_page_entry<kRows == 1>(params, first + r) : detail::PageEntry{-1, 0};
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const auto [page, entry] = places[r];
    if (page < 0) continue;
    store<uint8_t, kBytes>(static_cast<uint8_t*>(params.k_cache) + page * params.k_cache_stride_page +
                               entry * params.k_cache_stride_n + offset,
                           k[r]);
    store<uint8_t, kBytes>(static_cast<uint8_t*>(params.v_cache) + page * params.v_cache_stride_page +
                               entry * params.v_cache_stride_n + offset,
                           v[r]);
  }
}

/**
 * Request and position of each appended token: those of request r, rows append_indptr[r] up to append_indptr[r + 1], are
 * the last of its seq_lens[r]. Rows of no request get -1 and 0. What a guess of the request needs is read with the bounds of
 * all: a search waits for one access after the other (64 requests of a token, H200: 4.1 us for 5.7).
 */
template <class Params>
__device__ __forceinline__ void batch_indices_positions(const Params& params) {
  const uint32_t row = blockIdx.x * blockDim.x + threadIdx.x;
  const int* indptr = static_cast<const int*>(params.append_indptr);
  const int* seq_lens = static_cast<const int*>(params.seq_lens);
  const int batch_size = params.batch_size, token = static_cast<int>(row);
  wait_for_previous_grid();
  launch_next_grid();
  if (row >= static_cast<uint32_t>(params.rows)) return;
  int request = -1, position = 0;
  if (batch_size > 0) {
    const int guess = guess_request(row, params.requests_per_row, batch_size);
    const int begin = detail::load_int(indptr), end = detail::load_int(indptr + batch_size);
    const int first = detail::load_int(indptr + guess);
    int next = detail::load_int(indptr + guess + 1), length = detail::load_int(seq_lens + guess);
    if (token >= begin && token < end) {
      request = guess;
      if (token < first || token >= next) {
        request = find_request(indptr, batch_size, row);
        next = indptr[request + 1], length = seq_lens[request];
      }
      position = length - (next - token);
    }
  }
  static_cast<int*>(params.batch_indices)[row] = request;
  static_cast<int*>(params.positions)[row] = position;
}

/** Tokens of each request: all pages are full but the last. */
template <class Params>
__device__ __forceinline__ void seq_lens(const Params& params) {
  const int request = blockIdx.x * blockDim.x + threadIdx.x;
  wait_for_previous_grid();
  launch_next_grid();
  if (request >= params.batch_size) return;
  const int* indptr = static_cast<const int*>(params.kv_indptr);
  const int full = indptr[request + 1] - indptr[request] - 1;
  static_cast<int*>(params.seq_lens)[request] =
      (full > 0 ? full : 0) * params.page_size + static_cast<const int*>(params.kv_last_page_len)[request];
}

}  // namespace flashinfer
