// SPDX-License-Identifier: Apache-2.0
// Copies the rows of pages in the order of the page list, for kernels that read each of them many times: the copy engine
// brings a tile of rows at equal distances by two requests, one of scattered rows by none. docs/fa3.md has the figures.
//
// arranged: keys [heads, rows, D_QK], then values [heads, rows, D_VO]; a request's rows begin at its first page's entry in
// the list times the page size.
#pragma once
#include <flashinfer/attention/kv_source.cuh>
#include <flashinfer/divide.cuh>

namespace flashinfer {

/** Bytes of a row of keys and of values; a thread moves 16 of them for each of ROWS rows. */
template <int K_BYTES, int V_BYTES, int THREADS, int ROWS>
struct ArrangePagesConfig {
  static constexpr int kKChunks = K_BYTES / 16, kChunks = kKChunks + V_BYTES / 16;
  static constexpr int kThreads = THREADS, kRows = ROWS;
  /** Rows of one head that a block moves at a time. */
  static constexpr int kSlots = kThreads / kChunks;
};

/** Grid: blocks for all rows of all heads, of which those of a token are neighbours: so are they in most caches. */
template <class C, class Params>
__device__ __forceinline__ void arrange_pages(const Params& params) {
  const int thread = threadIdx.x, slot = thread / C::kChunks, item = thread % C::kChunks;
  if (slot >= C::kSlots) return;
  const bool is_k = item < C::kKChunks;
  const int chunk = is_k ? item : item - C::kKChunks, chunks = is_k ? C::kKChunks : C::kChunks - C::kKChunks;
  const int64_t stride_page = is_k ? params.k_stride_page : params.v_stride_page;
  const int64_t stride_n = is_k ? params.k_stride_n : params.v_stride_n;
  const int64_t stride_h = is_k ? params.k_stride_h : params.v_stride_h;
  const char* from = static_cast<const char*>(is_k ? params.k : params.v) + chunk * 16;
  const int64_t all = static_cast<int64_t>(params.num_kv_heads) * params.rows;
  char* to = static_cast<char*>(params.arranged) + ((is_k ? 0 : all * C::kKChunks) + chunk) * 16;
  // All lookups are under way before the first copy, and all copies before the first store.
  uint32_t rows[C::kRows], heads[C::kRows];
  const char* sources[C::kRows];
  uint4 pieces[C::kRows];
#pragma unroll
  for (int i = 0; i < C::kRows; ++i) {
    const uint32_t index = (blockIdx.x * C::kRows + i) * C::kSlots + slot;
    rows[i] = divide(index, params.num_kv_heads, params.heads_multiplier);
    heads[i] = index - rows[i] * params.num_kv_heads;
    if (rows[i] >= params.rows) continue;
    int in_page;
    const int entry = PagedKv::page_of(params, static_cast<int>(rows[i]), in_page);
    const int page = __ldg(static_cast<const int32_t*>(params.kv_indices) + entry);
    sources[i] = from + (page * stride_page + in_page * stride_n + heads[i] * stride_h) * 2;
  }
#pragma unroll
  for (int i = 0; i < C::kRows; ++i) {
    if (rows[i] < params.rows) pieces[i] = __ldg(reinterpret_cast<const uint4*>(sources[i]));
  }
#pragma unroll
  for (int i = 0; i < C::kRows; ++i) {
    if (rows[i] >= params.rows) continue;
    const int64_t row = static_cast<int64_t>(heads[i]) * params.rows + rows[i];
    *reinterpret_cast<uint4*>(to + row * chunks * 16) = pieces[i];
  }
}

}  // namespace flashinfer
