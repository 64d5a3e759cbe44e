// SPDX-License-Identifier: Apache-2.0
// The blocks of a cluster that work on one row together, and what they tell each other. A barrier of the cluster costs
// about a microsecond and a read from a peer's memory nearly as much, so what all need is pushed into every block ahead
// of the barrier, and only the last step of a histogram is read from the peers.
#pragma once
#include <flashinfer/cluster.cuh>
#include <flashinfer/cp_async.cuh>
#include <flashinfer/sampling/weights.cuh>

namespace flashinfer {

constexpr int kMaxClusterBlocks = 8;

/** An element of the row; key 0, which no candidate has, for none. */
struct alignas(8) Candidate {
  uint32_t key;
  uint32_t index;
};

/** Start of every block's dynamic shared memory; the row may follow. */
template <int kThreads>
struct alignas(16) RowShared {
  uint32_t histogram[2 * kThreads];
  /** The first and the last bin of it, a word a lane each. */
  uint32_t ends[64];
  Candidate list[kThreads];
  uint32_t tops[kThreads / 8];
  uint64_t blocks[2][kMaxClusterBlocks];
  uint64_t warps[2][kThreads / 32];
  uint32_t group_sums[kMaxClusterBlocks][kThreads / 32];
  uint32_t crossing_bin;
  uint32_t crossing_above;
  uint32_t settled;
  uint32_t listed;
  uint32_t overflow;
};

/** Where the sum over bins, from the first on, reaches a target. */
struct Crossing {
  bool found;
  uint32_t bin;
  /** Sum over the bins before `bin`. */
  uint32_t before;
};

/** Where a warp's share lies in the sum over all warps of a row. */
struct WarpShare {
  uint64_t own, before, total;
};

/** The largest key of a row, and a key that as many elements as asked for are not below; 0 where it is not known. */
struct RowPeak {
  uint32_t max, bound;
};

/** Candidates of a row, the same in all blocks: thread i holds one for i < count. */
struct Candidates {
  Candidate mine;
  int count;
};

/**
 * All threads of the cluster call every function but the constructor at the same points. Buffers are used in turns:
 * who writes one again has passed the barrier behind its last readers.
 */
template <int kThreads>
class RowGroup {
 public:
  using Shared = RowShared<kThreads>;
  static constexpr int kWarps = kThreads / 32;
  /** Of a histogram: two a thread. A warp's make a group. */
  static constexpr int kBinBits = kThreads == 1024 ? 11 : 10;
  static constexpr int kBins = 1 << kBinBits;
  static constexpr int kGroupBins = 64;
  /** Lanes that have one largest value together, and the number of these values. */
  static constexpr int kTopLanes = 8;
  static constexpr int kTops = kThreads / kTopLanes;
  static_assert(kThreads == kBins / 2, "1024 threads or 512");

  __device__ RowGroup() : shared_(dynamic_shared_memory<Shared>()), size_(cluster_size()), rank_(cluster_rank()) {
    clear_histogram();
    shared_->list[threadIdx.x] = {0, 0};
    if (threadIdx.x == 0) shared_->listed = shared_->overflow = 0;
    cluster_arrive();
  }

  __device__ int size() const { return size_; }
  /** Clusters are powers of two. */
  __device__ int size_bits() const { return 31 - __clz(size_); }
  __device__ int lane() const { return threadIdx.x % 32; }
  __device__ int warp_in_block() const { return threadIdx.x / 32; }
  /** Among the warps of the cluster; segments of the row are in this order. */
  __device__ int warp() const { return rank_ * kWarps + warp_in_block(); }
  __device__ bool is_first_block() const { return rank_ == 0; }
  __device__ bool is_first_thread() const { return rank_ == 0 && threadIdx.x == 0; }
  /** Behind RowShared. */
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

  /**
   * `fill(add)` calls add(bin, weight) for a thread's elements; what is behind the last bin is of it. The crossing of
   * `target`, at least 1, over the bins of the whole row, which every block finds by itself: groups of bins first, then
   * the bins of the crossing group.
   */
  template <class Fill>
  __device__ Crossing histogram(uint32_t target, const Fill& fill) {
    if (histogram_used_) {
      sync();  // behind the peers' reads
      clear_histogram();
      __syncthreads();
    }
    histogram_used_ = true;
    uint32_t* mine = shared_->histogram;
    // The lanes have words of their own for the first and the last bin: rows of equal values, and of one large one, would
    // queue up at one address. All without branches, which would cost more than what they spare.
    const uint32_t bins = shared_address(mine), first = shared_address(shared_->ends + lane()), last = first + 4 * 32;
    fill([&](uint32_t bin, uint32_t weight) {
      uint32_t address = bins + 4 * bin;
      address = bin == 0 ? first : address;
      address = bin >= kBins - 1 ? last : address;
      shared_add(address, weight);
    });
    __syncthreads();
    push_group_sum();
    sync();
    uint32_t sum = 0;
    for (int i = 0; i < size_ && lane() < kWarps; ++i) sum += shared_->group_sums[i][lane()];
    const uint32_t groups = inclusive_sum(sum);
    const unsigned reached = __ballot_sync(0xffffffffu, groups >= target);
    if (reached == 0) return {false, 0, 0};
    const int group = __ffs(reached) - 1;
    const uint32_t before = __shfl_sync(0xffffffffu, groups - sum, group);
    peers_read_ = true;
    if (warp_in_block() == 0) cross_group(mine + group * kGroupBins, group * kGroupBins, target, before);
    __syncthreads();
    return {true, shared_->crossing_bin, shared_->crossing_above};
  }

  /**
   * Lists the row's elements from key `low`, not 0, to `high`. False, in all threads, where there are more than fit. The
   * histogram's place is used for it.
   */
  template <class RowType>
  __device__ bool gather(const RowType& row, uint32_t low, uint32_t high, Candidates& candidates) {
    const int room = kThreads >> size_bits();
    const auto reserve = [&](int count) {
      const int through = static_cast<int>(inclusive_sum(count)), total = __shfl_sync(0xffffffffu, through, 31);
      if (total == 0) return -1;
      int first = lane() == 0 ? static_cast<int>(atomicAdd(&shared_->listed, static_cast<uint32_t>(total))) : 0;
      first = __shfl_sync(0xffffffffu, first, 0);
      if (first + total <= room) return first + through - count;
      if (lane() < size_) cluster_peer(shared_, lane())->overflow = 1;
      return -1;
    };
    const auto put = [&](int place, uint32_t key, uint32_t index) {
      for (int i = 0; i < size_; ++i) cluster_peer(shared_, i)->list[rank_ * room + place] = {key, index};
    };
    row.find_each(low, high, reserve, put);
    sync();
    const Candidate one = shared_->list[threadIdx.x];
    const bool overflow = shared_->overflow != 0;
    shared_->list[threadIdx.x] = {0, 0};
    const unsigned present = __ballot_sync(0xffffffffu, one.key != 0);
    const int before = __popc(present & ((1u << lane()) - 1));
    const uint32_t inclusive = inclusive_sum(static_cast<uint32_t>(warp_at_lane(meet_warps(__popc(present)))));
    if (threadIdx.x == 0) shared_->listed = shared_->overflow = 0;
    const uint32_t first = warp_in_block() == 0 ? 0 : __shfl_sync(0xffffffffu, inclusive, warp_in_block() - 1);
    candidates.count = static_cast<int>(__shfl_sync(0xffffffffu, inclusive, 31));
    Candidate* dense = scratch<Candidate>();
    if (one.key != 0) dense[first + before] = one;
    __syncthreads();
    candidates.mine = static_cast<int>(threadIdx.x) < candidates.count ? dense[threadIdx.x] : Candidate{0, 0};
    return !overflow;
  }

  /**
   * The largest key from `low` to `high` such that the candidates not below weigh `target`, at least 1; 0 for none.
   * `weight` is that of the thread's own.
   */
  __device__ uint32_t settle(const Candidates& candidates, uint32_t low, uint32_t high, uint32_t target,
                             uint32_t weight) {
    __syncthreads();  // behind the last readers of the scratch space
    return candidates.count <= kFewCandidates ? settle_few(candidates, target, weight)
                                              : settle_many(candidates, low, high, target, weight);
  }

  /** Writes the index of the candidate whose share of the sum of weights, in the order of indices, holds `point`. */
  __device__ void draw(const Candidates& candidates, uint64_t weight, uint64_t point, int* token) {
    if (rank_ != 0) return;
    auto* weights = scratch<uint64_t>();
    auto* indices = reinterpret_cast<uint32_t*>(shared_->list);
    __syncthreads();  // behind the last readers of the scratch space
    if (static_cast<int>(threadIdx.x) < candidates.count) {
      weights[threadIdx.x] = weight;
      indices[threadIdx.x] = candidates.mine.index;
    }
    __syncthreads();
    for (int one = warp_in_block(); one < candidates.count; one += kWarps) {
      const uint32_t index = indices[one];
      uint64_t before = 0;
      for (int i = lane(); i < candidates.count; i += 32) before += indices[i] < index ? weights[i] : 0;
      before = warp_sum(before);
      if (lane() == 0 && point >= before && point - before < weights[one]) *token = static_cast<int>(index);
    }
  }

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

 private:
  /** Each against each takes less than digit by digit up to here. */
  static constexpr int kFewCandidates = 128;

  __device__ uint32_t settle_few(const Candidates& candidates, uint32_t target, uint32_t weight) {
    auto* entries = scratch<uint2>();
    if (static_cast<int>(threadIdx.x) < candidates.count) {
      entries[threadIdx.x] = make_uint2(candidates.mine.key, weight);
    }
    if (threadIdx.x == 0) shared_->settled = 0;
    __syncthreads();
    for (int one = warp_in_block(); one < candidates.count; one += kWarps) {
      const uint32_t key = entries[one].x;
      uint32_t sum = 0;
      for (int i = lane(); i < candidates.count; i += 32) sum += entries[i].x >= key ? entries[i].y : 0;
      sum = warp_add(sum);
      if (lane() == 0 && sum >= target) atomicMax(&shared_->settled, key);
    }
    __syncthreads();
    return shared_->settled;
  }

  __device__ uint32_t settle_many(const Candidates& candidates, uint32_t low, uint32_t high, uint32_t target,
                                  uint32_t weight) {
    auto* bins = scratch<uint32_t>();
    clear_histogram();
    __syncthreads();
    const bool present = static_cast<int>(threadIdx.x) < candidates.count && candidates.mine.key >= low;
    const uint32_t offset = candidates.mine.key - low;
    uint32_t digits = 0;
    for (int shift = (31 - __clz((high - low) | 1)) / 8 * 8; shift >= 0; shift -= 8, bins += 256) {
      if (present && static_cast<uint64_t>(offset) >> (shift + 8) == digits) {
        atomicAdd(bins + ((offset >> shift) & 255), weight);
      }
      __syncthreads();
      if (warp_in_block() == 0) cross_digit(bins, target);
      __syncthreads();
      if (shared_->crossing_bin == kBins) return 0;
      digits = digits << 8 | shared_->crossing_bin;
      target -= shared_->crossing_above;
    }
    return low + digits;
  }

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

  /** What nobody needs at the time: the histogram's place. */
  template <class T>
  __device__ T* scratch() {
    histogram_used_ = true;
    return reinterpret_cast<T*>(shared_->histogram);
  }

  __device__ void clear_histogram() {
    auto* histogram = reinterpret_cast<uint2*>(shared_->histogram);
    histogram[threadIdx.x] = make_uint2(0, 0);
    if (threadIdx.x < 64) shared_->ends[threadIdx.x] = 0;
  }

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

  static __device__ __forceinline__ void shared_add(uint32_t address, uint32_t value) {
    asm volatile("red.shared.add.u32 [%0], %1;\n" ::"r"(address), "r"(value) : "memory");
  }

  /** One warp finds the crossing from the last of 256 bins down; kBins for none. */
  __device__ void cross_digit(const uint32_t* bins, uint32_t target) {
    const int last = 255 - 8 * lane();
    uint32_t sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += bins[last - i];
    uint32_t through = inclusive_sum(sum) - sum;
    if (through < target && target - through <= sum) {
      int bin = last;
      for (; target - through > bins[bin]; --bin) through += bins[bin];
      shared_->crossing_bin = bin;
      shared_->crossing_above = through;
    } else if (lane() == 31 && through < target) {
      shared_->crossing_bin = kBins;
    }
  }

  /** A warp of every block sums as many bins of its own, for all. */
  __device__ void push_group_sum() {
    auto* histogram = reinterpret_cast<uint2*>(shared_->histogram);
    uint2 bins = histogram[threadIdx.x];
    // The ends, which peers read too: of the first warp's first bin, and of the last warp's last.
    if (warp_in_block() == 0 || warp_in_block() == kWarps - 1) {
      const uint32_t end = warp_add(shared_->ends[(warp_in_block() == 0 ? 0 : 32) + lane()]);
      if (threadIdx.x == 0) bins.x = end;
      if (threadIdx.x == kThreads - 1) bins.y = end;
      if (threadIdx.x == 0 || threadIdx.x == kThreads - 1) histogram[threadIdx.x] = bins;
    }
    const uint32_t sum = warp_add(bins.x + bins.y);
    if (lane() < size_) cluster_peer(&shared_->group_sums[0][0], lane())[rank_ * kWarps + warp_in_block()] = sum;
  }

  /** One warp finds the crossing in a group of bins, `before` being the sum ahead of it. */
  __device__ void cross_group(uint32_t* bins, uint32_t first, uint32_t target, uint32_t before) {
    uint2 sum = make_uint2(0, 0);
#pragma unroll 4
    for (int i = 0; i < size_; ++i) {
      const uint2 theirs = reinterpret_cast<const uint2*>(cluster_peer(bins, i))[lane()];
      sum.x += theirs.x, sum.y += theirs.y;
    }
    const uint32_t end = before + inclusive_sum(sum.x + sum.y), begin = end - sum.x - sum.y;
    if (begin < target && end >= target) {
      const bool second = begin + sum.x < target;
      shared_->crossing_bin = first + 2 * lane() + (second ? 1 : 0);
      shared_->crossing_above = second ? begin + sum.x : begin;
    }
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

  /** Every block's value, by rank; pushed into each block, then one barrier. */
  __device__ const uint64_t* exchange(uint64_t value) {
    uint64_t* blocks = shared_->blocks[block_turn_];
    block_turn_ ^= 1;
    if (threadIdx.x < size_) cluster_peer(blocks, threadIdx.x)[rank_] = value;
    sync();
    return blocks;
  }

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
  int warp_turn_ = 0;
  int block_turn_ = 0;
  bool histogram_used_ = false;
  /** Since the last barrier of the cluster. */
  bool peers_read_ = false;
};

}  // namespace flashinfer
