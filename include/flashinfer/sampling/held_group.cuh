// SPDX-License-Identifier: Apache-2.0
// Rows in the registers of one cluster each (sm_90 and up).
//
// Latency. A row of 128256 float32 takes 0.3 us to move at full bandwidth, and less than two reads of memory: what counts is
// the chain of one block, from its loads over the two values that all blocks tell each other, maximum and sum, to its
// stores. So 16 blocks share a row, every thread asks for its elements at once, and the code has neither loops nor options.
#pragma once
#include <flashinfer/pdl.cuh>
#include <flashinfer/sampling/filter.cuh>

namespace flashinfer {

/** kAccesses: of four elements a thread; those of all threads but the last ones fill the row. */
template <class T_, int kThreads_, int kCluster_, int kAccesses_>
struct HeldRowConfig {
  using T = T_;
  static constexpr int kThreads = kThreads_;
  static constexpr int kCluster = kCluster_;
  static constexpr int kAccesses = kAccesses_;
};

/**
 * The blocks of a cluster, each of which tells all of them two values: as RowGroup, for one row and with a number of blocks
 * that the compiler knows.
 */
template <int kThreads, int kCluster>
class HeldGroup {
 public:
  /** Ahead of max(), while the row loads. */
  __device__ __forceinline__ void open() {
    if constexpr (kCluster == 1) return;
    if (threadIdx.x == 0) {
      mbarrier_init(mail(kTops), 1);
      mbarrier_init(mail(kSums), 1);
      mbarrier_init_fence();
      mbarrier_arrive_expect(mail(kTops), sizeof shared_->tops);
      mbarrier_arrive_expect(mail(kSums), sizeof shared_->sums);
    }
    cluster_arrive_relaxed();
  }

  /** Over all threads. */
  __device__ __forceinline__ uint32_t max(uint32_t key) {
    key = __reduce_max_sync(0xffffffffu, key);
    if (lane() == 0) shared_->warp_tops[warp()] = key;
    if constexpr (kCluster > 1) cluster_wait();  // all blocks are there: they may push
    __syncthreads();
    key = __reduce_max_sync(0xffffffffu, shared_->warp_tops[lane() % kWarps]);
    if constexpr (kCluster == 1) return key;
    exchange(kTops, shared_->tops, key);
    return __reduce_max_sync(0xffffffffu, shared_->tops[lane() % kCluster]);
  }

  __device__ __forceinline__ uint64_t sum(uint64_t value) {
    value = warp_sum(value);
    if (lane() == 0) shared_->warp_sums[warp()] = value;
    __syncthreads();
    value = warp_sum(lane() < kWarps ? shared_->warp_sums[lane()] : 0);
    if constexpr (kCluster == 1) return value;
    exchange(kSums, shared_->sums, value);
    return warp_sum(lane() < kCluster ? shared_->sums[lane()] : 0);
  }

  /** As sum(), with what lies before the thread's warp, and each warp's own. */
  __device__ __forceinline__ WarpShare share(uint64_t value) {
    const uint64_t own = warp_sum(value);
    if (lane() == 0) shared_->warp_sums[warp()] = own;
    __syncthreads();
    const uint64_t warps = lane() < kWarps ? shared_->warp_sums[lane()] : 0;
    uint64_t before = warp_sum(lane() < warp() ? warps : 0), total = warp_sum(warps);
    if constexpr (kCluster > 1) {
      exchange(kSums, shared_->sums, total);
      const uint64_t blocks = lane() < kCluster ? shared_->sums[lane()] : 0;
      before += warp_sum(lane() < cluster_rank() ? blocks : 0);
      total = warp_sum(blocks);
    }
    return {own, before, total};
  }

  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int warp() { return threadIdx.x / 32; }
  static __device__ uint64_t warp_sum(uint64_t value) { return RowGroup<kThreads>::warp_sum(value); }
  static __device__ bool is_first_thread() { return cluster_rank() == 0 && threadIdx.x == 0; }

 private:
  static constexpr int kWarps = kThreads / 32;
  enum Mail : int { kTops, kSums, kMailKinds };
  struct alignas(16) Shared {
    uint64_t mail[kMailKinds];
    uint64_t warp_sums[kWarps];
    uint64_t sums[kCluster];
    uint32_t warp_tops[kWarps];
    uint32_t tops[kCluster];
  };

  __device__ uint32_t mail(int kind) const { return shared_address(shared_->mail + kind); }

  /** Tells all blocks a value, which one warp has at least, and waits for theirs. */
  template <class V>
  __device__ __forceinline__ void exchange(Mail kind, V* values, V value) {
    if (threadIdx.x < kCluster) {
      const int peer = threadIdx.x;
      cluster_store(cluster_peer(shared_address(values + cluster_rank()), peer), value, cluster_peer(mail(kind), peer));
    }
    mbarrier_wait(mail(kind), 0);
  }

  static __device__ Shared* shared() {
    __shared__ Shared shared;
    return &shared;
  }
  Shared* const shared_ = shared();
};

}  // namespace flashinfer
