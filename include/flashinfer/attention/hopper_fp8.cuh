// SPDX-License-Identifier: Apache-2.0
// Prefill attention for sm_90a with queries, keys and values of float8_e4m3fn: the fa3 template (hopper.cuh) with both
// products in 8 bits. Values come transposed, and keys of pages in one piece, from fp8_values.cuh.
#pragma once
#include <flashinfer/attention/fp8_values.cuh>
#include <flashinfer/attention/hopper.cuh>

namespace flashinfer {

/** O is the output's type. */
template <class O_, int D_, int KV_TILE_, class Variant_, class Visible_, bool BATCH_, bool PAGED_>
struct HopperFp8Config {
  using T = O_;
  using Variant = Variant_;
  using Visible = Visible_;
  static constexpr HopperKv KV = HopperKv::kRows;
  static constexpr bool BATCH = BATCH_, PAGED = PAGED_, kGathers = false;
  static constexpr int D_QK = D_, D_VO = D_, KV_TILE = KV_TILE_, STAGES = 2;
  static constexpr int kWarpgroups = 2, kThreads = 384, kItemBuffers = 1, kSlots = kWarpgroups;
  static constexpr bool kStagesOutput = false;
  /** What is given away must be there to take: a launch of 384 threads has 168 each. */
  static constexpr int kLoaderRegisters = D_ == 256 ? 24 : 40, kRegisters = D_ == 256 ? 240 : 232;
  static_assert(kLoaderRegisters + kWarpgroups * kRegisters <= 3 * 168, "setmaxnreg would wait for ever");
  /** Keys of values that lie side by side: a whole number of them is a tile. */
  static constexpr int kColumns = KV_TILE % 128 == 0 ? 128 : 64;

  /** Tiles of queries and keys are columns of so many dimensions, those of values columns of keys. */
  static constexpr int kColumn = 128, kFullArrivals = 1;
  static constexpr int kQBytes = 64 * D_QK, kKBytes = KV_TILE * D_QK, kVBytes = KV_TILE * D_VO;
  static constexpr int kK = kWarpgroups * kQBytes, kV = kK + STAGES * kKBytes, kBarriers = kV + STAGES * kVBytes;
  static constexpr int kItems = kBarriers + (4 * STAGES + 2 * kSlots) * 8;
  static constexpr int kSharedBytes = hopper_shared_bytes(kBarriers, STAGES, kSlots);
  static_assert(D_ % 128 == 0 && KV_TILE % 64 == 0, "columns are 128 bytes of a row wide, or 64 or 128 keys");
  static_assert(KV_TILE <= kFp8Fill, "tiles must not reach into the next request's columns");
};

/** Descriptor of transposed values: rows are dimensions, COLUMNS bytes apart, swizzled over as many. */
template <int COLUMNS>
__device__ __forceinline__ uint64_t fp8_value_descriptor(uint32_t address) {
  if constexpr (COLUMNS == 128) return wgmma_descriptor(address, 16);
  constexpr uint64_t kSwizzle64 = 2ull << 62, kRowGroup = static_cast<uint64_t>(8 * 64 >> 4) << 32;
  return kSwizzle64 | kRowGroup | 1ull << 16 | ((address & 0x3ffff) >> 4);
}

/** Four floats as e4m3, the first in the lowest byte. */
__device__ __forceinline__ uint32_t pack4_e4m3(float a, float b, float c, float d) {
  uint32_t packed;
  asm("{\n.reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      "mov.b32 %0, {low, high};\n}\n"
      : "=r"(packed)
      : "f"(a), "f"(b), "f"(c), "f"(d));
  return packed;
}

/** The loading warpgroup, of which one thread asks for copies. */
template <class C, class Params>
struct HopperFp8Loader {
  const Params& batch;
  const HopperShared<C>& shared;
  /** First rows of keys and columns of values. */
  int first_key, first_column, head;

  __device__ __forceinline__ HopperFp8Loader(const Params& params, const HopperShared<C>& places)
      : batch(params), shared(places) {}

  __device__ __forceinline__ void load_keys(int stage, int tile) {
    mbarrier_arrive_expect(shared.k_full(stage), C::kKBytes);
#pragma unroll
    for (int c = 0; c < C::D_QK / 128; ++c) {
      tma_load_3d(shared.k(stage) + c * C::KV_TILE * 128, &batch.k_map, shared.k_full(stage), c * 128,
                  first_key + tile * C::KV_TILE, head);
    }
  }

  __device__ __forceinline__ void load_values(int stage, int tile) {
    mbarrier_arrive_expect(shared.v_full(stage), C::kVBytes);
#pragma unroll
    for (int c = 0; c < C::KV_TILE / C::kColumns; ++c) {
      tma_load_3d(shared.v(stage) + c * C::kColumns * C::D_VO, &batch.v_map, shared.v_full(stage),
                  first_column + tile * C::KV_TILE + c * C::kColumns, 0, head);
    }
  }

  /** The order of hopper.cuh. */
  __device__ __forceinline__ void run(HopperItem* items, int*) {
    if (threadIdx.x != 0) return;
    unsigned* counters = static_cast<unsigned*>(batch.counters);
    const int num_items = hopper_num_items<C>(batch);
    RingPosition<C::STAGES> ring;
    RingPosition<C::kItemBuffers> buffer;
    int kv_start = 0;
    HopperItem item = hopper_item<C>(batch, num_items, blockIdx.x, kv_start);
    for (;; buffer.advance()) {
      unsigned taken = 0;
      head = item.head;
      if (item.request < 0 || item.first == item.end) hopper_hand_over(batch, shared, item, items, buffer);
      if (item.request < 0) break;
      const int taking = hopper_taking_tile(batch, num_items, item);
      if (item.first == item.end) taken = take_place(counters);
      first_column = fp8_first_column<C::BATCH, C::PAGED>(batch, item.request, kv_start);
      first_key = C::PAGED ? first_column : kv_start;
      for (int tile = item.end - 1; tile >= item.first; --tile) {
        if (tile == taking) taken = take_place(counters);
        mbarrier_wait(shared.k_empty(ring.stage), ring.parity ^ 1);
        load_keys(ring.stage, tile);
        if (tile == item.end - 1) hopper_hand_over(batch, shared, item, items, buffer);
        mbarrier_wait(shared.v_empty(ring.stage), ring.parity ^ 1);
        load_values(ring.stage, tile);
        ring.advance();
      }
      item = hopper_item<C>(batch, num_items, static_cast<int>(taken + gridDim.x), kv_start);
    }
    // As in hopper.cuh: the last block leaves both counters at zero.
    __threadfence();
    if (atomicAdd(counters + 1, 1u) == gridDim.x - 1) counters[0] = counters[1] = 0;
  }
};

/** A warpgroup that computes. Unlike those of hopper.cuh they take no turns at the tensor cores, which gained nothing. */
template <class C, class Params>
struct HopperFp8Warpgroup {
  using Variant = typename C::Variant;
  using Visible = typename C::Visible;
  static constexpr int kKeys = C::KV_TILE;
  /** Words of p that there are registers for while the product before still reads p. */
  static constexpr int kEarly = C::D_VO == 256 || Variant::kTransformsLogits ? 0 : 12;
  using Product = Wgmma<fp8_e4m3_t, kKeys>;

  /**
   * A row's greatest logit, when it was last looked for, has the weight 2^kShift. Weights that have grown since are kept up
   * to e4m3's greatest; small ones keep their bits down to 2^-11 of that logit's, their presence down to 2^-14.
   */
  static constexpr float kShift = 5.0f, kGreatest = 448.0f;

  const HopperShared<C>& shared;
  const int wg, warp, lane;
  BatchRequest<Params> params;
  PackedRow rows[2];
  float o[C::D_VO / 2], s[kKeys / 2];
  uint32_t p[kKeys / 8];
  /** The greatest logit, base 2, that weights are held against, and their sums. */
  float m[2], l[2];
  /** Of a row's head: what its products with keys are worth, and the factor of logits, base 2. */
  float worth[2], scale[2];

  __device__ __forceinline__ HopperFp8Warpgroup(const HopperShared<C>& places, int index)
      : shared(places), wg(index), warp((threadIdx.x >> 5) & 3), lane(threadIdx.x & 31) {}

  __device__ __forceinline__ void begin_scores(int stage) {
    const uint64_t q = wgmma_descriptor(shared.q(wg), 16), k = wgmma_descriptor(shared.k(stage), 16);
    wgmma_pin(s);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < C::D_QK / 32; ++i) {
      const int column = i / 4, inner = i % 4 * 32;
      Product::shared_a(s, q + ((column * 64 * 128 + inner) >> 4), k + ((column * kKeys * 128 + inner) >> 4), i > 0);
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void begin_output(int stage) {
    const uint64_t v = fp8_value_descriptor<C::kColumns>(shared.v(stage));
    constexpr int kSteps = C::kColumns / 32;
    wgmma_pin(o);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kKeys / 32; ++i) {
      const uint32_t a[4] = {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]};
      Wgmma<fp8_e4m3_t, C::D_VO>::registers_a(o, a, v + ((i / kSteps * C::D_VO * C::kColumns + i % kSteps * 32) >> 4));
    }
    wgmma_commit();
  }

  /** s, as products left it, becomes logits, and those base 2 above what their row is held against. */
  __device__ __forceinline__ void hold(int tile, int first_row, int last_row) {
    const int end = (tile + 1) * kKeys;
    const bool masks = end > params.kv_len || !Visible::all_visible(params, first_row, last_row, tile * kKeys, end);
    if (Variant::kTransformsLogits || masks) finish_logits(tile, masks);
    const float above[2] = {kShift - held_at(m[0]), kShift - held_at(m[1])};
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) s[i] = fmaf(s[i], scale[(i >> 1) & 1], above[(i >> 1) & 1]);
  }

  __device__ __forceinline__ void finish_logits(int tile, bool masks) {
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) {
      const PackedRow& row = rows[(i >> 1) & 1];
      if constexpr (Variant::kTransformsLogits) s[i] *= worth[(i >> 1) & 1];
      const LogitPosition at{row.qo_idx, tile * kKeys + (i >> 2) * 8 + (lane & 3) * 2 + (i & 1), row.qo_head,
                             row.qo_head / static_cast<int>(params.group_size)};
      finish_logit<Variant, Visible>(params, s[i], at, params.kv_len, masks);
    }
  }

  /** A row that saw no key yet is held against zero. */
  static __device__ __forceinline__ float held_at(float greatest) {
    return greatest == negative_infinity() ? 0.0f : greatest;
  }

  /** COUNT words of p from BEGIN on as floats: 2^s; the sums of them, and the greatest of those of four. */
  template <int BEGIN, int COUNT>
  __device__ __forceinline__ void weigh(float (&weights)[4 * COUNT], float (&sum)[2], float (&most)[2]) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int word = BEGIN + i, r = word & 1;
      const float* x = s + word / 2 * 8 + r * 2;
      float* w = weights + 4 * i;
#pragma unroll
      for (int e = 0; e < 4; ++e) w[e] = exp2_approx(x[e / 2 * 4 + e % 2]);
      const float four = (w[0] + w[1]) + (w[2] + w[3]);
      sum[r] = word < 2 ? four : sum[r] + four;
      most[r] = word < 2 ? four : max_nan(most[r], four);
    }
  }

  template <int BEGIN, int COUNT>
  __device__ __forceinline__ void pack(const float (&w)[4 * COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) p[BEGIN + i] = pack4_e4m3(w[4 * i], w[4 * i + 1], w[4 * i + 2], w[4 * i + 3]);
  }

  /** All of p that is not yet there. */
  template <int BEGIN>
  __device__ __forceinline__ void weigh_rest(float (&sum)[2], float (&most)[2]) {
    float weights[kKeys / 2 - 4 * BEGIN];
    weigh<BEGIN, kKeys / 8 - BEGIN>(weights, sum, most);
    pack<BEGIN, kKeys / 8 - BEGIN>(weights);
  }

  /**
   * s becomes p, and l their sums. Looking for the greatest logit takes as long as half of the exponentials, and it seldom
   * rises by much after a row's first tile: where four weights together say that one may be too great, s is still there to
   * begin again with. Returns whether m moved, and then what o must be multiplied with; the same in all threads of a warp.
   * As many weights as there are registers for are made before the product that reads p is waited for.
   */
  template <class Wait>
  __device__ __forceinline__ bool soften(float (&factor)[2], Wait wait_for_output) {
    float sum[2], most[2];
    if constexpr (kEarly > 0) {
      float early[4 * kEarly];
      weigh<0, kEarly>(early, sum, most);
      finish_before(sum[0], sum[1], shared.base);
      wait_for_output();
      pack<0, kEarly>(early);
    } else {
      wait_for_output();
    }
    weigh_rest<kEarly>(sum, most);
    // Written so that NaN does not fit, nor a row that has no maximum yet.
    const bool fits =
        most[0] <= kGreatest && most[1] <= kGreatest && m[0] != negative_infinity() && m[1] != negative_infinity();
    const bool moves = !__all_sync(0xffffffffu, fits);
    if (moves) {
      move_up(factor);
      weigh_rest<0>(sum, most);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) l[r] = moves ? fmaf(l[r], factor[r], sum[r]) : l[r] + sum[r];
    return moves;
  }

  /** Holds rows and their s against the greatest logit so far. */
  __device__ __forceinline__ void move_up(float (&factor)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = negative_infinity();
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) top = max_nan(top, max_nan(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
      top = max_nan(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = max_nan(top, __shfl_xor_sync(0xffffffffu, top, 2));
      const float held = held_at(m[r]), next = max_nan(m[r], held + (top - kShift));
      factor[r] = next == negative_infinity() ? 1.0f : exp2_approx(m[r] - next);
      m[r] = next;
      const float step = held_at(next) - held;
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) s[4 * j + 2 * r + e] -= step;
      }
    }
  }

  __device__ __forceinline__ void rescale(const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < C::D_VO / 2; ++i) o[i] *= factor[(i >> 1) & 1];
  }

  /** All tiles of an item; the order of hopper.cuh. */
  __device__ __forceinline__ void attend(const HopperItem& item, int first_row, int last_row,
                                         RingPosition<C::STAGES>& ring) {
    float factor[2];
    mbarrier_wait(shared.k_full(ring.stage), ring.parity);
    begin_scores(ring.stage);
    wgmma_wait<0>();
    wgmma_pin(s);
    release_tile(shared.k_empty(ring.stage), lane);
    if (item.first + 1 == item.end) release_item(shared.q_empty(wg));
    hold(item.end - 1, first_row, last_row);
    soften(factor, [] {});
    for (int tile = item.end - 2; tile >= item.first; --tile) {
      RingPosition<C::STAGES> next = ring;
      next.advance();
      mbarrier_wait(shared.k_full(next.stage), next.parity);
      begin_scores(next.stage);
      mbarrier_wait(shared.v_full(ring.stage), ring.parity);
      begin_output(ring.stage);
      wgmma_wait<1>();
      wgmma_pin(s);
      release_tile(shared.k_empty(next.stage), lane);
      if (tile == item.first) release_item(shared.q_empty(wg));
      hold(tile, first_row, last_row);
      const bool moved = soften(factor, [&] {
        wgmma_wait<0>();
        wgmma_pin(o);
        release_tile(shared.v_empty(ring.stage), lane);
      });
      if (moved) rescale(factor);
      ring = next;
    }
    mbarrier_wait(shared.v_full(ring.stage), ring.parity);
    begin_output(ring.stage);
    wgmma_wait<0>();
    wgmma_pin(o);
    release_tile(shared.v_empty(ring.stage), lane);
    ring.advance();
  }

  /** Four neighbouring dimensions of a row are a thread's. */
  __device__ __forceinline__ void store(int num_rows, float v_scale) {
    using T = typename C::T;
    const int t = lane & 3;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      l[r] += __shfl_xor_sync(0xffffffffu, l[r], 1);
      l[r] += __shfl_xor_sync(0xffffffffu, l[r], 2);
      if (warp * 16 + r * 8 + (lane >> 2) >= num_rows) continue;
      float lse = row_lse(m[r], l[r] * exp2f(-kShift), 1.0f);
      const float share = join_sink<Variant>(params, rows[r].qo_head, lse);
      const float factor = normalizer<Variant>(l[r]) * share * v_scale;
      T* out = static_cast<T*>(params.o) + output_offset(params, rows[r]) + t * 4;
#pragma unroll
      for (int b = 0; b < C::D_VO / 16; ++b) {
        const float* x = o + 8 * b + 2 * r;
        *reinterpret_cast<uint2*>(out + b * 16) =
            make_uint2(pack2<T>(x[0] * factor, x[4] * factor), pack2<T>(x[1] * factor, x[5] * factor));
      }
      if (t == 0) store_lse(params, rows[r], lse);
    }
  }

  /** A head's scale, or 1 where the caller gave none. */
  static __device__ __forceinline__ float head_scale(const void* scales, int head) {
    return scales == nullptr ? 1.0f : static_cast<const float*>(scales)[head];
  }

  __device__ __forceinline__ void run(const Params& batch, const HopperItem* items) {
    RingPosition<C::STAGES> ring;
    for (int q_parity = 0;; q_parity ^= 1) {
      mbarrier_wait(shared.q_full(wg), q_parity);
      const HopperItem item = items[wg];
      if (item.request < 0) return;
      params = hopper_request<C>(batch, item);
      const int first_packed = (item.tile * C::kWarpgroups + wg) * batch.warpgroup_rows;
      const int num_rows = min(batch.warpgroup_rows, item.qo_len * batch.group_size - first_packed);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = warp * 16 + r * 8 + (lane >> 2);
        rows[r] = PackedRow::at(params, first_packed + row, item.head);
        m[r] = negative_infinity();
        l[r] = 0.0f;
        worth[r] = head_scale(batch.k_scales, item.head);
        if (row < num_rows) worth[r] *= head_scale(batch.q_scales, rows[r].qo_head);
        scale[r] = Variant::kTransformsLogits ? kLog2e : params.sm_scale * worth[r] * kLog2e;
      }
#pragma unroll
      for (int i = 0; i < C::D_VO / 2; ++i) o[i] = 0.0f;
      const int last_packed = first_packed + max(num_rows, 1) - 1;
      if (item.first < item.end) {
        attend(item, first_packed / params.group_size, last_packed / params.group_size, ring);
      } else {
        release_item(shared.q_empty(wg));
      }
      store(num_rows, params.v_scale * head_scale(batch.v_scales, item.head));
    }
  }
};

template <class C, class Params>
__device__ __forceinline__ void hopper_fp8_prefill(const Params& batch) {
  hopper_block<C, HopperFp8Loader<C, Params>, HopperFp8Warpgroup<C, Params>>(batch);
}

}  // namespace flashinfer
