// SPDX-License-Identifier: Apache-2.0
// Prefill attention for sm_90a with queries, keys and values of float8_e4m3fn: the fa3 template (hopper.cuh) with both
// products in 8 bits.
//
// wgmma reads 8-bit operands K-major only, and the K of the second product are keys: the loading warpgroup transposes every
// tile of values in shared memory. Transposing moves pairs of bytes (ldmatrix), which leaves a thread the keys 2 * t, + 1 and
// 2 * t + 8, + 9 of sixteen. Those are the keys whose weights it holds after the first product: in that order of keys the
// accumulators are the second product's operand as they are. Even and odd dimensions of values part on the way, in blocks of
// sixteen; so a thread ends with four neighbouring dimensions of its rows.
#pragma once
#include <flashinfer/attention/hopper.cuh>
#include <flashinfer/mma.cuh>

namespace flashinfer {

/** O is the output's type. */
template <class O_, int D_, int KV_TILE_, class Variant_, class Visible_, bool BATCH_>
struct HopperFp8Config {
  using T = O_;
  using Variant = Variant_;
  using Visible = Visible_;
  static constexpr HopperKv KV = HopperKv::kRows;
  static constexpr bool BATCH = BATCH_, kGathers = false;
  static constexpr int D_QK = D_, D_VO = D_, KV_TILE = KV_TILE_, STAGES = 2;
  static constexpr int kWarpgroups = 2, kThreads = 384;
  static constexpr int kLoaderRegisters = 40, kRegisters = 232;

  /** Tiles are columns of 128 elements, 128 bytes; transposed ones have a row a dimension and a column for 128 keys. */
  static constexpr int kQBytes = 64 * D_QK, kKBytes = KV_TILE * D_QK, kVBytes = (KV_TILE + 127) / 128 * 128 * D_VO;
  static constexpr int kRawBytes = KV_TILE * D_VO;
  static constexpr int kK = kWarpgroups * kQBytes, kV = kK + STAGES * kKBytes, kRaw = kV + STAGES * kVBytes;
  static constexpr int kBarriers = kRaw + STAGES * kRawBytes;
  static constexpr int kItems = kBarriers + (5 * STAGES + 2 * kWarpgroups) * 8;
  static constexpr int kSharedBytes = (kItems + kWarpgroups * 32 + 16 + 1023) / 1024 * 1024 + 1024;
  static_assert(D_ % 128 == 0 && KV_TILE % 32 == 0, "swizzled columns are 128 bytes wide, products 32 keys deep");
};

/** Stores four 8x8 matrices of 16-bit elements; lane i gives the address of a row (PTX ISA 9.7.14.5.16, stmatrix). */
__device__ __forceinline__ void stmatrix_x4(uint32_t address, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(address), "r"(r0), "r"(r1),
               "r"(r2), "r"(r3)
               : "memory");
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

/** The loading warpgroup: its first thread asks for copies, all transpose values. */
template <class C, class Params>
struct HopperFp8Loader {
  const Params& batch;
  const HopperShared<C>& shared;
  const int thread;
  int kv_start, head, kv_len;

  __device__ __forceinline__ HopperFp8Loader(const Params& params, const HopperShared<C>& places)
      : batch(params), shared(places), thread(threadIdx.x) {}

  __device__ __forceinline__ uint32_t raw(int stage) const { return shared.base + C::kRaw + stage * C::kRawBytes; }
  __device__ __forceinline__ uint32_t raw_full(int stage) const {
    return shared.barrier(4 * C::STAGES + 2 * C::kWarpgroups + stage);
  }

  /** By one thread. */
  template <int D>
  __device__ __forceinline__ void load(const void* map, uint32_t dst, uint32_t full, int tile) {
    mbarrier_arrive_expect(full, C::KV_TILE * D);
#pragma unroll
    for (int c = 0; c < D / 128; ++c) {
      tma_load_3d(dst + c * C::KV_TILE * 128, map, full, c * 128, kv_start + tile * C::KV_TILE, head);
    }
  }

  /** The item and its queries for every warpgroup, by one thread; request -1 says that there is nothing more. */
  __device__ __forceinline__ void hand_over(const HopperItem& item, HopperItem* items, int parity) {
    const int tokens = batch.warpgroup_rows / batch.group_size;
    for (int wg = 0; wg < C::kWarpgroups; ++wg) {
      mbarrier_wait(shared.q_empty(wg), parity);
      items[wg] = item;
      if (item.request < 0) {
        mbarrier_arrive(shared.q_full(wg));
        continue;
      }
      mbarrier_arrive_expect(shared.q_full(wg), batch.warpgroup_rows * C::D_QK);
      const int token = item.qo_begin + (item.tile * C::kWarpgroups + wg) * tokens;
#pragma unroll
      for (int c = 0; c < C::D_QK / 128; ++c) {
        tma_load_3d(shared.q(wg) + c * 64 * 128, &batch.q_map, shared.q_full(wg), c * 128, item.head * batch.group_size,
                    token);
      }
    }
  }

  /** Values of a tile, of which the first `valid` keys are the request's: a weight of zero does not silence a NaN. */
  __device__ __forceinline__ void transpose(const RingPosition<C::STAGES>& ring, int valid) {
    constexpr int kChunks = C::D_VO / 16;
    const int warp = thread >> 5, lane = thread & 31, matrix = lane >> 3, row = lane & 7;
    mbarrier_wait(raw_full(ring.stage), ring.parity);
    mbarrier_wait(shared.v_empty(ring.stage), ring.parity ^ 1);
    __syncwarp();
#pragma unroll 1
    for (int block = warp; block < kChunks * (C::KV_TILE / 32); block += 4) {
      const int chunk = block % kChunks, keys = block / kChunks;
      uint32_t x[4];
      const uint32_t column = raw(ring.stage) + (chunk >> 3) * C::KV_TILE * 128;
      ldmatrix_x4_trans(column + (keys * 32 + lane) * 128 + (((chunk & 7) ^ row) << 4), x[0], x[1], x[2], x[3]);
      if ((keys + 1) * 32 > valid) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = keys * 32 + i * 8 + (lane & 3) * 2;
          x[i] &= key + 1 < valid ? 0xffffffffu : key < valid ? 0xffffu : 0u;
        }
      }
      const int to = chunk * 16 + (matrix & 1) * 8 + row, piece = keys * 2 + (matrix >> 1);
      stmatrix_x4(shared.v(ring.stage) + (piece >> 3) * C::D_VO * 128 + to * 128 + (((piece & 7) ^ row) << 4),
                  __byte_perm(x[0], x[1], 0x6420), __byte_perm(x[0], x[1], 0x7531), __byte_perm(x[2], x[3], 0x6420),
                  __byte_perm(x[2], x[3], 0x7531));
    }
    fence_async_proxy();
    mbarrier_arrive(shared.v_full(ring.stage));
    // The next copy into this place waits for all readers.
    named_barrier_sync<128>(kLoaderBarrier);
  }

  __device__ __forceinline__ void run(HopperItem* items, int* places) {
    unsigned* counters = static_cast<unsigned*>(batch.counters);
    const int num_items = hopper_num_items<C>(batch);
    RingPosition<C::STAGES> ring;
    HopperItem item = hopper_item<C>(batch, num_items, blockIdx.x, kv_start);
    for (int q_parity = 1;; q_parity ^= 1) {
      unsigned taken = 0;
      if (thread == 0) taken = atomicAdd(counters, 1u);
      head = item.head;
      kv_len = item.kv_len;
      if (thread == 0 && (item.request < 0 || item.first == item.end)) hand_over(item, items, q_parity);
      if (item.request < 0) break;
      RingPosition<C::STAGES> before = ring;
      for (int tile = item.end - 1; tile >= item.first; --tile) {
        if (thread == 0) {
          mbarrier_wait(shared.k_empty(ring.stage), ring.parity ^ 1);
          load<C::D_QK>(&batch.k_map, shared.k(ring.stage), shared.k_full(ring.stage), tile);
          if (tile == item.end - 1) hand_over(item, items, q_parity);
          load<C::D_VO>(&batch.v_map, raw(ring.stage), raw_full(ring.stage), tile);
        }
        __syncwarp();
        // A tile behind: its copy passes while this one's is asked for.
        if (tile < item.end - 1) transpose(before, kv_len - (tile + 1) * C::KV_TILE);
        before = ring;
        ring.advance();
      }
      if (item.first < item.end) transpose(before, kv_len - item.first * C::KV_TILE);
      if (thread == 0) *places = static_cast<int>(taken) + gridDim.x;
      named_barrier_sync<128>(kLoaderBarrier);
      const int place = *places;
      named_barrier_sync<128>(kLoaderBarrier);
      item = hopper_item<C>(batch, num_items, place, kv_start);
    }
    // As in hopper.cuh: the last block leaves both counters at zero.
    __threadfence();
    if (thread == 0 && atomicAdd(counters + 1, 1u) == gridDim.x - 1) counters[0] = counters[1] = 0;
  }
};

/** A warpgroup that computes. */
template <class C, class Params>
struct HopperFp8Warpgroup : HopperWarpgroup<C, Params> {
  using Base = HopperWarpgroup<C, Params>;
  using Variant = typename C::Variant;
  using Base::kKeys, Base::shared, Base::wg, Base::warp, Base::lane, Base::params, Base::rows, Base::o, Base::s,
      Base::p;
  using Base::l, Base::wait_tile, Base::release, Base::finish_logits, Base::masks_tile, Base::rescale;
  using Product = Wgmma<fp8_e4m3_t, kKeys>;

  /**
   * Weights are 2^kShift at the maximum that they are held against, and up to 2^(kShift + kSlack) where that lags behind:
   * below e4m3's 448, and small ones keep their bits down to 2^-12 of the largest, their presence down to 2^-15.
   */
  static constexpr float kShift = 6.0f, kSlack = 2.5f;
  /** Of a row's head: what its products with keys are worth, and softmax's factor of logits, base 2. */
  float worth[2], scale[2];
  /** A row's greatest product, as of when weights last passed kSlack. */
  float m[2];

  __device__ __forceinline__ HopperFp8Warpgroup(const HopperShared<C>& places, int index) : Base(places, index) {}

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
    const uint64_t v = wgmma_descriptor(shared.v(stage), 16);
    wgmma_pin(o);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kKeys / 32; ++i) {
      const uint32_t a[4] = {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]};
      Wgmma<fp8_e4m3_t, C::D_VO>::registers_a(o, a, v + ((i / 4 * C::D_VO * 128 + i % 4 * 32) >> 4));
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void finish(int tile, int first_row, int last_row) {
    if constexpr (Variant::kTransformsLogits) {
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) s[i] *= worth[(i >> 1) & 1];
    }
    const bool masks = masks_tile(tile, first_row, last_row);
    if (Variant::kTransformsLogits || masks) finish_logits(tile, masks);
  }

  /** As in hopper.cuh, with less slack and weights that use e4m3's range. */
  __device__ __forceinline__ bool weigh(float (&factor)[2]) {
    // One warp a scheduler is at softmax while the other warpgroup's products run: chains of dependent operations are short.
    float top[2][2];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      top[i & 1][i >> 1] = max_nan(s[2 * (i & 1) + 4 * (i >> 1)], s[2 * (i & 1) + 4 * (i >> 1) + 1]);
#pragma unroll
    for (int j = 2; j < kKeys / 8; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float& most = top[r][j & 1];
        most = max_nan(most, max_nan(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
      }
    }
    bool moves = false;
    float highest[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = max_nan(top[r][0], top[r][1]);
      most = max_nan(most, __shfl_xor_sync(0xffffffffu, most, 1));
      highest[r] = max_nan(most, __shfl_xor_sync(0xffffffffu, most, 2));
      moves = moves || !((highest[r] - m[r]) * scale[r] <= kSlack || highest[r] == negative_infinity());
    }
    moves = __any_sync(0xffffffffu, moves);
    if (moves) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float next = max_nan(m[r], highest[r]);
        factor[r] = next == negative_infinity() ? 1.0f : exp2_approx((m[r] - next) * scale[r]);
        m[r] = next;
        l[r] *= factor[r];
      }
    }
    float held[2], sum[2][2] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) held[r] = (m[r] == negative_infinity() ? 0.0f : m[r] * scale[r]) - kShift;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float& w = s[4 * j + e];
        w = exp2_approx(fmaf(w, scale[e >> 1], -held[e >> 1]));
        sum[e >> 1][e & 1] += w;
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) l[r] += sum[r][0] + sum[r][1];
    return moves;
  }

  __device__ __forceinline__ void pack_weights() {
#pragma unroll
    for (int i = 0; i < kKeys / 8; ++i) {
      const float* w = s + i / 2 * 8 + i % 2 * 2;
      p[i] = pack4_e4m3(w[0], w[1], w[4], w[5]);
    }
  }

  /** All tiles of an item; the order of hopper.cuh. */
  __device__ __forceinline__ void attend(const HopperItem& item, int first_row, int last_row,
                                         RingPosition<C::STAGES>& ring) {
    float factor[2];
    wait_tile(shared.k_full(ring.stage), ring.parity);
    begin_scores(ring.stage);
    wgmma_wait<0>();
    wgmma_pin(s);
    release(shared.k_empty(ring.stage));
    if (item.first + 1 == item.end) release(shared.q_empty(wg));
    finish(item.end - 1, first_row, last_row);
    weigh(factor);
    pack_weights();
    for (int tile = item.end - 2; tile >= item.first; --tile) {
      RingPosition<C::STAGES> next = ring;
      next.advance();
      wait_tile(shared.k_full(next.stage), next.parity);
      named_barrier_sync<256>(turn_barrier(wg));
      begin_scores(next.stage);
      wait_tile(shared.v_full(ring.stage), ring.parity);
      begin_output(ring.stage);
      named_barrier_arrive<256>(turn_barrier(wg ^ 1));
      wgmma_wait<1>();
      wgmma_pin(s);
      release(shared.k_empty(next.stage));
      if (tile == item.first) release(shared.q_empty(wg));
      finish(tile, first_row, last_row);
      const bool moved = weigh(factor);
      wgmma_wait<0>();
      wgmma_pin(o);
      release(shared.v_empty(ring.stage));
      pack_weights();
      if (moved) rescale(factor);
      ring = next;
    }
    wait_tile(shared.v_full(ring.stage), ring.parity);
    begin_output(ring.stage);
    wgmma_wait<0>();
    wgmma_pin(o);
    release(shared.v_empty(ring.stage));
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
      float lse = row_lse(m[r], l[r] * exp2f(-kShift), scale[r]);
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
        release(shared.q_empty(wg));
      }
      store(num_rows, params.v_scale * head_scale(batch.v_scales, item.head));
    }
  }
};

/** Grid: blocks that stay; at most as many as multiprocessors. */
template <class C, class Params>
__device__ __forceinline__ void hopper_fp8_prefill(const Params& batch) {
  extern __shared__ __align__(128) char smem[];
  require_shared_bytes(C::kSharedBytes);
  const uint32_t unaligned = shared_address(smem);
  const HopperShared<C> shared{(unaligned + 1023) / 1024 * 1024};
  HopperItem* items = reinterpret_cast<HopperItem*>(smem + (shared.base - unaligned) + C::kItems);
  HopperFp8Loader<C, Params> loader(batch, shared);
  if (threadIdx.x == 0) {
    tma_prefetch_map(&batch.q_map);
    tma_prefetch_map(&batch.k_map);
    tma_prefetch_map(&batch.v_map);
    for (int i = 0; i < C::STAGES; ++i) {
      mbarrier_init(shared.k_full(i), 1);
      mbarrier_init(loader.raw_full(i), 1);
      mbarrier_init(shared.v_full(i), 128);
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
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(C::kLoaderRegisters));
    loader.run(items, reinterpret_cast<int*>(items + C::kWarpgroups));
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(C::kRegisters));
    HopperFp8Warpgroup<C, Params>(shared, warpgroup - 1).run(batch, items);
  }
}

}  // namespace flashinfer
