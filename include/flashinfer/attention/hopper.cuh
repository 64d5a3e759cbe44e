// SPDX-License-Identifier: Apache-2.0
// Prefill attention for sm_90a: the fa3 template (arXiv:2407.08608). Copies by the copy engine, products by warpgroups.
//
// A block stays on its multiprocessor and takes work items until none is left. Its first warpgroup only loads: keys and
// values of an item, from the last tile back, into rings of STAGES buffers. Each other warpgroup owns 64 packed query rows
// against all tiles of the item. It asks for the scores of the next tile before the second product of this one, so that
// softmax runs under both; and the warpgroups take turns at the tensor cores, so that one's softmax runs under the other's
// products. Item, queries and rings are handed over by mbarriers alone: warpgroups need not be at the same item.
#pragma once
#include <flashinfer/attention/hopper_loader.cuh>
#include <flashinfer/attention/hopper_warpgroup.cuh>

namespace flashinfer {

/**
 * A block of the template: its first warpgroup is Loader's, the others are Warpgroup's. Grid: blocks that stay; at most as
 * many as multiprocessors.
 */
template <class C, class Loader, class Warpgroup, class Params>
__device__ __forceinline__ void hopper_block(const Params& batch) {
  extern __shared__ __align__(128) char smem[];
  require_shared_bytes(C::kSharedBytes);
  const uint32_t unaligned = shared_address(smem);
  // By way of a shuffle, or it is computed again for every tile.
  const HopperShared<C> shared{__shfl_sync(0xffffffffu, (unaligned + 1023) / 1024 * 1024, 0)};
  HopperItem* items = reinterpret_cast<HopperItem*>(smem + (shared.base - unaligned) + C::kItems);
  if (threadIdx.x == 0) {
    tma_prefetch_map(&batch.q_map);
    if constexpr (C::kStagesOutput) tma_prefetch_map(&batch.o_map);
    if constexpr (!C::kGathers) {
      tma_prefetch_map(&batch.k_map);
      tma_prefetch_map(&batch.v_map);
    }
    init_barriers(shared);
  }
  __syncthreads();
  // By way of a shuffle the compiler knows it as the same in a warp, and keeps it.
  const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(C::kLoaderRegisters));
    Loader(batch, shared).run(items, reinterpret_cast<int*>(items + C::kSlots));
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(C::kRegisters));
    Warpgroup(shared, warpgroup - 1).run(batch, items);
  }
}

template <class C, class Params>
__device__ __forceinline__ void hopper_prefill(const Params& batch) {
  hopper_block<C, HopperLoader<C, Params>, HopperWarpgroup<C, Params>>(batch);
}

}  // namespace flashinfer
