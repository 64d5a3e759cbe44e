// SPDX-License-Identifier: Apache-2.0
// The blocks of a cluster that work on one row together, and what they tell each other. A barrier of the cluster costs a
// microsecond, for it waits until memory has all that was written before. So after the first one blocks only push what all
// need into every block, whose mbarriers count the bytes; nobody reads a peer's memory.
#pragma once
#include <flashinfer/cluster.cuh>
#include <flashinfer/mbarrier.cuh>
#include <flashinfer/sampling/weights.cuh>

namespace flashinfer {

constexpr int kMaxClusterBlocks = 8;

/** What arrives from the blocks of a cluster, each kind behind a barrier of its own. */
enum Mail : int { kEvenExchange, kOddExchange, kWords, kGroupSums, kBinsOfGroup, kList, kMailKinds };

/** Start of every block's dynamic shared memory; the row may follow. */
template <int kThreads>
struct alignas(128) RowShared {
  uint64_t mail[kMailKinds];
  uint32_t tops[kThreads / 8];
  uint64_t blocks[2][kMaxClusterBlocks];
  uint64_t warps[2][kThreads / 32];
  uint64_t words[2];
  float sums[kThreads / 32];
  float kept;
};

/** Where a warp's share lies in the sum over all warps of a row. */
struct WarpShare {
  uint64_t own, before, total;
};

/** The largest key of a row, and a key that as many elements as asked for are not below, 0 where it is not known. */
struct RowPeak {
  uint32_t max, bound;
  /** Of the values, about; 0 where it was not asked for. */
  float sum;
};

/**
 * All threads of the cluster call every function but the constructor at the same points. Buffers are used in turns: who
 * pushes into one again has had an answer that its last readers gave behind a barrier of their block.
 */
template <int kThreads_, class Shared_ = RowShared<kThreads_>>
class RowGroup {
 public:
  using Shared = Shared_;
  static constexpr int kThreads = kThreads_;
  static constexpr int kWarps = kThreads / 32;
  static_assert(kThreads % 256 == 0 && kThreads <= 1024, "as many tops as lanes, and as many warps, or fewer");

  __device__ RowGroup() : shared_(dynamic_shared_memory<Shared>()), size_(cluster_size()), rank_(cluster_rank()) {}

  __device__ int size() const { return size_; }
  __device__ int lane() const { return threadIdx.x % 32; }
  __device__ int warp_in_block() const { return threadIdx.x / 32; }
  /** Among the warps of the cluster; segments of the row are in this order. */
  __device__ int warp() const { return rank_ * kWarps + warp_in_block(); }
  __device__ bool is_first_thread() const { return rank_ == 0 && threadIdx.x == 0; }
  /** Behind the shared variables. */
  __device__ float* buffer() const { return reinterpret_cast<float*>(shared_ + 1); }

  /** Rows are dealt to clusters in turns. */
  __device__ int first_row() const { return static_cast<int>(blockIdx.x) / size_; }
  __device__ int row_step() const { return static_cast<int>(gridDim.x) / size_; }

  /**
   * The first `clusters` begin one after the other, `cycles` apart: in step they would all read and write at one time and all
   * leave memory idle at another.
   */
  __device__ void stagger(int cycles, int clusters) const {
    if (first_row() >= clusters) return;
    const auto begin = static_cast<uint32_t>(clock()), wait = static_cast<uint32_t>(first_row() * cycles);
    while (static_cast<uint32_t>(clock()) - begin < wait) __nanosleep(100);
  }

  /** Ahead of the first ready(), while the row loads. */
  __device__ void open() {
    if (turned(kOpen) != 0) return;
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x == 0) {
#pragma unroll
      for (int i = 0; i < kMailKinds; ++i) mbarrier_init(barrier(i), 1);
      mbarrier_init_fence();
    }
    cluster_arrive_relaxed();
#endif
  }

  /** All blocks are there: they may push. */
  __device__ void ready() {
    if (turned(kOpen) != 0) return;
    cluster_wait();
    turn(kOpen);
  }

  /**
   * `key` is the thread's largest. With `count` from 1 up a bound of as many of the row's elements, where they are so few
   * that the list holds what is not below it; with 0, where it sums, the sum of `value`, one a thread, not negative.
   */
  template <bool kSums = false>
  __device__ RowPeak peak(uint32_t key, int count, float value = 0.0f) {
    if (kSums && count == 0) {
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
      if (lane() == 0) shared_->sums[warp_in_block()] = value;
    }
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
    const int share = (count + size_ - 1) / size_;
    const bool bounded = count > 0 && share <= kTops * 3 / 4;
    // The first warp alone, which exchange() asks: all of them would wait for one another.
    uint32_t low = bounded && warp_in_block() == 0 ? bound_of(tops, share) : 0;
    if (kSums && count == 0 && warp_in_block() == 0) {
      float sum = lane() < kWarps ? shared_->sums[lane()] : 0.0f;
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      low = __float_as_uint(sum);
    }
    const uint64_t* blocks = exchange((static_cast<uint64_t>(warp_max(max)) << 32) | low);
    RowPeak peak = {0, count == 0 ? 0 : 0xffffffffu, 0.0f};
#pragma unroll 1
    for (int i = 0; i < size_; ++i) {
      const uint32_t theirs = static_cast<uint32_t>(blocks[i]);
      peak.max = max_of(peak.max, static_cast<uint32_t>(blocks[i] >> 32));
      if (count > 0) peak.bound = theirs < peak.bound ? theirs : peak.bound;
      else if (kSums) peak.sum += __uint_as_float(theirs);
    }
    return peak;
  }

  /** Sums, exact and thus independent of the number of blocks; `value` is one thread's. */
  __device__ WarpShare share(uint64_t value) {
    value = warp_sum(value);
    const uint64_t other = warp_at_lane(meet_warps(value));
    const uint64_t* blocks = exchange(warp_sum(other));
    uint64_t before = warp_sum(lane() < warp_in_block() ? other : 0), total = 0;
#pragma unroll 1
    for (int i = 0; i < size_; ++i) {
      if (i < rank_) before += blocks[i];
      total += blocks[i];
    }
    return {value, before, total};
  }

  /**
   * One warp of the cluster, `value` in all its lanes, tells all threads word 0 or 1. They have both behind hear(); an
   * exchange lies between their last use and the next words.
   */
  __device__ void tell(int which, uint64_t value) {
    if (size_ > 1) {
      if (lane() < size_) push(kWords, shared_->words + which, value, lane());
    } else if (lane() == 0) {
      shared_->words[which] = value;
    }
  }

  __device__ void hear() {
    if (size_ > 1) {
      if (threadIdx.x == 0) expect(kWords, 2 * 8);
      await(kWords);
    } else {
      __syncthreads();
    }
  }
  __device__ uint64_t word(int which) const { return shared_->words[which]; }

  /** A value of all threads where registers are short; a barrier of the block lies between the two. */
  __device__ void keep(float value) {
    if (threadIdx.x == 0) shared_->kept = value;
  }
  __device__ float kept() const { return shared_->kept; }

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
  enum Turn : int { kOpen = kMailKinds, kExchangeTurn, kWarpsTurn, kHistogramUsed };
  __device__ int turned(int turn) const { return static_cast<int>(turns_ >> turn & 1); }
  __device__ void turn(int turn) { turns_ ^= 1u << turn; }

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

  /** Every block's value, the first warp's, by rank. Between two of them lies a barrier of the block. */
  __device__ const uint64_t* exchange(uint64_t value) {
    const int odd = turned(kExchangeTurn);
    uint64_t* blocks = shared_->blocks[odd];
    if (size_ == 1) {
      if (threadIdx.x == 0) blocks[0] = value;
      __syncthreads();
    } else {
      const int mail = kEvenExchange + odd;
      if (threadIdx.x == 0) expect(mail, 8 * size_);
      if (threadIdx.x < size_) push(mail, blocks + rank_, value, threadIdx.x);
      await(mail);
    }
    turn(kExchangeTurn);
    return blocks;
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
    uint64_t* warps = shared_->warps[turned(kWarpsTurn)];
    turn(kWarpsTurn);
    if (lane() == 0) warps[warp_in_block()] = value;
    __syncthreads();
    return warps;
  }

  /** One warp's value a lane; 0 in the lanes that are left. */
  __device__ uint64_t warp_at_lane(const uint64_t* warps) const { return lane() < kWarps ? warps[lane()] : 0; }

  /** One thread says how much will arrive in all. */
  __device__ void expect(int mail, int bytes) {
#if __CUDA_ARCH__ >= 900
    mbarrier_arrive_expect(barrier(mail), static_cast<uint32_t>(bytes));
#endif
  }

  /** `to`, a variable of this block, is meant in block `rank`. */
  template <class V>
  __device__ void push(int mail, V* to, V value, int rank) {
    cluster_store(cluster_peer(shared_address(to), rank), value, cluster_peer(barrier(mail), rank));
  }

  /** Threads that do not call it know by a barrier of the block what has arrived. */
  __device__ void await(int mail) {
#if __CUDA_ARCH__ >= 900
    mbarrier_wait(barrier(mail), turned(mail));
#endif
    turn(mail);
  }

  Shared* shared_;
  int size_;
  int rank_;

 private:
  /** Lanes that have one largest value together, and the number of these values. */
  static constexpr int kTopLanes = 8;
  static constexpr int kTops = kThreads / kTopLanes;

  /** The leading bits of the largest key that `count` of a warp's values are not below. */
  static __device__ uint32_t bound_of(const uint32_t (&values)[kTops / 32], int count) {
    uint32_t bound = 0;
#pragma unroll 1
    for (int bit = 31; bit >= 12; --bit) {
      const uint32_t next = bound | (1u << bit);
      uint32_t reached = 0;
#pragma unroll
      for (int i = 0; i < kTops / 32; ++i) reached += values[i] >= next ? 1 : 0;
      if (warp_add(reached) >= static_cast<uint32_t>(count)) bound = next;
    }
    return bound;
  }

  __device__ uint32_t barrier(int mail) const { return shared_address(shared_->mail + mail); }

  /** The parities of the mail's barriers, and other turns. */
  uint32_t turns_ = 0;
};

}  // namespace flashinfer
