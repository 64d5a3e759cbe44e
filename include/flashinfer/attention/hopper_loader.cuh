// SPDX-License-Identifier: Apache-2.0
// The fa3 template's loading warpgroup.
#pragma once
#include <flashinfer/attention/hopper_item.cuh>

namespace flashinfer {

/** The item and its queries for every warpgroup; request -1 says that there is nothing more. */
template <class C, class Params>
__device__ __forceinline__ void hopper_hand_over(const Params& batch, const HopperShared<C>& shared,
                                                 const HopperItem& item, HopperItem* items,
                                                 const RingPosition<C::kItemBuffers>& at) {
  const int tokens = batch.warpgroup_tokens;
  const uint32_t bytes = batch.warpgroup_rows * (C::kQBytes / 64);
  for (int wg = 0; wg < C::kWarpgroups; ++wg) {
    const int slot = at.stage * C::kWarpgroups + wg;
    mbarrier_wait(shared.q_empty(slot), at.parity ^ 1);
    items[slot] = item;
    if (item.request < 0) {
      mbarrier_arrive(shared.q_full(slot));
      continue;
    }
    mbarrier_arrive_expect(shared.q_full(slot), bytes);
    const int token = item.qo_begin + (item.tile * C::kWarpgroups + wg) * tokens;
#pragma unroll
    for (int c = 0; c < C::D_QK / C::kColumn; ++c) {
      tma_load_3d(shared.q(slot) + c * 64 * 128, &batch.q_map, shared.q_full(slot), c * C::kColumn,
                  item.head * batch.group_size, token);
    }
  }
}

/** The loading warpgroup. kRows: one thread does all of it; kPages: warps of K and warps of V; kGather: all threads copy. */
template <class C, class Params>
struct HopperLoader {
  using T = typename C::T;
  static constexpr int kThreads = C::KV == HopperKv::kRows ? 1 : 128;

  const Params& batch;
  const HopperShared<C>& shared;
  const int thread, boxes;
  int kv_start, head, kv_len;

  __device__ __forceinline__ HopperLoader(const Params& params, const HopperShared<C>& places)
      : batch(params), shared(places), thread(threadIdx.x), boxes(boxes_of(params)) {}

  /** kPages: boxes of a tile. */
  static __device__ __forceinline__ int boxes_of(const Params& params) {
    if constexpr (C::KV == HopperKv::kPages) return C::KV_TILE / min(params.page_size, C::KV_TILE);
    else return 1;
  }

  __device__ __forceinline__ int box_warp() const { return (thread >> 5) % C::kBoxWarps; }
  __device__ __forceinline__ bool loads_k() const { return C::KV != HopperKv::kPages || thread < C::kBoxWarps * 32; }
  __device__ __forceinline__ bool loads_v() const { return C::KV != HopperKv::kPages || thread >= C::kBoxWarps * 32; }

  /** A tile of K or of V into `dst`; `full` completes when it is there. */
  template <bool IS_K, int D>
  __device__ __forceinline__ void load(uint32_t dst, uint32_t full, int tile) {
    const void* map = IS_K ? static_cast<const void*>(&batch.k_map) : static_cast<const void*>(&batch.v_map);
    if constexpr (C::KV == HopperKv::kRows) {
      mbarrier_arrive_expect(full, C::KV_TILE * D * 2);
#pragma unroll
      for (int c = 0; c < D / 64; ++c) {
        tma_load_3d(dst + c * C::KV_TILE * 128, map, full, c * 64, kv_start + tile * C::KV_TILE, head);
      }
    } else if constexpr (C::KV == HopperKv::kPages) {
      load_pages<D>(map, dst, full, tile, IS_K || kLag == 0 ? found[0] : found_v[0]);
    } else {
      if ((tile + 1) * C::KV_TILE <= kv_len) gather<IS_K, D, true>(dst, tile);
      else gather<IS_K, D, false>(dst, tile);
      mbarrier_arrive_after_copies(full);
    }
  }

  /** What the page table told this thread of a tile: the page of its box or of each of its rows, or where those rows are. */
  static constexpr bool kPaged = C::KV != HopperKv::kRows;
  static constexpr int kFound = C::kGathers ? C::KV_TILE / 16 : 1;
  using Found = int[kFound];
  static constexpr bool kLooksAhead = C::kLooksAhead;
  /** Tiles that keys are ahead of values, in the order in which buffers are given back. */
  static constexpr int kLag = C::kGathers || kLooksAhead ? 1 : 0;
  /** Of the tile whose keys come next, and of the one whose values do. */
  Found found, found_v;

  /** Starts looking up a tile's pages, long before they are needed: K and V of a tile lie in the same ones. */
  __device__ __forceinline__ void find_pages(Found& pages, int tile, int first_entry, int keys) {
    const int32_t* indices = static_cast<const int32_t*>(batch.kv_indices) + first_entry;
    if (C::KV == HopperKv::kTokens && (tile + 1) * C::KV_TILE <= keys) {
#pragma unroll
      for (int i = 0; i < kFound; ++i) pages[i] = __ldg(indices + tile * C::KV_TILE + (thread >> 3) + i * 16);
      return;
    }
#pragma unroll
    for (int i = 0; i < kFound; ++i) {
      const int offset = C::kGathers ? (thread >> 3) + i * 16 : box() * min(batch.page_size, C::KV_TILE);
      const int key = min(tile * C::KV_TILE + offset, keys - 1);
      int slot;
      pages[i] = __ldg(indices + (C::KV == HopperKv::kTokens ? key : PagedKv::page_of(batch, key, slot)));
    }
  }

  /** kPages: this lane's box of its warp's tiles; neighbours in a tile belong to different warps. */
  __device__ __forceinline__ int box() const { return (thread & 31) * C::kBoxWarps + box_warp(); }

  /** A lane a box; boxes past the last key are left as they are. */
  template <int D>
  __device__ __forceinline__ void load_pages(const void* map, uint32_t dst, uint32_t full, int tile, int page) {
    const int rows = min(batch.page_size, C::KV_TILE), first_key = tile * C::KV_TILE, left = kv_len - first_key;
    const int used = left >= C::KV_TILE ? boxes : ceil_div(left, rows);
    if ((thread & 31) == 0) {
      mbarrier_arrive_expect(full, ceil_div(used - box_warp(), C::kBoxWarps) * rows * D * 2);
    }
    __syncwarp();
    if (box() >= used) return;
    int slot;
    PagedKv::page_of(batch, first_key + box() * rows, slot);
#pragma unroll
    for (int c = 0; c < D / 64; ++c) {
      tma_load_4d(dst + (c * C::KV_TILE + box() * rows) * 128, map, full, c * 64, slot, head, page);
    }
  }

  /** What strides of pages and rows are counted in: a power of two, so that 32 bits hold the place of every row. */
  template <bool IS_K>
  __device__ __forceinline__ int offset_shift() const {
    const uint64_t strides = IS_K ? batch.k_stride_page | batch.k_stride_n : batch.v_stride_page | batch.v_stride_n;
    return __ffsll(static_cast<long long>(strides * sizeof(T))) - 1;
  }

  /** kGather: pages become places of rows, those of V being those of K as a rule. */
  template <bool IS_K>
  __device__ __forceinline__ void find_rows(Found& places, int tile) {
    const bool same = batch.k_stride_page == batch.v_stride_page && batch.k_stride_n == batch.v_stride_n;
    if (!IS_K && same) return;
    if (!IS_K) find_pages(places, tile, kv_start, kv_len);
    const int shift = offset_shift<IS_K>();
    const auto units = [&](int64_t stride) { return static_cast<uint32_t>(stride * sizeof(T) >> shift); };
    const uint32_t page = units(IS_K ? batch.k_stride_page : batch.v_stride_page);
    const uint32_t row = units(IS_K ? batch.k_stride_n : batch.v_stride_n);
#pragma unroll
    for (int i = 0; i < kFound; ++i) {
      int slot;
      PagedKv::page_of(batch, min(tile * C::KV_TILE + (thread >> 3) + i * 16, kv_len - 1), slot);
      places[i] = static_cast<int>(static_cast<uint32_t>(places[i]) * page + static_cast<uint32_t>(slot) * row);
    }
  }

  /**
   * Eight neighbours copy 128 bytes of a row; rows past the last key become zeros. Few instructions a row: a thread waits
   * for each of its own. WHOLE: all rows exist; else every copy takes three more.
   */
  template <bool IS_K, int D, bool WHOLE>
  __device__ __forceinline__ void gather(uint32_t dst, int tile) {
    uint64_t unit = (IS_K ? batch.k_stride_page : batch.v_stride_page) * sizeof(T);
    Found& places = IS_K ? found : found_v;
    if constexpr (C::KV == HopperKv::kGather) {
      find_rows<IS_K>(places, tile);
      unit = 1ull << offset_shift<IS_K>();
    }
    const int chunk = thread & 7, first_row = thread >> 3;
    uint64_t base = reinterpret_cast<uint64_t>(IS_K ? batch.k : batch.v) +
                    (head * (IS_K ? batch.k_stride_h : batch.v_stride_h) + chunk * 8) * sizeof(T);
    // Rows 16 apart have the same place in the swizzle.
    uint32_t at = dst + first_row * 128 + ((chunk ^ (first_row & 7)) << 4);
    // In registers, or the compiler computes both again for every row.
    asm volatile("" : "+r"(at), "+l"(base));
#pragma unroll
    for (int i = 0; i < kFound; ++i) {
      const char* src = reinterpret_cast<const char*>(base + static_cast<uint32_t>(places[i]) * unit);
#pragma unroll
      for (int c = 0; c < D / 64; ++c) {
        const uint32_t to = at + (c * C::KV_TILE + i * 16) * 128;
        if constexpr (WHOLE) cp_async_16(to, src + c * 128);
        else cp_async_16(to, src + c * 128, tile * C::KV_TILE + first_row + i * 16 < kv_len);
      }
    }
  }

  /**
   * By one thread: others could come so late that an item without keys, which waits for none of them, has already been
   * given back.
   */
  __device__ __forceinline__ void hand_over(const HopperItem& item, HopperItem* items,
                                            const RingPosition<C::kItemBuffers>& at) {
    if (kThreads == 1 || thread == 0) hopper_hand_over(batch, shared, item, items, at);
  }

  __device__ __forceinline__ void run(HopperItem* items, int* places) {
    if (thread >= kThreads) return;
    unsigned* counters = static_cast<unsigned*>(batch.counters);
    const int num_items = hopper_num_items<C>(batch);
    RingPosition<C::STAGES> ring;
    RingPosition<C::kItemBuffers> buffer;
    HopperItem item = hopper_item<C>(batch, num_items, blockIdx.x, kv_start);
    int ahead = -1;
    for (;; buffer.advance()) {
      unsigned taken = 0;
      const auto take = [&] {
        if (kThreads == 1 || thread == 0) taken = take_place(counters);
      };
      head = item.head;
      kv_len = item.kv_len;
      if (item.request < 0 || item.first == item.end) hand_over(item, items, buffer);
      if (item.request < 0) break;
      const int taking = hopper_taking_tile(batch, num_items, item);
      if (item.first == item.end) take();
      if constexpr (kPaged) {
        if (ahead < 0 && item.first < item.end) find_pages(found, item.end - 1, kv_start, kv_len);
      }
      ahead = -1;
      RingPosition<C::STAGES> before = ring;
      for (int tile = item.end - 1; tile >= item.first - kLag; --tile) {
        if (tile == taking) take();
        if (loads_k() && tile >= item.first) {
          mbarrier_wait(shared.k_empty(ring.stage), ring.parity ^ 1);
          load<true, C::D_QK>(shared.k(ring.stage), shared.k_full(ring.stage), tile);
          if (tile == item.end - 1) hand_over(item, items, buffer);
        }
        if (loads_v() && tile + kLag < item.end) {
          const RingPosition<C::STAGES> at = kLag > 0 ? before : ring;
          mbarrier_wait(shared.v_empty(at.stage), at.parity ^ 1);
          load<false, C::D_VO>(shared.v(at.stage), shared.v_full(at.stage), tile + kLag);
        }
        before = ring;
        if (tile >= item.first) ring.advance();
        if constexpr (kPaged) {
          if constexpr (kLag > 0) {
#pragma unroll
            for (int i = 0; i < kFound; ++i) found_v[i] = found[i];
          }
          if (tile > item.first) find_pages(found, tile - 1, kv_start, kv_len);
          if constexpr (kLooksAhead) {
            if (tile == item.first) ahead = look_ahead(num_items, taken, places);
          }
        }
      }
      int place = static_cast<int>(taken) + gridDim.x;
      if constexpr (kThreads > 1) place = ahead < 0 ? broadcast(place, places) : ahead;
      item = hopper_item<C>(batch, num_items, place, kv_start);
    }
    // The last block to finish leaves both counters at zero for the next launch, once all blocks' places were taken.
    __threadfence();
    if (thread == 0 && atomicAdd(counters + 1, 1u) == gridDim.x - 1) counters[0] = counters[1] = 0;
  }

  /**
   * The next item's place in all threads, and the pages of its first keys: two lookups, one after the other, that pass while
   * this item's last values wait for their buffer. The item itself is read again then, from L1, and holds no registers.
   */
  __device__ __forceinline__ int look_ahead(int num_items, unsigned taken, int* places) {
    const int place = broadcast(static_cast<int>(taken) + gridDim.x, places);
    int first_entry;
    const HopperItem next = hopper_item<C>(batch, num_items, place, first_entry);
    if (next.first < next.end) find_pages(found, next.end - 1, first_entry, next.kv_len);
    return place;
  }

  /** Thread 0's value in all loading threads. */
  __device__ __forceinline__ int broadcast(int value, int* places) {
    if (thread == 0) *places = value;
    named_barrier_sync<kThreads>(kLoaderBarrier);
    value = *places;
    named_barrier_sync<kThreads>(kLoaderBarrier);
    return value;
  }
};

}  // namespace flashinfer
