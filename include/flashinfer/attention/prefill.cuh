// SPDX-License-Identifier: Apache-2.0
// Prefill and append attention for tensor cores of sm_75 and up: the fa2 template (arXiv:2307.08691).
//
// A block of four warps owns M_TILES * 64 packed query rows of one KV head and walks the keys from the last tile
// back, so that the tiles cut by the causal diagonal come first. K and V have one buffer each: V of a tile arrives by
// cp.async while its scores are computed, K of the next one during softmax and the second product. A second block on
// the multiprocessor fills the barriers; deeper rings and computing scores a tile ahead were slower on H200
// (255 registers a thread leave no room: 300 against 325 TFLOP/s).
#pragma once
#include <flashinfer/attention/kv_source.cuh>
#include <flashinfer/attention/output.cuh>
#include <flashinfer/attention/rope.cuh>
#include <flashinfer/attention/softmax.cuh>

namespace flashinfer {

/** fp8 tiles land raw and are converted into 16-bit operand buffers. */
template <class T_, class KvT_, int D_QK_, int D_VO_, int M_TILES_, int KV_TILE_, class Variant_, class Visible_,
          PosEncodingMode POS_, class Kv_ = ContiguousKv>
struct PrefillConfig {
  using T = T_;
  using KvT = KvT_;
  using Variant = Variant_;
  using Visible = Visible_;
  using Kv = Kv_;
  static constexpr int D_QK = D_QK_, D_VO = D_VO_, M_TILES = M_TILES_, KV_TILE = KV_TILE_;
  static constexpr int kWarps = 4, kThreads = kWarps * 32;
  static constexpr int kWarpRows = M_TILES * 16, kRows = kWarps * kWarpRows;
  static constexpr bool kConverts = sizeof(KvT) == 1;
  static constexpr bool kRope = POS_ == PosEncodingMode::kRopeLlama;
  static constexpr bool kPreparesQ = kRope || Variant::kTransformsQuery;
  /** How a tile of K or V arrives. */
  template <int D>
  using Landing = typename Choose<kConverts, LinearTile<D>, SmemTile<D>>::type;

  static constexpr int kQBytes = kRows * D_QK * 2;
  static constexpr int kOperandK = kQBytes, kOperandV = kOperandK + KV_TILE * D_QK * 2;
  static constexpr int kOperandEnd = kOperandV + KV_TILE * D_VO * 2;
  /** Where tiles land: in the operand buffers, or beside them when they must be converted. */
  static constexpr int kLandingK = kConverts ? kOperandEnd : kOperandK;
  static constexpr int kLandingV = kConverts ? kLandingK + KV_TILE * D_QK : kOperandV;
  static constexpr int kFrequencies = kConverts ? kLandingV + KV_TILE * D_VO : kOperandEnd;
  /** Addresses of the rows of two tiles, K's and V's. */
  static constexpr int kLists = kFrequencies + (kRope ? D_QK / 2 * 8 : 0);
  static constexpr int kListBytes = KV_TILE * 8;
  static constexpr int kSharedBytes = kLists + (Kv::kPaged ? 2 * 2 * kListBytes : 0);
};

template <class C, class Params>
struct PrefillBlock {
  using T = typename C::T;
  using KvT = typename C::KvT;
  using Visible = typename C::Visible;
  using Variant = typename C::Variant;
  using Attention = WarpAttention<T, C::D_QK, C::D_VO, C::M_TILES, C::KV_TILE>;
  using Scores = typename Attention::Scores;
  /** Of the rows of K or V, of width D, that this thread copies. */
  template <int D>
  using Rows = RowAddresses<typename C::template Landing<D>, C::KV_TILE, C::kThreads>;

  const Params& params;
  char* smem;
  uint32_t shared;
  const int thread, lane, warp, kv_head, first_packed;
  const char *k_base, *v_base;
  int key_limit;
  Attention state;

  __device__ __forceinline__ PrefillBlock(const Params& p, char* memory, int q_tile, int head)
      : params(p),
        smem(memory),
        shared(shared_address(memory)),
        thread(threadIdx.x),
        lane(threadIdx.x & 31),
        warp(threadIdx.x >> 5),
        kv_head(head),
        first_packed(q_tile * C::kRows) {
    // Held in a register: else compilers make it anew at each use, and registers for that spill.
    if constexpr (C::Kv::kPaged) asm("" : "+r"(shared));
    k_base = static_cast<const char*>(p.k) + head * p.k_stride_h * static_cast<int64_t>(sizeof(KvT));
    v_base = static_cast<const char*>(p.v) + head * p.v_stride_h * static_cast<int64_t>(sizeof(KvT));
  }

  __device__ __forceinline__ int packed_row(int mi, int r) const {
    return first_packed + warp * C::kWarpRows + mi * 16 + r * 8 + (lane >> 2);
  }

  /** Recomputed where it is needed: holding it would cost registers that the accumulators want. */
  __device__ __forceinline__ PackedRow row_at(int mi, int r) const {
    return PackedRow::at(params, packed_row(mi, r), kv_head);
  }

  template <bool IS_K, int D>
  __device__ __forceinline__ void load(int dst, const char* base, int tile, const Rows<D>& rows) {
    if constexpr (C::Kv::kPaged) {
      rows.load_async(shared + dst, thread);
    } else {
      const int64_t stride = (IS_K ? params.k_stride_n : params.v_stride_n) * static_cast<int64_t>(sizeof(KvT));
      load_tile_async<typename C::template Landing<D>, C::KV_TILE, C::kThreads>(shared + dst, base, stride,
                                                                                tile * C::KV_TILE, key_limit, thread);
    }
    cp_async_commit();
  }

  __device__ __forceinline__ void load_k(int tile, const Rows<C::D_QK>& rows) {
    load<true, C::D_QK>(C::kLandingK, k_base, tile, rows);
  }
  __device__ __forceinline__ void load_v(int tile, const Rows<C::D_VO>& rows) {
    load<false, C::D_VO>(C::kLandingV, v_base, tile, rows);
  }

  /** Shared address of the list of a tile's rows of K or of V. */
  __device__ __forceinline__ uint32_t list(int tile, bool of_k) const {
    return shared + C::kLists + ((tile & 1) * 2 + (of_k ? 0 : 1)) * C::kListBytes;
  }

  /** The row of each tile that this thread lists. */
  __device__ __forceinline__ int list_place() const { return thread & (C::KV_TILE - 1); }

  /** Its key; where there is no such tile, some key of the request. */
  __device__ __forceinline__ int listed_key(int tile) const {
    return max(tile, 0) * C::KV_TILE + min(list_place(), key_limit - 1);
  }

  /** Lists where the row is: half of the threads for K, half for V. */
  __device__ __forceinline__ void list_row(int tile, const PagedRow& row) const {
    static_assert(2 * C::KV_TILE <= C::kThreads, "a thread lists one row");
    if (2 * C::KV_TILE < C::kThreads && thread >= 2 * C::KV_TILE) return;
    const bool of_k = thread < C::KV_TILE;
    const char* address =
        row.template address<KvT>(of_k ? k_base : v_base, of_k ? params.k_stride_page : params.v_stride_page,
                                  of_k ? params.k_stride_n : params.v_stride_n);
    store_shared_pointer(list(tile, of_k) + list_place() * 8, address);
  }

  __device__ __forceinline__ const RopeFrequency* frequencies() const {
    return reinterpret_cast<const RopeFrequency*>(smem + C::kFrequencies);
  }

  /** Q has landed: rotate and transform it. Row positions follow the causal alignment, kv_len - qo_len + qo_idx. */
  __device__ __forceinline__ void prepare_q() {
    if constexpr (C::kRope) {
      fill_rope_frequencies<C::D_QK, C::kThreads>(reinterpret_cast<RopeFrequency*>(smem + C::kFrequencies),
                                                  params.rope_rcp_scale, params.rope_log2_theta, thread);
      __syncthreads();
      rope_tile<T, C::D_QK, C::kRows, C::kThreads>(smem, frequencies(), thread, [&](int row) {
        return params.kv_len - params.qo_len + PackedRow::at(params, first_packed + row, kv_head).qo_idx;
      });
      __syncthreads();
    }
    if constexpr (Variant::kTransformsQuery) {
      transform_query_tile<Variant, T, C::D_QK, C::kRows, C::kThreads>(params, smem, first_packed, kv_head, thread);
      __syncthreads();
    }
  }

  /** K has landed: convert and rotate it. Ends synchronised. */
  __device__ __forceinline__ void prepare_k(int tile) {
    if constexpr (C::kConverts) {
      dequantize_tile<T, KvT, C::D_QK, C::KV_TILE, C::kThreads>(smem + C::kLandingK, smem + C::kOperandK, thread);
      __syncthreads();
    }
    if constexpr (C::kRope) {
      rope_tile<T, C::D_QK, C::KV_TILE, C::kThreads>(smem + C::kOperandK, frequencies(), thread,
                                                     [&](int row) { return tile * C::KV_TILE + row; });
      __syncthreads();
    }
  }

  __device__ __forceinline__ void prepare_v() {
    if constexpr (C::kConverts) {
      dequantize_tile<T, KvT, C::D_VO, C::KV_TILE, C::kThreads>(smem + C::kLandingV, smem + C::kOperandV, thread);
      __syncthreads();
    }
  }

  __device__ __forceinline__ void transform_and_mask(Scores& s, int tile, bool masks) {
#pragma unroll
    for (int mi = 0; mi < C::M_TILES; ++mi) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const PackedRow row = row_at(mi, r);
#pragma unroll
        for (int i = 0; i < C::KV_TILE / 4; ++i) {
          const int kv_idx = tile * C::KV_TILE + (i >> 1) * 8 + (lane & 3) * 2 + (i & 1);
          float& logit = s[mi][i >> 1][2 * r + (i & 1)];
          const LogitPosition at{row.qo_idx, kv_idx, row.qo_head, kv_head};
          finish_logit<Variant, Visible>(params, logit, at, key_limit, masks);
        }
      }
    }
  }

  /**
   * Walks tiles [first, end) from the last one back. Q is on its way.
   *
   * Of pages, a row's id is read three tiles ahead, its address is listed two tiles ahead, and a thread reads the addresses
   * of the rows that it copies before the barrier that it copies them after: all that latency behind the copies was an
   * eighth of the time. A list is written when all threads have read the one that it replaces, two tiles before.
   */
  __device__ __forceinline__ void attend(int first, int end, int first_row, int last_row, float scale) {
    const uint32_t q = shared + Attention::q_lane(warp * C::kWarpRows, lane);
    const uint32_t k = shared + C::kOperandK + Attention::k_lane(lane);
    const uint32_t v = shared + C::kOperandV + Attention::v_lane(lane);
    PagedRow row;
    Rows<C::D_QK> k_rows;
    Rows<C::D_VO> v_rows;
    if constexpr (C::Kv::kPaged) {
      // Rows past the last key repeat it: no query sees them.
      const PagedRow last = PagedRow::find_ahead(params, min(listed_key(end - 1), key_limit - 1));
      const PagedRow before = PagedRow::find_ahead(params, listed_key(end - 2));
      row = PagedRow::find_ahead(params, listed_key(end - 3));
      list_row(end - 1, last);
      list_row(end - 2, before);
      __syncthreads();
      k_rows.read(list(end - 1, true), thread);
    }
    load_k(end - 1, k_rows);
    // Rows past the last one are no business of a custom variant.
    const bool guards = Variant::kGuardsLogits && first_packed + C::kRows > params.qo_len * params.group_size;
    // Tiles [first_clear, end_clear) need no test of their logits.
    int first_clear, end_clear;
    Visible::clear_range(params, first_row, last_row, first_clear, end_clear);
    first_clear = ceil_div(first_clear, C::KV_TILE);
    end_clear = guards ? 0 : min(end_clear, key_limit) / C::KV_TILE;
    if constexpr (C::kPreparesQ) {
      cp_async_wait<0>();
      __syncthreads();
      prepare_q();
    }
    for (int tile = end - 1; tile >= first; --tile) {
      if constexpr (C::Kv::kPaged) v_rows.read(list(tile, false), thread);
      cp_async_wait<0>();
      __syncthreads();  // K is here, and V of the tile before is done with
      prepare_k(tile);
      load_v(tile, v_rows);
      if constexpr (C::Kv::kPaged) {
        list_row(tile - 2, row);
        row = PagedRow::find_ahead(params, listed_key(tile - 3));
      }
      Scores s;
      Attention::scores(s, q, k);
      if constexpr (C::Kv::kPaged) k_rows.read(list(tile - 1, true), thread);
      cp_async_wait<0>();
      __syncthreads();  // V is here, and K is done with
      prepare_v();
      if (tile > first) load_k(tile - 1, k_rows);
      const bool masks = tile >= end_clear || (Visible::kHasWindow && tile < first_clear);
      if (masks) transform_and_mask(s, tile, true);
      else if constexpr (Variant::kTransformsLogits) transform_and_mask(s, tile, false);
      if constexpr (Variant::kUsesSoftmax) state.hold_maximum(s, scale);
      state.template accumulate<Variant::kUsesSoftmax>(s, scale, v);
    }
  }

  __device__ __forceinline__ void store(int split, float scale) {
    state.finish_sums();
    const int total = params.qo_len * params.group_size;
#pragma unroll
    for (int mi = 0; mi < C::M_TILES; ++mi) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (packed_row(mi, r) >= total) continue;
        const PackedRow at = row_at(mi, r);
        float lse = row_lse(state.m[mi][r], state.l[mi][r], scale);
        if (params.num_splits > 1) {
          store_partial(split, at, mi, r, lse);
        } else {
          const float share = join_sink<Variant>(params, at.qo_head, lse);
          store_row(at, mi, r, share, lse);
          if ((lane & 3) == 0) store_lse(params, at, lse);
        }
      }
    }
  }

  __device__ __forceinline__ void store_row(const PackedRow& at, int mi, int r, float share, float lse) {
    const float factor = normalizer<Variant>(state.l[mi][r]) * share * params.v_scale;
    T* out = static_cast<T*>(params.o) + output_offset(params, at) + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < C::D_VO / 8; ++n) {
      float low = state.o[mi][n][2 * r] * factor, high = state.o[mi][n][2 * r + 1] * factor;
      if constexpr (Variant::kTransformsOutput) {
        const int dim = n * 8 + (lane & 3) * 2;
        low = Variant::transform_output(params, low, ElementPosition{at.qo_idx, at.qo_head, kv_head, dim}, lse);
        high = Variant::transform_output(params, high, ElementPosition{at.qo_idx, at.qo_head, kv_head, dim + 1}, lse);
      }
      *reinterpret_cast<uint32_t*>(out + n * 8) = pack2<T>(low, high);
    }
  }

  /** partial_o `[num_splits, qo_len, num_qo_heads, D_VO]`, partial_lse `[num_splits, qo_len, num_qo_heads]`. */
  __device__ __forceinline__ void store_partial(int split, const PackedRow& at, int mi, int r, float lse) {
    const int64_t row = (static_cast<int64_t>(split) * params.qo_len + at.qo_idx) * params.num_qo_heads + at.qo_head;
    const float factor = normalizer<Variant>(state.l[mi][r]);
    float* out = static_cast<float*>(params.partial_o) + row * C::D_VO + (lane & 3) * 2;
#pragma unroll
    for (int n = 0; n < C::D_VO / 8; ++n) {
      *reinterpret_cast<float2*>(out + n * 8) =
          make_float2(state.o[mi][n][2 * r] * factor, state.o[mi][n][2 * r + 1] * factor);
    }
    if ((lane & 3) == 0) static_cast<float*>(params.partial_lse)[row] = lse;
  }
};

/**
 * One block's share: split `split` of query tile `q_tile` of one KV head, of a request whose splits cover keys
 * kv_begin + [i * kv_chunk, (i + 1) * kv_chunk), both multiples of KV_TILE.
 */
template <class C, class Params>
__device__ __forceinline__ void prefill_tile(const Params& params, char* smem, int split, int kv_head, int q_tile) {
  PrefillBlock<C, Params> block(params, smem, q_tile, kv_head);
  const int last_packed = min(block.first_packed + C::kRows, params.qo_len * params.group_size) - 1;
  const int first_row = block.first_packed / params.group_size, last_row = last_packed / params.group_size;
  int first_key, end_key;
  C::Visible::key_range(params, first_row, last_row, first_key, end_key);
  if (params.num_splits > 1) {
    first_key = max(first_key, params.kv_begin + split * params.kv_chunk);
    end_key = min(end_key, params.kv_begin + (split + 1) * params.kv_chunk);
  }
  block.key_limit = end_key;
  const float scale = C::Variant::kTransformsLogits ? kLog2e : params.sm_scale * kLog2e;
  block.state.init();
  if (first_key < end_key) {
    load_query_async<typename C::T, C::D_QK, C::kRows, C::kThreads>(params, block.shared, block.first_packed,
                                                                    block.kv_head, block.thread);
    block.attend(first_key / C::KV_TILE, ceil_div(end_key, C::KV_TILE), first_row, last_row, scale);
  }
  block.store(split, scale);
}

/** One request. Grid: (query tiles, KV heads, splits). */
template <class C, class Params>
__device__ __forceinline__ void single_prefill(const Params& params) {
  extern __shared__ __align__(128) char smem[];
  require_shared_bytes(C::kSharedBytes);
  // Later query tiles see more keys under the causal rule: they start first and the light ones fill the tail.
  const int q_tile = static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x);
  prefill_tile<C>(params, smem, blockIdx.z, blockIdx.y, q_tile);
}

}  // namespace flashinfer
