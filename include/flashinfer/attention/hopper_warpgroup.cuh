// SPDX-License-Identifier: Apache-2.0
// A warpgroup of the fa3 template that computes: scores, softmax, output.
#pragma once
#include <flashinfer/attention/hopper_item.cuh>
#include <flashinfer/wgmma.cuh>

namespace flashinfer {

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

/** One store: left to itself, the compiler makes four of some, rather than to have neighbouring registers. */
__device__ __forceinline__ void store_16(void* to, const uint32_t (&x)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};\n" ::"l"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
               : "memory");
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
  int slot = 0;
  /** The first and last token of the item's rows, and how many rows there are. */
  int first_token, last_token, num_rows;
  /** Of the tensor's tokens. */
  int qo_begin;

  __device__ __forceinline__ HopperWarpgroup(const HopperShared<C>& places, int index)
      : shared(places), wg(index), warp((threadIdx.x >> 5) & 3), lane(threadIdx.x & 31) {}

  /** s = Q Kᵀ, begun. */
  __device__ __forceinline__ void begin_scores(int stage) {
    const uint64_t q = wgmma_descriptor(shared.q(slot), 16), k = wgmma_descriptor(shared.k(stage), 16);
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

  /**
   * p of an item's first tile. Rows are held against the greatest of every fourth group of keys, which takes a quarter of
   * the time: where that is too little, their sums tell.
   */
  __device__ __forceinline__ void soften_first(float scale) {
    if constexpr (Variant::kUsesSoftmax) {
      hold_against(0, top_of_row<4>(0) * scale);
      hold_against(1, top_of_row<4>(1) * scale);
      float weights[kKeys / 2];
      sum[0] = sum[1] = 0.0f;
      weigh<0>(weights, scale);
      pack<0>(weights);
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
      const float before = greatest(r), was = held[r], now = max_nan(before, was + top_of_row(r));
      factor[r] = now == negative_infinity() ? 1.0f : exp2_approx(before - now);
      hold_against(r, now);
      const float step = held[r] - was;
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) s[4 * j + 2 * r + e] -= step;
      }
      sum[r] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kKeys / 2; i += 2) {
      const float low = exp2_approx(s[i]), high = exp2_approx(s[i + 1]);
      sum[(i >> 1) & 1] += low + high;
      p[i / 2] = pack2<T>(low, high);
    }
  }

  /** A row that saw no key yet is held against zero, and no weight may stay. */
  __device__ __forceinline__ void hold_against(int r, float logit) {
    const bool none = logit == negative_infinity();
    held[r] = none ? 0.0f : logit;
    limit[r] = none ? -1.0f : kLimit;
  }

  /** The greatest s of a row, of every STEP-th eight keys, the same in the four threads that share it. */
  template <int STEP = 1>
  __device__ __forceinline__ float top_of_row(int r) const {
    float chains[4];
#pragma unroll
    for (int j = 0; j < kKeys / 8; j += STEP) {
      const float top = max_nan(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]);
      const int chain = j / STEP & 3;
      chains[chain] = j < 4 * STEP ? top : max_nan(chains[chain], top);
    }
    constexpr int kGroups = (kKeys / 8 + STEP - 1) / STEP, kChains = kGroups < 4 ? kGroups : 4;
    float top = chains[0];
#pragma unroll
    for (int i = 1; i < kChains; ++i) top = max_nan(top, chains[i]);
    top = max_nan(top, __shfl_xor_sync(0xffffffffu, top, 1));
    return max_nan(top, __shfl_xor_sync(0xffffffffu, top, 2));
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

  __device__ __forceinline__ bool masks_tile(int tile) const {
    const int end = (tile + 1) * kKeys;
    return guards || end > params.kv_len || !Visible::all_visible(params, first_token, last_token, tile * kKeys, end);
  }

  /** All tiles of an item, of which the scores of the first have begun. */
  __device__ __forceinline__ void attend(const HopperItem& item, RingPosition<C::STAGES>& ring) {
    const float scale = Variant::kTransformsLogits ? kLog2e : params.sm_scale * kLog2e;
    wgmma_wait<0>();
    wgmma_pin(s);
    release_tile(shared.k_empty(ring.stage), lane);
    if (item.first + 1 == item.end) release_item(shared.q_empty(slot));
    if (Variant::kTransformsLogits || masks_tile(item.end - 1)) finish_logits(item.end - 1, true);
    soften_first(scale);
    for (int tile = item.end - 2; tile >= item.first; --tile) {
      // Most tiles have nothing special, and a loop of their own without jumps.
      const bool values_end = params.kv_len < (tile + 2) * kKeys;
      const bool masks = masks_tile(tile);
      if (tile > item.first && !values_end && !masks) step<false>(item, tile, false, scale, ring);
      else step<true>(item, tile, masks, scale, ring);
    }
    account();
    wait_tile(shared.v_full(ring.stage), ring.parity);
    clear_values(ring.stage, params.kv_len - item.first * kKeys);
    begin_output(ring.stage);
    wgmma_wait<0>();
    wgmma_pin(o);
    release_tile(shared.v_empty(ring.stage), lane);
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
    release_tile(shared.k_empty(next.stage), lane);
    if (EDGE && tile == item.first) release_item(shared.q_empty(slot));
    if (Variant::kTransformsLogits || (EDGE && masks)) finish_logits(tile, EDGE && masks);
    soften(scale, [&] {
      wgmma_wait<0>();
      wgmma_pin(o);
      release_tile(shared.v_empty(ring.stage), lane);
    });
    ring = next;
  }

  /**
   * What both rows are multiplied with, and their lse, without branches: a warp waits for each of its own instructions
   * here. `l` is at least a weight of the greatest logit, so that approximations do not meet subnormal numbers.
   */
  __device__ __forceinline__ void finish_rows(float (&factor)[2], float (&lse)[2]) {
#pragma unroll
    for (int step = 1; step <= 2; step <<= 1) {
      const float others[2] = {__shfl_xor_sync(0xffffffffu, l[0], step), __shfl_xor_sync(0xffffffffu, l[1], step)};
      l[0] += others[0];
      l[1] += others[1];
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      lse[r] = l[r] == 0.0f ? negative_infinity() : greatest(r) + log2_approx(l[r]);
      factor[r] = params.v_scale;
      if constexpr (Variant::kUsesSoftmax) factor[r] *= l[r] == 0.0f ? 0.0f : reciprocal_approx(l[r]);
    }
    if (params.sinks != nullptr) {
#pragma unroll
      for (int r = 0; r < 2; ++r) factor[r] *= join_sink<Variant>(params, rows[r].qo_head, lse[r]);
    }
  }

  __device__ __forceinline__ void store(const Params& batch) {
    float factor[2], lse[2];
    finish_rows(factor, lse);
    if (C::kStagesOutput && num_rows == batch.warpgroup_rows) store_box(batch, factor);
    else store_rows(factor, lse);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if ((lane & 3) == 0 && exists(r)) store_lse(params, rows[r], lse[r]);
    }
  }

  __device__ __forceinline__ bool exists(int r) const { return warp * 16 + r * 8 + (lane >> 2) < num_rows; }

  /** All of the warpgroup's rows exist: they leave as they lie in the queries' box, and nobody waits for them. */
  __device__ __forceinline__ void store_box(const Params& batch, const float (&factor)[2]) {
    const bool leads = (threadIdx.x & 127) == 0;
    if (leads) tma_store_wait_read();
    named_barrier_sync<128>(own_barrier(wg));
    const uint32_t row = shared.o(wg) + (warp * 16 + (lane & 15)) * 128;
    const uint32_t swizzle = ((lane >> 4) ^ (lane & 7)) << 4;
#pragma unroll
    for (int j = 0; j < C::D_VO / 8; j += 2) {
      uint32_t pieces[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* x = o + 4 * (j + (i >> 1)) + 2 * (i & 1);
        pieces[i] = pack2<T>(x[0] * factor[i & 1], x[1] * factor[i & 1]);
      }
      stmatrix_x4(row + (j >> 3) * 64 * 128 + (swizzle ^ (j & 7) << 4), pieces[0], pieces[1], pieces[2], pieces[3]);
    }
    fence_async_proxy();
    named_barrier_sync<128>(own_barrier(wg));
    if (!leads) return;
#pragma unroll
    for (int c = 0; c < C::D_VO / 64; ++c) {
      tma_store_3d(&batch.o_map, shared.o(wg) + c * 64 * 128, c * 64, rows[0].qo_head, qo_begin + rows[0].qo_idx);
    }
    tma_store_commit();
  }

  /** Rows leave in 16-byte pieces: the four threads of a row exchange what they hold of four pieces. */
  __device__ __forceinline__ void store_rows(const float (&factor)[2], const float (&lse)[2]) {
    const int head = rows[0].qo_head / static_cast<int>(params.group_size), t = lane & 3;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      T* out = static_cast<T*>(params.o) + output_offset(params, rows[r]) + t * 8;
#pragma unroll
      for (int j = 0; j < C::D_VO / 8; j += 4) {
        uint32_t piece[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float low = o[4 * (j + i) + 2 * r] * factor[r], high = o[4 * (j + i) + 2 * r + 1] * factor[r];
          if constexpr (Variant::kTransformsOutput) {
            if (exists(r)) {
              const int dim = (j + i) * 8 + t * 2;
              low = Variant::transform_output(params, low, {rows[r].qo_idx, rows[r].qo_head, head, dim}, lse[r]);
              high = Variant::transform_output(params, high, {rows[r].qo_idx, rows[r].qo_head, head, dim + 1}, lse[r]);
            }
          }
          piece[i] = pack2<T>(low, high);
        }
        transpose_quad(piece, t);
        if (exists(r)) store_16(out + j * 8, piece);
      }
    }
  }

  /** What the item says of this warpgroup's rows. */
  __device__ __forceinline__ void begin_item(const Params& batch, const HopperItem& item) {
    params = hopper_request<C>(batch, item);
    qo_begin = item.qo_begin;
    const int group = batch.group_size;
    first_token = (item.tile * C::kWarpgroups + wg) * batch.warpgroup_tokens;
    num_rows = min(batch.warpgroup_rows, (item.qo_len - first_token) * group);
    last_token = first_token + row_token(batch, max(num_rows, 1) - 1);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp * 16 + r * 8 + (lane >> 2), token = row_token(batch, row);
      rows[r] = {first_token + token, item.head * group + row - token * group};
      held[r] = l[r] = sum[r] = 0.0f;
      limit[r] = -1.0f;
    }
#pragma unroll
    for (int i = 0; i < C::D_VO / 2; ++i) o[i] = 0.0f;
    if constexpr (Variant::kGuardsLogits) guards = num_rows < 64;
  }

  /** The token of a warpgroup's row, row / group_size; both are at most 64. */
  static __device__ __forceinline__ int row_token(const Params& batch, int row) {
    return (row * batch.group_multiplier) >> 12;
  }

  __device__ __forceinline__ void run(const Params& batch, const HopperItem* items) {
    RingPosition<C::STAGES> ring;
    if (wg + 1 == C::kWarpgroups) named_barrier_arrive<256>(turn_barrier(0));
    RingPosition<C::kItemBuffers> buffer;
    for (;; buffer.advance()) {
      slot = buffer.stage * C::kWarpgroups + wg;
      mbarrier_wait(shared.q_full(slot), buffer.parity);
      const HopperItem item = items[slot];
      if (item.request < 0) {
        // Shared memory must stay until it is read.
        if constexpr (C::kStagesOutput) tma_store_wait_read();
        return;
      }
      if (item.first < item.end) {
        // Before all arithmetic, which takes as long as these products.
        wait_tile(shared.k_full(ring.stage), ring.parity);
        begin_scores(ring.stage);
        begin_item(batch, item);
        attend(item, ring);
      } else {
        begin_item(batch, item);
        release_item(shared.q_empty(slot));
      }
      store(batch);
    }
  }
};

}  // namespace flashinfer
