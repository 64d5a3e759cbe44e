// SPDX-License-Identifier: Apache-2.0
// What the blocks of a cluster find thresholds with: histograms of the row, and lists of few of its elements.
#pragma once
#include <flashinfer/cp_async.cuh>
#include <flashinfer/sampling/row_group.cuh>

namespace flashinfer {

/** An element of the row; key 0, which no candidate has, for none. */
struct alignas(8) Candidate {
  uint32_t key;
  uint32_t index;
};

/** Candidates of a row, the same in all blocks: thread i holds one for i < count. */
struct Candidates {
  Candidate mine;
  int count;
};

/** Where the sum over bins, from the first on, reaches a target. */
struct Crossing {
  bool found;
  uint32_t bin;
  /** Sum over the bins before `bin`. */
  uint32_t before;
};

template <int kThreads>
struct alignas(16) SelectShared : RowShared<kThreads> {
  uint32_t histogram[2 * kThreads];
  /** The first and the last bin of it, a word a lane each. */
  uint32_t ends[64];
  Candidate list[kThreads];
  uint32_t group_sums[kMaxClusterBlocks][kThreads / 32];
  uint32_t crossing_bin;
  uint32_t crossing_above;
  uint32_t settled;
  uint32_t listed;
  uint32_t overflow;
};

/** As RowGroup says. */
template <int kThreads>
class SelectGroup : public RowGroup<kThreads, SelectShared<kThreads>> {
  using Base = RowGroup<kThreads, SelectShared<kThreads>>;
  using Shared = typename Base::Shared;
  using Base::inclusive_sum;
  using Base::max_of;
  using Base::meet_warps;
  using Base::peers_read_;
  using Base::rank_;
  using Base::shared_;
  using Base::size_;
  using Base::sync;
  using Base::warp_add;
  using Base::warp_at_lane;

 public:
  using Base::kWarps;
  using Base::lane;
  using Base::size_bits;
  using Base::warp_in_block;
  using Base::warp_sum;
  /** Of a histogram: two a thread. A warp's make a group. */
  static constexpr int kBinBits = kThreads == 1024 ? 11 : 10;
  static constexpr int kBins = 1 << kBinBits;
  static constexpr int kGroupBins = 64;
  static_assert(kThreads == kBins / 2, "1024 threads or 512");

  __device__ SelectGroup() : Base(0) {
    clear_histogram();
    shared_->list[threadIdx.x] = {0, 0};
    if (threadIdx.x == 0) shared_->listed = shared_->overflow = 0;
    cluster_arrive();
  }

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

  /**
   * Writes the index of the candidate whose share of the sum of weights, in the order of indices, holds `point`. Leaves
   * the list unfit for more.
   */
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

  bool histogram_used_ = false;
};

}  // namespace flashinfer
