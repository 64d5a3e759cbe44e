// SPDX-License-Identifier: Apache-2.0
// The fa3 template's types and sizes: shared memory, rings and barriers of a block.
#pragma once
#include <flashinfer/named_barrier.cuh>
#include <flashinfer/tma.cuh>

namespace flashinfer {

/** How keys and values come into shared memory. */
enum class HopperKv {
  /** Rows at equal distances: a box is a whole tile. */
  kRows,
  /** Pages of which tiles are whole numbers, or the other way round: a box is a page, or a tile's part of one. */
  kPages,
  /** Pages of any size: threads of the loading warpgroup copy rows one by one. */
  kGather,
  /** Pages of one row, likewise. */
  kTokens,
};

/** Bytes of dynamic shared memory that a block may have. */
constexpr int kHopperShared = 227 * 1024;

/** With so many bytes of tiles. The memory is aligned to 128 bytes only; the first tile moves up to the next 1024. */
constexpr int hopper_shared_bytes(int tiles, int stages, int slots) {
  return (tiles + (4 * stages + 2 * slots) * 8 + slots * 32 + 16 + 1023) / 1024 * 1024 + 1024;
}

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
  static constexpr bool kGathers = KV == HopperKv::kGather || KV == HopperKv::kTokens;
  /** kPages: warps that ask for the boxes of K, and as many for V. A warp asks for one box after the other, 60 cycles each. */
  static constexpr int kBoxWarps = 2;
  /** Arrivals, besides bytes, that complete a tile. */
  static constexpr int kFullArrivals = kGathers ? 128 : KV == HopperKv::kPages ? kBoxWarps : 1;
  /**
   * The next item's first pages are found before this one's last values are asked for: boxes take their warps little time,
   * while threads that gather would be late. Three computing warpgroups leave it no registers; other headDims were not measured.
   */
  static constexpr bool kLooksAhead = KV == HopperKv::kPages && kWarpgroups == 2 && D_VO == 128;
  /**
   * Of a loading thread, whose chains short items wait for, and of a computing one: neither spills, but where values of 256
   * or a third warpgroup take too many.
   */
  static constexpr int kLoaderRegisters = kWarpgroups == 3 ? 32
                                          : D_VO == 256    ? (kGathers ? 40 : 24)
                                          : kGathers       ? 72
                                                           : (kLooksAhead ? 56 : 40);
  static constexpr int kRegisters = kWarpgroups == 3 ? 160 : 252 - kLoaderRegisters / 2;
  /** A launch of 384 threads has 168 each, one of 512 has 128. */
  static_assert(kLoaderRegisters + kWarpgroups * kRegisters <= (kWarpgroups == 3 ? 512 : 504),
                "setmaxnreg would wait for ever");

  /** Tiles are columns of so many elements: rows of 128 bytes, as the swizzle wants them. */
  static constexpr int kColumn = 64;
  static constexpr int kQBytes = 64 * D_QK * 2, kKBytes = KV_TILE * D_QK * 2, kVBytes = KV_TILE * D_VO * 2;
  static constexpr int kRings = STAGES * (kKBytes + kVBytes);
  /** An item's queries are loaded during the item before, not only after its last scores, where there is room for both. */
  static constexpr int kItemBuffers =
      hopper_shared_bytes(2 * kWarpgroups * kQBytes + kRings, STAGES, 2 * kWarpgroups) <= kHopperShared ? 2 : 1;
  /** A slot is a warpgroup's part of an item. */
  static constexpr int kSlots = kItemBuffers * kWarpgroups;
  /** Whole tiles of output leave by the copy engine, out of memory of their own, while the next item is at work. */
  static constexpr int kOBytes = 64 * D_VO * 2;
  static constexpr bool kStagesOutput =
      !Variant::kTransformsOutput &&
      hopper_shared_bytes(kSlots * kQBytes + kWarpgroups * kOBytes + kRings, STAGES, kSlots) <= kHopperShared;
  static constexpr int kO = kSlots * kQBytes, kK = kO + (kStagesOutput ? kWarpgroups * kOBytes : 0);
  static constexpr int kV = kK + STAGES * kKBytes, kBarriers = kV + STAGES * kVBytes;
  static constexpr int kItems = kBarriers + (4 * STAGES + 2 * kSlots) * 8;
  static constexpr int kSharedBytes = hopper_shared_bytes(kBarriers, STAGES, kSlots);
  static_assert(kKBytes % 1024 == 0 && kVBytes % 1024 == 0, "every tile must start at a swizzle's first row");
};

/** Addresses of the barriers. */
template <class C>
struct HopperShared {
  uint32_t base;
  __device__ __forceinline__ uint32_t q(int slot) const { return base + slot * C::kQBytes; }
  __device__ __forceinline__ uint32_t o(int wg) const { return base + C::kO + wg * C::kOBytes; }
  __device__ __forceinline__ uint32_t k(int stage) const { return base + C::kK + stage * C::kKBytes; }
  __device__ __forceinline__ uint32_t v(int stage) const { return base + C::kV + stage * C::kVBytes; }
  __device__ __forceinline__ uint32_t barrier(int i) const { return base + C::kBarriers + i * 8; }
  __device__ __forceinline__ uint32_t k_full(int stage) const { return barrier(stage); }
  __device__ __forceinline__ uint32_t k_empty(int stage) const { return barrier(C::STAGES + stage); }
  __device__ __forceinline__ uint32_t v_full(int stage) const { return barrier(2 * C::STAGES + stage); }
  __device__ __forceinline__ uint32_t v_empty(int stage) const { return barrier(3 * C::STAGES + stage); }
  __device__ __forceinline__ uint32_t q_full(int slot) const { return barrier(4 * C::STAGES + slot); }
  __device__ __forceinline__ uint32_t q_empty(int slot) const { return barrier(4 * C::STAGES + C::kSlots + slot); }
};

/** By one thread, before all others see them. */
template <class C>
__device__ __forceinline__ void init_barriers(const HopperShared<C>& shared) {
  for (int i = 0; i < C::STAGES; ++i) {
    mbarrier_init(shared.k_full(i), C::kFullArrivals);
    mbarrier_init(shared.v_full(i), C::kFullArrivals);
    mbarrier_init(shared.k_empty(i), C::kWarpgroups * 4);
    mbarrier_init(shared.v_empty(i), C::kWarpgroups * 4);
  }
  for (int slot = 0; slot < C::kSlots; ++slot) {
    mbarrier_init(shared.q_full(slot), 1);
    mbarrier_init(shared.q_empty(slot), 128);
  }
  mbarrier_init_fence();
}

/** A tile's buffer is read. One thread speaks for its warp, after all of it is done. */
__device__ __forceinline__ void release_tile(uint32_t empty, int lane) {
  __syncwarp();
  if (lane == 0) mbarrier_arrive(empty);
}

/** An item and its queries are read. Each thread speaks for itself: so racecheck follows, and it is once an item. */
__device__ __forceinline__ void release_item(uint32_t empty) { mbarrier_arrive(empty); }

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

/** A warpgroup's own barrier, and the one that says it is its turn at the tensor cores. */
__device__ __forceinline__ int own_barrier(int wg) { return 1 + wg; }
__device__ __forceinline__ int turn_barrier(int wg) { return 4 + wg; }
constexpr int kLoaderBarrier = 7;

}  // namespace flashinfer
