// SPDX-License-Identifier: Apache-2.0
// Prefill attention for sm_90a: the fa3 template (arXiv:2407.08608). Copies by the copy engine, products by warpgroups.
//
// A block stays on its multiprocessor and takes work items until none is left. Its first warpgroup only loads: keys and
// values of an item, from the last tile back, into rings of STAGES buffers. Each other warpgroup owns 64 packed query rows
// against all tiles of the item. It asks for the scores of the next tile before the second product of this one, so that
// softmax runs under both; and the warpgroups take turns at the tensor cores, so that one's softmax runs under the other's
// products. Item, queries and rings are handed over by mbarriers alone: warpgroups need not be at the same item.
#pragma once
#include <flashinfer/attention/batch.cuh>
#include <flashinfer/tma.cuh>
#include <flashinfer/wgmma.cuh>

namespace flashinfer {

/** How keys and values come into shared memory. */
enum class HopperKv {
  /** Rows at equal distances: a box is a whole tile. */
  kRows,
  /** Pages of which tiles are whole numbers, or the other way round: a box is a page, or a tile's part of one. */
  kPages,
  /** Pages of any size: threads of the loading warpgroup copy rows one by one. */
  kGather,
};

template <class T_, int D_QK_, int D_VO_, int KV_TILE_, int WARPGROUPS_, int STAGES_, class Variant_, class Visible_,
          HopperKv KV_ = HopperKv::kRows, bool BATCH_ = true>
struct HopperConfig {
  using T = T_;
  using KvT = T_;
  using Variant = Variant_;
  using Visible = Visible_;
  static constexpr HopperKv KV = KV_;
  /** Items and requests are read from a plan; else there is one request, which the parameters describe. */
  static constexpr bool BATCH = BATCH_;
  static constexpr int D_QK = D_QK_, D_VO = D_VO_, KV_TILE = KV_TILE_, STAGES = STAGES_;
  /** Those that compute; one more loads. */
  static constexpr int kWarpgroups = WARPGROUPS_;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;
  static constexpr bool kGathers = KV == HopperKv::kGather;
  /** kPages: warps that ask for the boxes of K, and as many for V. A warp asks for one box after the other, 60 cycles each. */
  static constexpr int kBoxWarps = 2;
  /** Arrivals, besides bytes, that complete a tile. */
  static constexpr int kFullArrivals = kGathers ? 128 : KV == HopperKv::kPages ? kBoxWarps : 1;
  static constexpr int kLoaderRegisters = kWarpgroups == 3 ? 32 : kGathers ? 40 : 24;
  static constexpr int kRegisters = kWarpgroups == 3 ? 160 : kGathers ? 232 : 240;

  /** Tiles are columns of 64 elements: rows of 128 bytes, as the swizzle wants them. */
  static constexpr int kQBytes = 64 * D_QK * 2, kKBytes = KV_TILE * D_QK * 2, kVBytes = KV_TILE * D_VO * 2;
  static constexpr int kK = kWarpgroups * kQBytes, kV = kK + STAGES * kKBytes, kBarriers = kV + STAGES * kVBytes;
  static constexpr int kItems = kBarriers + (4 * STAGES + 2 * kWarpgroups) * 8;
  /** Dynamic shared memory is aligned to 128 bytes only; the first tile moves up to the next 1024. */
  static constexpr int kSharedBytes = (kItems + kWarpgroups * 32 + 16 + 1023) / 1024 * 1024 + 1024;
  static_assert(kKBytes % 1024 == 0 && kVBytes % 1024 == 0, "every tile must start at a swizzle's first row");
};

/** One item as the loader hands it to a warpgroup. */
struct HopperItem {
  int request, tile, head, qo_begin, qo_len, kv_len, first, end;
};

/** Addresses of the barriers. */
template <class C>
struct HopperShared {
  uint32_t base;
  __device__ __forceinline__ uint32_t q(int wg) const { return base + wg * C::kQBytes; }
  __device__ __forceinline__ uint32_t k(int stage) const { return base + C::kK + stage * C::kKBytes; }
  __device__ __forceinline__ uint32_t v(int stage) const { return base + C::kV + stage * C::kVBytes; }
  __device__ __forceinline__ uint32_t barrier(int i) const { return base + C::kBarriers + i * 8; }
  __device__ __forceinline__ uint32_t k_full(int stage) const { return barrier(stage); }
  __device__ __forceinline__ uint32_t k_empty(int stage) const { return barrier(C::STAGES + stage); }
  __device__ __forceinline__ uint32_t v_full(int stage) const { return barrier(2 * C::STAGES + stage); }
  __device__ __forceinline__ uint32_t v_empty(int stage) const { return barrier(3 * C::STAGES + stage); }
  __device__ __forceinline__ uint32_t q_full(int wg) const { return barrier(4 * C::STAGES + wg); }
  __device__ __forceinline__ uint32_t q_empty(int wg) const { return barrier(4 * C::STAGES + C::kWarpgroups + wg); }
};

/** Position in a ring: which buffer, and the parity of its phase. */
template <int STAGES>
struct RingPosition {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/** Barriers of the block's threads with numbers of their own (PTX ISA 9.7.13.1, bar); 0 is __syncthreads. */
template <int THREADS>
__device__ __forceinline__ void named_barrier_sync(int id) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "n"(THREADS) : "memory");
}
template <int THREADS>
__device__ __forceinline__ void named_barrier_arrive(int id) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "n"(THREADS) : "memory");
}

/** A warpgroup's own barrier, and the one that says it is its turn at the tensor cores. */
__device__ __forceinline__ int own_barrier(int wg) { return 1 + wg; }
__device__ __forceinline__ int turn_barrier(int wg) { return 4 + wg; }
constexpr int kLoaderBarrier = 7;

/** What a warpgroup needs to know of its request. */
template <class C, class Params>
__device__ __forceinline__ BatchRequest<Params> hopper_request(const Params& batch, const HopperItem& item) {
  BatchRequest<Params> p;
  p.batch = &batch;
  p.batch_idx = item.request;
  p.o = static_cast<char*>(batch.o) + item.qo_begin * batch.o_stride_n * static_cast<int64_t>(sizeof(typename C::T));
  p.lse = batch.lse == nullptr
              ? nullptr
              : static_cast<float*>(batch.lse) + static_cast<int64_t>(item.qo_begin) * batch.num_qo_heads;
  p.alibi_slopes = batch.alibi_slopes;
  p.sinks = batch.sinks;
  p.o_stride_n = batch.o_stride_n;
  p.o_stride_h = batch.o_stride_h;
  p.qo_len = item.qo_len;
  p.kv_len = item.kv_len;
  p.num_qo_heads = batch.num_qo_heads;
  p.group_size = batch.group_size;
  p.window_left = batch.window_left;
  p.sm_scale = batch.sm_scale;
  p.logits_soft_cap = batch.logits_soft_cap;
  p.rcp_logits_soft_cap = batch.rcp_logits_soft_cap;
  p.v_scale = batch.v_scale;
  p.lse_factor = batch.lse_factor;
  return p;
}

/** How many items there are. In a CUDA graph the number may change from replay to replay: the plan has it. */
template <class C, class Params>
__device__ __forceinline__ int hopper_num_items(const Params& batch) {
  if constexpr (C::BATCH) return work_item(batch, 0).count_or_eviction;
  else return batch.num_items;
}

/** Item `index` without its tiles of keys; `kv_start` is the first row of its keys, or the first entry of its page list. */
template <class C, class Params>
__device__ __forceinline__ HopperItem hopper_work(const Params& batch, int num_items, int index, int head,
                                                  int& kv_start) {
  if constexpr (C::BATCH) {
    const WorkItem work = work_item(batch, index);
    const RequestRecord record = request_record(batch, work.request);
    kv_start = record.kv_start;
    return {work.request, work.tile, head, record.qo_begin, record.qo_len, record.kv_len, 0, 0};
  } else {
    kv_start = 0;
    // The last tile sees the most keys under the causal rule.
    return {0, num_items - 1 - index, head, 0, batch.qo_len, batch.kv_len, 0, 0};
  }
}

/**
 * The item of a place in the launch's order; request -1 where there is none. All items of one section of heads come before
 * the next, so that the keys and values of those at work stay in the second-level cache.
 */
template <class C, class Params>
__device__ __forceinline__ HopperItem hopper_item(const Params& batch, int num_items, int place, int& kv_start) {
  if (num_items <= 0) return {-1, 0, 0, 0, 0, 0, 0, 0};
  const int num_kv_heads = batch.num_qo_heads / batch.group_size;
  const int section = place / (num_items * batch.head_section);
  const int heads = min(batch.head_section, num_kv_heads - section * batch.head_section);
  const int rest = place - section * num_items * batch.head_section;
  if (heads <= 0 || rest >= num_items * heads) return {-1, 0, 0, 0, 0, 0, 0, 0};
  HopperItem item =
      hopper_work<C>(batch, num_items, rest / heads, section * batch.head_section + rest % heads, kv_start);
  const BatchRequest<Params> request = hopper_request<C>(batch, item);
  const int rows = C::kWarpgroups * batch.warpgroup_rows;
  const int first_packed = item.tile * rows;
  const int last_packed = min(first_packed + rows, item.qo_len * batch.group_size) - 1;
  int first_key, end_key;
  C::Visible::key_range(request, first_packed / batch.group_size, last_packed / batch.group_size, first_key, end_key);
  item.first = first_key / C::KV_TILE;
  item.end = first_key < end_key ? ceil_div(end_key, C::KV_TILE) : item.first;
  return item;
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
      load_pages<D>(map, dst, full, tile);
    } else {
      gather<IS_K, D>(dst, tile);
      mbarrier_arrive_after_copies(full);
    }
  }

  /** Keys that the page table is asked about by this thread, `step` apart: those of its boxes, or of its rows. */
  static constexpr int kFound = C::KV == HopperKv::kRows ? 0 : C::KV == HopperKv::kPages ? 1 : C::KV_TILE / 16;
  int found[kFound == 0 ? 1 : kFound];

  /** Starts looking up a tile's pages, long before they are needed: K and V of a tile lie in the same ones. */
  __device__ __forceinline__ void find_pages(int tile) {
#pragma unroll
    for (int i = 0; i < kFound; ++i) {
      const int offset = C::kGathers ? (thread >> 3) + i * 16 : box() * min(batch.page_size, C::KV_TILE);
      int slot;
      const int entry = PagedKv::page_of(batch, min(tile * C::KV_TILE + offset, kv_len - 1), slot);
      found[i] = __ldg(static_cast<const int32_t*>(batch.kv_indices) + kv_start + entry);
    }
  }

  /** kPages: this lane's box of its warp's tiles; neighbours in a tile belong to different warps. */
  __device__ __forceinline__ int box() const { return (thread & 31) * C::kBoxWarps + box_warp(); }

  /** A lane a box; boxes past the last key are left as they are. */
  template <int D>
  __device__ __forceinline__ void load_pages(const void* map, uint32_t dst, uint32_t full, int tile) {
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
      tma_load_4d(dst + (c * C::KV_TILE + box() * rows) * 128, map, full, c * 64, slot, head, found[0]);
    }
  }

  /** Eight neighbours copy 128 bytes of a row; rows past the last key become zeros. */
  template <bool IS_K, int D>
  __device__ __forceinline__ void gather(uint32_t dst, int tile) {
    const int chunk = thread & 7, first_row = thread >> 3;
    const int64_t stride_page = IS_K ? batch.k_stride_page : batch.v_stride_page;
    const int64_t stride_n = IS_K ? batch.k_stride_n : batch.v_stride_n;
    const T* base = static_cast<const T*>(IS_K ? batch.k : batch.v) +
                    head * (IS_K ? batch.k_stride_h : batch.v_stride_h) + chunk * 8;
    // Rows 16 apart have the same place in the swizzle.
    const uint32_t at = dst + first_row * 128 + ((chunk ^ (first_row & 7)) << 4);
#pragma unroll
    for (int i = 0; i < kFound; ++i) {
      const int key = tile * C::KV_TILE + first_row + i * 16;
      int slot;
      PagedKv::page_of(batch, min(key, kv_len - 1), slot);
      const T* src = base + found[i] * stride_page + slot * stride_n;
#pragma unroll
      for (int c = 0; c < D / 64; ++c) {
        cp_async_16(at + (c * C::KV_TILE + i * 16) * 128, src + c * 64, key < kv_len);
      }
    }
  }

  /**
   * The item and its queries for every warpgroup; request -1 says that there is nothing more. By one thread: others could
   * come so late that an item without keys, which waits for none of them, has already been given back.
   */
  __device__ __forceinline__ void hand_over(const HopperItem& item, HopperItem* items, int parity) {
    if (kThreads > 1 && thread != 0) return;
    const int tokens = batch.warpgroup_rows / batch.group_size;
    const uint32_t bytes = batch.warpgroup_rows * C::D_QK * 2;
    for (int wg = 0; wg < C::kWarpgroups; ++wg) {
      mbarrier_wait(shared.q_empty(wg), parity);
      items[wg] = item;
      if (item.request < 0) {
        mbarrier_arrive(shared.q_full(wg));
        continue;
      }
      mbarrier_arrive_expect(shared.q_full(wg), bytes);
      const int token = item.qo_begin + (item.tile * C::kWarpgroups + wg) * tokens;
#pragma unroll
      for (int c = 0; c < C::D_QK / 64; ++c) {
        tma_load_3d(shared.q(wg) + c * 64 * 128, &batch.q_map, shared.q_full(wg), c * 64, item.head * batch.group_size,
                    token);
      }
    }
  }

  __device__ __forceinline__ void run(HopperItem* items, int* places) {
    if (thread >= kThreads) return;
    unsigned* counters = static_cast<unsigned*>(batch.counters);
    const int num_items = hopper_num_items<C>(batch);
    RingPosition<C::STAGES> ring;
    HopperItem item = hopper_item<C>(batch, num_items, blockIdx.x, kv_start);
    for (int q_parity = 1;; q_parity ^= 1) {
      // Taken early: its latency passes while this item's tiles are loaded.
      unsigned taken = 0;
      if (thread == 0) taken = atomicAdd(counters, 1u);
      head = item.head;
      kv_len = item.kv_len;
      if (item.request < 0 || item.first == item.end) hand_over(item, items, q_parity);
      if (item.request < 0) break;
      if constexpr (kFound > 0) {
        if (item.first < item.end) find_pages(item.end - 1);
      }
      for (int tile = item.end - 1; tile >= item.first; --tile) {
        if (loads_k()) {
          mbarrier_wait(shared.k_empty(ring.stage), ring.parity ^ 1);
          load<true, C::D_QK>(shared.k(ring.stage), shared.k_full(ring.stage), tile);
          if (tile == item.end - 1) hand_over(item, items, q_parity);
        }
        if (loads_v()) {
          mbarrier_wait(shared.v_empty(ring.stage), ring.parity ^ 1);
          load<false, C::D_VO>(shared.v(ring.stage), shared.v_full(ring.stage), tile);
        }
        if constexpr (kFound > 0) {
          if (tile > item.first) find_pages(tile - 1);
        }
        ring.advance();
      }
      int place = static_cast<int>(taken) + gridDim.x;
      if constexpr (kThreads > 1) place = broadcast(place, places);
      item = hopper_item<C>(batch, num_items, place, kv_start);
    }
    // The last block to finish leaves both counters at zero for the next launch, once all blocks' places were taken.
    __threadfence();
    if (thread == 0 && atomicAdd(counters + 1, 1u) == gridDim.x - 1) counters[0] = counters[1] = 0;
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

/** Four neighbours hold a row of a 4x4 matrix each; afterwards a column each. */
__device__ __forceinline__ void transpose_quad(uint32_t (&x)[4], int t) {
#pragma unroll
  for (int bit = 1; bit <= 2; bit <<= 1) {
    const bool upper = t & bit;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      const uint32_t given = upper ? x[i] : x[i | bit];
      const uint32_t taken = __shfl_xor_sync(0xffffffffu, given, bit);
      if (upper) x[i] = taken;
      else x[i | bit] = taken;
    }
  }
}

/**
 * Has a and b computed before what follows in memory. The compiler moves arithmetic behind a wait for products, however much
 * of it there is to do meanwhile, but not a store that depends on it; this one, of a NaN that no operation gives, is never
 * done.
 */
__device__ __forceinline__ void finish_before(float a, float b, uint32_t address) {
  asm volatile(
      "{\n.reg .pred never;\nsetp.eq.u32 never, %0, 0x7fc12345;\nsetp.eq.and.u32 never, %1, 0x7fc12345, never;\n"
      "@never st.shared.u32 [%2], %0;\n}\n" ::"r"(__float_as_uint(a)),
      "r"(__float_as_uint(b)), "r"(address)
      : "memory");
}

/** A warpgroup that computes. */
template <class C, class Params>
struct HopperWarpgroup {
  using T = typename C::T;
  using Variant = typename C::Variant;
  using Visible = typename C::Visible;
  static constexpr int kKeys = C::KV_TILE;
  /** Weights that there are registers for while the product before still reads p. */
  static constexpr bool kTight = C::kWarpgroups == 3 || C::D_VO == 256 || C::kGathers || Variant::kTransformsLogits;
  static constexpr int kEarly = kTight ? 0 : C::D_VO == 64 && kKeys > 64 ? 32 : 16;
  static constexpr float kLimit = 256.0f;

  const HopperShared<C>& shared;
  const int wg, warp, lane;
  BatchRequest<Params> params;
  PackedRow rows[2];
  float o[C::D_VO / 2], s[kKeys / 2];
  uint32_t p[kKeys / 4];
  /** What a row's scaled logits are held against, the sums of its weights, those of the tile at hand, and what they may be. */
  float held[2], l[2], sum[2], limit[2];
  /** Rows past the last one are no business of a custom variant. */
  bool guards = false;

  __device__ __forceinline__ HopperWarpgroup(const HopperShared<C>& places, int index)
      : shared(places), wg(index), warp((threadIdx.x >> 5) & 3), lane(threadIdx.x & 31) {}

  /** s = Q Kᵀ, begun. */
  __device__ __forceinline__ void begin_scores(int stage) {
    const uint64_t q = wgmma_descriptor(shared.q(wg), 16), k = wgmma_descriptor(shared.k(stage), 16);
    wgmma_pin(s);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < C::D_QK / 16; ++i) {
      const int column = i / 4, inner = i % 4 * 32;
      Wgmma<T, kKeys>::shared_a(s, q + ((column * 64 * 128 + inner) >> 4), k + ((column * kKeys * 128 + inner) >> 4),
                                i > 0);
    }
    wgmma_commit();
  }

  /** o += P V, begun. */
  __device__ __forceinline__ void begin_output(int stage) {
    const uint64_t v = wgmma_descriptor(shared.v(stage), kKeys * 128);
    wgmma_pin(o);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      const uint32_t a[4] = {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]};
      Wgmma<T, C::D_VO>::registers_a(o, a, v + ((i * 16 * 128) >> 4));
    }
    wgmma_commit();
  }

  /** Tiles that threads copied were written like ordinary stores: wgmma reads them in another way. */
  __device__ __forceinline__ void wait_tile(uint32_t barrier, int parity) {
    mbarrier_wait(barrier, parity);
    if constexpr (C::kGathers) fence_async_proxy();
  }

  /** One thread speaks for its warp, after all of it is done. */
  __device__ __forceinline__ void release(uint32_t barrier) {
    __syncwarp();
    if (lane == 0) mbarrier_arrive(barrier);
  }

  /** Rows past the last key belong to somebody else, and a weight of zero does not silence a NaN there. */
  __device__ __forceinline__ void clear_values(int stage, int valid) {
    if (C::kGathers || __builtin_expect(valid >= kKeys, 1)) return;
    const int thread = threadIdx.x & 127;
    for (int index = thread; index < (kKeys - valid) * (C::D_VO / 8); index += 128) {
      const int row = valid + index / (C::D_VO / 8), chunk = index % (C::D_VO / 8);
      const uint32_t at = shared.v(stage) + (chunk >> 3) * kKeys * 128 + row * 128 + ((chunk & 7) ^ (row & 7)) * 16;
      asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};\n" ::"r"(at), "r"(0) : "memory");
    }
    fence_async_proxy();
    named_barrier_sync<128>(own_barrier(wg));
  }

  __device__ __forceinline__ void finish_logits(int tile, bool masks) {
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const PackedRow& row = rows[e >> 1];
        const LogitPosition at{row.qo_idx, tile * kKeys + j * 8 + (lane & 3) * 2 + (e & 1), row.qo_head,
                               row.qo_head / static_cast<int>(params.group_size)};
        finish_logit<Variant, Visible>(params, s[4 * j + e], at, params.kv_len, masks);
      }
    }
  }

  /**
   * COUNT weights from BEGIN on: s becomes what a logit, scaled, is above what its row is held against, weights 2^s, and
   * sums theirs.
   */
  template <int BEGIN, int COUNT>
  __device__ __forceinline__ void weigh(float (&weights)[COUNT], float scale) {
    float against[2] = {held[0], held[1]};
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      weights[i] = s[BEGIN + i];
      if constexpr (Variant::kUsesSoftmax) {
        const int r = (i >> 1) & 1;
        // The compiler would put all multiplications first, and leave nothing to do while exponentials take turns.
        if (i >= 8 && i % 8 < 4 && i % 2 == 0) against[r] = after(weights[i - 8], held[r]);
        s[BEGIN + i] = fmaf(s[BEGIN + i], scale, -against[r]);
        weights[i] = exp2_approx(s[BEGIN + i]);
        sum[r] += weights[i];
      }
    }
  }

  /** x, once a weight is known: its sign, which is nothing, is added. */
  static __device__ __forceinline__ float after(float weight, float x) {
    return __uint_as_float(__float_as_uint(x) + (__float_as_uint(weight) >> 31));
  }

  template <int BEGIN, int COUNT>
  __device__ __forceinline__ void pack(const float (&weights)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT / 2; ++i) p[BEGIN / 2 + i] = pack2<T>(weights[2 * i], weights[2 * i + 1]);
  }

  /** p of an item's first tile. */
  __device__ __forceinline__ void soften_first(float scale) {
    if constexpr (Variant::kUsesSoftmax) {
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) s[i] *= scale;
      float factor[2];
      catch_up(factor);
    } else {
      pack<0>(s);
    }
  }

  /** p of a later tile, once the product that reads p is done; as many weights as there are registers for come before. */
  template <class Wait>
  __device__ __forceinline__ void soften(float scale, Wait wait_for_output) {
    float early[kEarly > 0 ? kEarly : 1], late[kKeys / 2 - kEarly];
    sum[0] = sum[1] = 0.0f;
    if constexpr (kEarly > 0) {
      weigh<0>(early, scale);
      finish_before(sum[0], sum[1], shared.base);
    }
    wait_for_output();
    if constexpr (kEarly > 0) pack<0>(early);
    weigh<kEarly>(late, scale);
    pack<kEarly>(late);
  }

  /**
   * Adds a tile's sums. Looking for the greatest logit would take as long as half of the exponentials, and it seldom rises
   * by much after a row's first tile: rows stay held against that one, and weights of up to kLimit are kept, which all
   * types hold. Where sums say that one may be greater, s is still there to begin again with.
   */
  __device__ __forceinline__ void account() {
    if constexpr (!Variant::kUsesSoftmax) return;
    // Written so that NaN does not fit. The same in all threads of a warp, as products need it.
    if (__builtin_expect(!__all_sync(0xffffffffu, sum[0] <= limit[0] && sum[1] <= limit[1]), 0)) {
      float factor[2];
      catch_up(factor);
      rescale(factor);
      l[0] *= factor[0];
      l[1] *= factor[1];
    }
    l[0] += sum[0];
    l[1] += sum[1];
  }

  /** Holds rows against the greatest logit so far, and weighs a tile anew; all before it is to be multiplied with factor. */
  __device__ __forceinline__ void catch_up(float (&factor)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float chains[4];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
        const float top = max_nan(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]);
        chains[j & 3] = j < 4 ? top : max_nan(chains[j & 3], top);
      }
      float top = max_nan(max_nan(chains[0], chains[1]), max_nan(chains[2], chains[3]));
      top = max_nan(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = max_nan(top, __shfl_xor_sync(0xffffffffu, top, 2));
      const float before = greatest(r), now = max_nan(before, held[r] + top);
      const bool none = now == negative_infinity();
      factor[r] = none ? 1.0f : exp2_approx(before - now);
      const float step = none ? 0.0f : now - held[r];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) s[4 * j + 2 * r + e] -= step;
      }
      held[r] = none ? 0.0f : now;
      limit[r] = none ? -1.0f : kLimit;
      sum[r] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kKeys / 2; i += 2) {
      const float low = exp2_approx(s[i]), high = exp2_approx(s[i + 1]);
      sum[(i >> 1) & 1] += low + high;
      p[i / 2] = pack2<T>(low, high);
    }
  }

  /** The greatest logit of a row as of when it was last looked for, scaled; -inf where it saw none. */
  __device__ __forceinline__ float greatest(int r) const { return limit[r] < 0.0f ? negative_infinity() : held[r]; }

  __device__ __forceinline__ void rescale(const float (&factor)[2]) {
#pragma unroll
    for (int j = 0; j < C::D_VO / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o[4 * j + e] *= factor[e >> 1];
    }
  }

  __device__ __forceinline__ bool masks_tile(int tile, int first_row, int last_row) const {
    const int end = (tile + 1) * kKeys;
    return guards || end > params.kv_len || !Visible::all_visible(params, first_row, last_row, tile * kKeys, end);
  }

  /** All tiles of an item. */
  __device__ __forceinline__ void attend(const HopperItem& item, int first_row, int last_row, float scale,
                                         RingPosition<C::STAGES>& ring) {
    wait_tile(shared.k_full(ring.stage), ring.parity);
    begin_scores(ring.stage);
    wgmma_wait<0>();
    wgmma_pin(s);
    release(shared.k_empty(ring.stage));
    if (item.first + 1 == item.end) release(shared.q_empty(wg));
    if (Variant::kTransformsLogits || masks_tile(item.end - 1, first_row, last_row)) finish_logits(item.end - 1, true);
    soften_first(scale);
    for (int tile = item.end - 2; tile >= item.first; --tile) {
      // Most tiles have nothing special, and a loop of their own without jumps.
      const bool values_end = params.kv_len < (tile + 2) * kKeys;
      const bool masks = masks_tile(tile, first_row, last_row);
      if (tile > item.first && !values_end && !masks) step<false>(item, tile, false, scale, ring);
      else step<true>(item, tile, masks, scale, ring);
    }
    account();
    wait_tile(shared.v_full(ring.stage), ring.parity);
    clear_values(ring.stage, params.kv_len - item.first * kKeys);
    begin_output(ring.stage);
    wgmma_wait<0>();
    wgmma_pin(o);
    release(shared.v_empty(ring.stage));
    ring.advance();
  }

  /** Scores and weights of `tile` under the output of the one after it. EDGE: the item's first or last, or partly masked. */
  template <bool EDGE>
  __device__ __forceinline__ void step(const HopperItem& item, int tile, bool masks, float scale,
                                       RingPosition<C::STAGES>& ring) {
    RingPosition<C::STAGES> next = ring;
    next.advance();
    wait_tile(shared.k_full(next.stage), next.parity);
    named_barrier_sync<256>(turn_barrier(wg));
    account();
    begin_scores(next.stage);
    wait_tile(shared.v_full(ring.stage), ring.parity);
    if constexpr (EDGE) clear_values(ring.stage, params.kv_len - (tile + 1) * kKeys);
    begin_output(ring.stage);
    named_barrier_arrive<256>(turn_barrier(wg + 1 == C::kWarpgroups ? 0 : wg + 1));
    wgmma_wait<1>();
    wgmma_pin(s);
    release(shared.k_empty(next.stage));
    if (EDGE && tile == item.first) release(shared.q_empty(wg));
    if (Variant::kTransformsLogits || (EDGE && masks)) finish_logits(tile, EDGE && masks);
    soften(scale, [&] {
      wgmma_wait<0>();
      wgmma_pin(o);
      release(shared.v_empty(ring.stage));
    });
    ring = next;
  }

  /** Rows leave in 16-byte pieces: the four threads of a row exchange what they hold of four pieces. */
  __device__ __forceinline__ void store(int num_rows) {
    const int head = rows[0].qo_head / static_cast<int>(params.group_size), t = lane & 3;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      l[r] += __shfl_xor_sync(0xffffffffu, l[r], 1);
      l[r] += __shfl_xor_sync(0xffffffffu, l[r], 2);
      float lse = row_lse(greatest(r), l[r], 1.0f);
      const float share = join_sink<Variant>(params, rows[r].qo_head, lse);
      const float factor = normalizer<Variant>(l[r]) * share * params.v_scale;
      const bool exists = warp * 16 + r * 8 + (lane >> 2) < num_rows;
      T* out = static_cast<T*>(params.o) + output_offset(params, rows[r]) + t * 8;
#pragma unroll
      for (int j = 0; j < C::D_VO / 8; j += 4) {
        uint32_t piece[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float low = o[4 * (j + i) + 2 * r] * factor, high = o[4 * (j + i) + 2 * r + 1] * factor;
          if constexpr (Variant::kTransformsOutput) {
            if (exists) {
              const int dim = (j + i) * 8 + t * 2;
              low = Variant::transform_output(params, low, {rows[r].qo_idx, rows[r].qo_head, head, dim}, lse);
              high = Variant::transform_output(params, high, {rows[r].qo_idx, rows[r].qo_head, head, dim + 1}, lse);
            }
          }
          piece[i] = pack2<T>(low, high);
        }
        transpose_quad(piece, t);
        if (exists) {
          *reinterpret_cast<uint4*>(out + j * 8) = make_uint4(piece[0], piece[1], piece[2], piece[3]);
        }
      }
      if (t == 0 && exists) store_lse(params, rows[r], lse);
    }
  }

  __device__ __forceinline__ void run(const Params& batch, const HopperItem* items) {
    RingPosition<C::STAGES> ring;
    if (wg + 1 == C::kWarpgroups) named_barrier_arrive<256>(turn_barrier(0));
    for (int q_parity = 0;; q_parity ^= 1) {
      mbarrier_wait(shared.q_full(wg), q_parity);
      const HopperItem item = items[wg];
      if (item.request < 0) return;
      params = hopper_request<C>(batch, item);
      const int first_packed = (item.tile * C::kWarpgroups + wg) * batch.warpgroup_rows;
      const int num_rows = min(batch.warpgroup_rows, item.qo_len * batch.group_size - first_packed);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        rows[r] = PackedRow::at(params, first_packed + warp * 16 + r * 8 + (lane >> 2), item.head);
        held[r] = l[r] = sum[r] = 0.0f;
        limit[r] = -1.0f;
      }
#pragma unroll
      for (int i = 0; i < C::D_VO / 2; ++i) o[i] = 0.0f;
      if constexpr (Variant::kGuardsLogits) guards = num_rows < 64;
      const float scale = Variant::kTransformsLogits ? kLog2e : params.sm_scale * kLog2e;
      const int last_packed = first_packed + max(num_rows, 1) - 1;
      if (item.first < item.end) {
        attend(item, first_packed / params.group_size, last_packed / params.group_size, scale, ring);
      } else {
        release(shared.q_empty(wg));
      }
      store(num_rows);
    }
  }
};

/** Grid: blocks that stay; at most as many as multiprocessors. */
template <class C, class Params>
__device__ __forceinline__ void hopper_prefill(const Params& batch) {
  extern __shared__ __align__(128) char smem[];
  require_shared_bytes(C::kSharedBytes);
  const uint32_t unaligned = shared_address(smem);
  // By way of a shuffle, or it is computed again for every tile.
  const HopperShared<C> shared{__shfl_sync(0xffffffffu, (unaligned + 1023) / 1024 * 1024, 0)};
  HopperItem* items = reinterpret_cast<HopperItem*>(smem + (shared.base - unaligned) + C::kItems);
  if (threadIdx.x == 0) {
    tma_prefetch_map(&batch.q_map);
    if constexpr (!C::kGathers) {
      tma_prefetch_map(&batch.k_map);
      tma_prefetch_map(&batch.v_map);
    }
    for (int i = 0; i < C::STAGES; ++i) {
      mbarrier_init(shared.k_full(i), C::kFullArrivals);
      mbarrier_init(shared.v_full(i), C::kFullArrivals);
      mbarrier_init(shared.k_empty(i), C::kWarpgroups * 4);
      mbarrier_init(shared.v_empty(i), C::kWarpgroups * 4);
    }
    for (int wg = 0; wg < C::kWarpgroups; ++wg) {
      mbarrier_init(shared.q_full(wg), 1);
      mbarrier_init(shared.q_empty(wg), 4);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  // By way of a shuffle the compiler knows it as the same in a warp, and keeps it.
  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(C::kLoaderRegisters));
    HopperLoader<C, Params>(batch, shared).run(items, reinterpret_cast<int*>(items + C::kWarpgroups));
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(C::kRegisters));
    HopperWarpgroup<C, Params>(shared, warpgroup - 1).run(batch, items);
  }
}

}  // namespace flashinfer
