// SPDX-License-Identifier: Apache-2.0
// The blocks of a cluster that work on one row together, and what they tell each other. A barrier of the cluster costs
// half a microsecond and a read from a peer's memory nearly as much, so what all need is pushed into every block ahead of
// the barrier.
#pragma once
#include <flashinfer/cluster.cuh>
#include <flashinfer/sampling/weights.cuh>

namespace flashinfer {

constexpr int kMaxClusterBlocks = 8;

/** Start of every block's dynamic shared memory; the row may follow. */
template <int kThreads>
struct alignas(16) RowShared {
  uint32_t tops[kThreads / 8];
  uint64_t blocks[2][kMaxClusterBlocks];
  uint64_t warps[2][kThreads / 32];
};

/** Where a warp's share lies in the sum over all warps of a row. */
struct WarpShare {
  uint64_t own, before, total;
};

/** The largest key of a row, and a key that as many elements as asked for are not below; 0 where it is not known. */
struct RowPeak {
  uint32_t max, bound;
};

/**
 * All threads of the cluster call every function but the constructor at the same points. Buffers are used in turns:
 * who writes one again has passed the barrier behind its last readers.
 */
template <int kThreads_, class Shared_ = RowShared<kThreads_>>
class RowGroup {
 public:
  using Shared = Shared_;
  static constexpr int kThreads = kThreads_;
  static constexpr int kWarps = kThreads / 32;
  static_assert(kThreads % 256 == 0 && kThreads <= 1024, "as many tops as lanes, and as many warps, or fewer");

  __device__ RowGroup() : RowGroup(0) { cluster_arrive(); }

  __device__ int size() const { return size_; }
  /** Clusters are powers of two. */
  __device__ int size_bits() const { return 31 - __clz(size_); }
  __device__ int lane() const { return threadIdx.x % 32; }
  __device__ int warp_in_block() const { return threadIdx.x / 32; }
  /** Among the warps of the cluster; segments of the row are in this order. */
  __device__ int warp() const { return rank_ * kWarps + warp_in_block(); }
  __device__ bool is_first_thread() const { return rank_ == 0 && threadIdx.x == 0; }
  /** Behind the shared variables. */
  __device__ float* buffer() const { return reinterpret_cast<float*>(shared_ + 1); }

  /** Behind the loads of the row: all blocks are there, and their buffers are empty. */
  __device__ void ready() { cluster_wait(); }

  /** Before the block ends: others may still read its memory. */
  __device__ void finish() {
    if (size_ > 1 && peers_read_) sync();
  }

  /**
   * `key` is the thread's largest. With `count` from 1 up a bound of as many of the row's elements, where they are so few
   * that the list holds what is not below it.
   */
  __device__ RowPeak peak(uint32_t key, int count) {
#pragma unroll
    for (int offset = 1; offset < kTopLanes; offset *= 2) key = max_of(key, __shfl_xor_sync(0xffffffffu, key, offset));
    if (lane() % kTopLanes == 0) shared_->tops[threadIdx.x / kTopLanes] = key;
    __syncthreads();
    uint32_t tops[kTops / 32], max = 0;
#pragma unroll
    for (int i = 0; i < kTops / 32; ++i) {
      tops[i] = shared_->tops[32 * i + lane()];
      max = max_of(max, tops[i]);
    }
    // Every block has its share of `count` elements that are not below the smallest of the blocks' bounds.
    const int share = (count + size_ - 1) >> size_bits();
    const bool bounded = count > 0 && share <= kTops * 3 / 4;
    // The first warp alone, which exchange() asks: all of them would wait for one another.
    const uint32_t bound = bounded && warp_in_block() == 0 ? bound_of(tops, share) : 0;
    const uint64_t* blocks = exchange((static_cast<uint64_t>(warp_max(max)) << 32) | bound);
    RowPeak peak = {0, 0xffffffffu};
    for (int i = 0; i < size_; ++i) {
      const uint32_t low = static_cast<uint32_t>(blocks[i]);
      peak.max = max_of(peak.max, static_cast<uint32_t>(blocks[i] >> 32));
      peak.bound = low < peak.bound ? low : peak.bound;
    }
    return peak;
  }

  /** Sums, exact and thus independent of the number of blocks; `value` is one thread's. */
  __device__ WarpShare share(uint64_t value) {
    value = warp_sum(value);
    const uint64_t other = warp_at_lane(meet_warps(value));
    const uint64_t* blocks = exchange(warp_sum(other));
    uint64_t before = warp_sum(lane() < warp_in_block() ? other : 0), total = 0;
    for (int i = 0; i < size_; ++i) {
      if (i < rank_) before += blocks[i];
      total += blocks[i];
    }
    return {value, before, total};
  }

  /** Sum over the threads of the block. */
  __device__ uint64_t block_sum(uint64_t value) { return warp_sum(warp_at_lane(meet_warps(warp_sum(value)))); }

  /** Sum over the lanes of a warp, in all of them. */
  static __device__ uint64_t warp_sum(uint64_t value) {
#if __CUDA_ARCH__ >= 800
    // By 22 bits, of which 32 lanes fit a word.
    const uint32_t low = __reduce_add_sync(0xffffffffu, static_cast<uint32_t>(value) & 0x3fffffu);
    const uint32_t middle = __reduce_add_sync(0xffffffffu, static_cast<uint32_t>(value >> 22) & 0x3fffffu);
    const uint32_t high = __reduce_add_sync(0xffffffffu, static_cast<uint32_t>(value >> 44));
    return (static_cast<uint64_t>(high) << 44) + (static_cast<uint64_t>(middle) << 22) + low;
#else
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      value += __shfl_xor_sync(0xffffffffu, static_cast<unsigned long long>(value), offset);
    }
    return value;
#endif
  }

 protected:
  /** Before cluster_arrive(). */
  explicit __device__ RowGroup(int)
      : shared_(dynamic_shared_memory<Shared>()), size_(cluster_size()), rank_(cluster_rank()) {}

  static __device__ uint32_t max_of(uint32_t a, uint32_t b) { return a > b ? a : b; }

  static __device__ uint32_t warp_max(uint32_t value) {
#if __CUDA_ARCH__ >= 800
    return __reduce_max_sync(0xffffffffu, value);
#else
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      value = max_of(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    return value;
#endif
  }

  /** As warp_sum(), of sums that fit a word. */
  static __device__ uint32_t warp_add(uint32_t value) {
#if __CUDA_ARCH__ >= 800
    return __reduce_add_sync(0xffffffffu, value);
#else
    return static_cast<uint32_t>(warp_sum(value));
#endif
  }

  __device__ uint32_t inclusive_sum(uint32_t value) const {
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const uint32_t left = __shfl_up_sync(0xffffffffu, value, offset);
      if (lane() >= offset) value += left;
    }
    return value;
  }

  /** Every warp's value, one in all its lanes, behind a barrier of the block. */
  __device__ const uint64_t* meet_warps(uint64_t value) {
    uint64_t* warps = shared_->warps[warp_turn_];
    warp_turn_ ^= 1;
    if (lane() == 0) warps[warp_in_block()] = value;
    __syncthreads();
    return warps;
  }

  /** One warp's value a lane; 0 in the lanes that are left. */
  __device__ uint64_t warp_at_lane(const uint64_t* warps) const { return lane() < kWarps ? warps[lane()] : 0; }

  __device__ void sync() {
    peers_read_ = false;
    if (size_ == 1) {
      __syncthreads();
    } else {
      cluster_arrive();
      cluster_wait();
    }
  }

  Shared* shared_;
  int size_;
  int rank_;
  /** Since the last barrier of the cluster. */
  bool peers_read_ = false;

 private:
  /** Lanes that have one largest value together, and the number of these values. */
  static constexpr int kTopLanes = 8;
  static constexpr int kTops = kThreads / kTopLanes;

  /** The leading bits of the largest key that `count` of a warp's values are not below. */
  static __device__ uint32_t bound_of(const uint32_t (&values)[kTops / 32], int count) {
    uint32_t bound = 0;
    for (int bit = 31; bit >= 12; --bit) {
      const uint32_t next = bound | (1u << bit);
      uint32_t reached = 0;
#pragma unroll
      for (int i = 0; i < kTops / 32; ++i) reached += values[i] >= next ? 1 : 0;
      if (warp_add(reached) >= static_cast<uint32_t>(count)) bound = next;
    }
    return bound;
  }

  /** Every block's value, by rank; pushed into each block, then one barrier. */
  __device__ const uint64_t* exchange(uint64_t value) {
    uint64_t* blocks = shared_->blocks[block_turn_];
    block_turn_ ^= 1;
    if (threadIdx.x < size_) cluster_peer(blocks, threadIdx.x)[rank_] = value;
    sync();
    return blocks;
  }

  int warp_turn_ = 0;
  int block_turn_ = 0;
};

}  // namespace flashinfer
