// SPDX-License-Identifier: Apache-2.0
// Where a request's keys and values lie: in one strided matrix, or in the pages of a KV-cache.
#pragma once
#include <flashinfer/smem_tile.cuh>

namespace flashinfer {

/** Rows of one request at equal distances: a contiguous cache, or its part of a ragged one. */
struct ContiguousKv {
  static constexpr bool kPaged = false;
};

/**
 * Rows in pages of any size: row j is slot j % page_size of page kv_pages[j / page_size]. Every row's place is looked up
 * once a tile and shared, not once for each of its 16-byte pieces: that cost a quarter of prefill's time.
 */
struct PagedKv {
  static constexpr bool kPaged = true;

  /**
   * Division by the page size is a multiplication by page_size_multiplier = ceil(2^32 / page_size) and a correction,
   * exact below 2^31. Page size 1 has no such multiplier.
   */
  template <class Params>
  static __device__ __forceinline__ int page_of(const Params& params, int key, int& slot) {
    int page = params.page_size == 1 ? key : static_cast<int>(__umulhi(key, params.page_size_multiplier));
    slot = key - page * params.page_size;
    if (slot < 0) {  // the rounded-up multiplier may be one too high
      --page;
      slot += params.page_size;
    }
    return page;
  }
};

/** Byte offsets of one row of K and of V from slot 0 of page 0 of the head. */
struct RowOffsets {
  int64_t k, v;
};

/** A row's place, in two steps, so that other work can hide the latency of the page table. */
struct PagedRow {
  int slot, page;

  /** Starts looking up row `key`. */
  template <class Params>
  static __device__ __forceinline__ PagedRow find(const Params& params, int key) {
    PagedRow row;
    const int entry = PagedKv::page_of(params, key, row.slot);
    row.page = __ldg(static_cast<const int32_t*>(params.kv_pages) + entry);
    return row;
  }

  /** As find, but the load stays where it is written: compilers sink it to its use, where its latency shows. */
  template <class Params>
  static __device__ __forceinline__ PagedRow find_ahead(const Params& params, int key) {
    PagedRow row;
    const int32_t* entry = static_cast<const int32_t*>(params.kv_pages) + PagedKv::page_of(params, key, row.slot);
    asm volatile("ld.global.nc.s32 %0, [%1];\n" : "=r"(row.page) : "l"(entry));  // PTX ISA 9.7.9.9
    return row;
  }

  /**
   * As find, for the first rows of a block of batched decode, whose item lists their page ids (batch.cuh). For all lanes of
   * a warp.
   */
  template <class Params>
  static __device__ __forceinline__ PagedRow find_listed(const Params& params, int key) {
    PagedRow row;
    const int entry = PagedKv::page_of(params, key, row.slot), listed = entry - params.first_entry;
    row.page = __shfl_sync(0xffffffffu, params.item_word, Params::kFirstPageWord + listed % Params::kListedPages);
    if (listed >= Params::kListedPages) row.page = __ldg(static_cast<const int32_t*>(params.kv_pages) + entry);
    return row;
  }

  template <class KvT, class Params>
  __device__ __forceinline__ RowOffsets offsets(const Params& params) const {
    constexpr int64_t kBytes = sizeof(KvT);
    return {(page * params.k_stride_page + slot * params.k_stride_n) * kBytes,
            (page * params.v_stride_page + slot * params.v_stride_n) * kBytes};
  }

  /** From that of slot 0 of page 0, with strides in elements. In pieces of 16 bytes they are 32-bit numbers. */
  template <class KvT>
  __device__ __forceinline__ const char* address(const char* base, int64_t page_stride, int64_t row_stride) const {
    constexpr int kElements = 16 / sizeof(KvT);
    const auto product = [](int count, int64_t stride) {
      return static_cast<uint64_t>(static_cast<uint32_t>(count)) * static_cast<uint32_t>(stride / kElements);
    };
    return base + (product(page, page_stride) + product(slot, row_stride)) * 16;
  }
};

/**
 * As load_tile_async, for rows at `offset_of(row)` bytes from `base`, where row counts from `first_row`. The offset of a
 * row past `row_limit` must be that of some valid row.
 */
template <class Tile, int ROWS, int THREADS, class OffsetOf, class Eviction = NormalEviction>
__device__ __forceinline__ void load_rows_async(uint32_t tile, const char* base, int first_row, int row_limit,
                                                int thread, OffsetOf offset_of, Eviction eviction = {}) {
  using Cover = TileCover<Tile, ROWS, THREADS>;
  const int first = thread / Cover::kColumnChunks, chunk = thread % Cover::kColumnChunks;
#pragma unroll
  for (int i = 0; i < Cover::kPasses; ++i) {
    const int row = first + i * Cover::kRowsPerPass;
    if (!Cover::covers(row)) continue;
    const uint32_t dst = tile + Tile::offset(row, chunk);
    const char* src = base + offset_of(row) + chunk * 16;
#pragma unroll
    for (int c = 0; c < Tile::kChunks; c += Cover::kColumnChunks) {
      cp_async_16(dst + c * 16, src + c * 16, first_row + row < row_limit, eviction);
    }
  }
}

/** A pointer to or from shared memory, in order with copies and barriers (PTX ISA 9.7.9.8, ld; 9.7.9.11, st). */
__device__ __forceinline__ void store_shared_pointer(uint32_t address, const char* pointer) {
  asm volatile("st.shared.b64 [%0], %1;\n" ::"r"(address), "l"(pointer) : "memory");
}
__device__ __forceinline__ const char* load_shared_pointer(uint32_t address) {
  const char* pointer;
  asm volatile("ld.shared.b64 %0, [%1];\n" : "=l"(pointer) : "r"(address) : "memory");
  return pointer;
}

/**
 * The rows of a tile that a thread copies, from a list of all of them in shared memory. They are read before the first
 * copy starts: a read after it waits for the hardware to order the two, which costs more than all else here.
 */
template <class Tile, int ROWS, int THREADS>
struct RowAddresses {
  using Cover = TileCover<Tile, ROWS, THREADS>;
  const char* rows[Cover::kPasses];

  __device__ __forceinline__ void read(uint32_t list, int thread) {
    const int first = thread / Cover::kColumnChunks;
#pragma unroll
    for (int i = 0; i < Cover::kPasses; ++i) {
      const int row = first + i * Cover::kRowsPerPass;
      if (Cover::covers(row)) rows[i] = load_shared_pointer(list + row * 8);
    }
  }

  __device__ __forceinline__ void load_async(uint32_t tile, int thread) const {
    const int first = thread / Cover::kColumnChunks, chunk = thread % Cover::kColumnChunks;
#pragma unroll
    for (int i = 0; i < Cover::kPasses; ++i) {
      const int row = first + i * Cover::kRowsPerPass;
      if (!Cover::covers(row)) continue;
      const uint32_t dst = tile + Tile::offset(row, chunk);
      const char* src = rows[i] + chunk * 16;
#pragma unroll
      for (int c = 0; c < Tile::kChunks; c += Cover::kColumnChunks) cp_async_16(dst + c * 16, src + c * 16, true);
    }
  }
};

}  // namespace flashinfer
