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

/** Bins of a histogram, and of those that a warp sums at a time. */
constexpr int kHistogramBits = 11;
constexpr int kHistogramBins = 1 << kHistogramBits;
constexpr int kGroupBins = 64;

template <int kThreads>
struct alignas(128) SelectShared : RowShared<kThreads> {
  /** In turns: peers push candidates when the histogram's sums have told them that its bins have been read. */
  union {
    uint32_t histogram[kHistogramBins];
    uint64_t list[kThreads];
  };
  /** The first and the last bin of it, a word a lane each. */
  uint32_t ends[64];
  /** In turns: what peers tell of their histograms, or what threads of the block tell one another. */
  union {
    struct {
      uint32_t group_sums[kMaxClusterBlocks][kHistogramBins / kGroupBins];
      uint64_t bins_of_group[kMaxClusterBlocks][kGroupBins / 2];
    };
    uint64_t scratch[kThreads];
  };
  uint32_t crossing_found;
  uint32_t crossing_bin;
  uint32_t crossing_above;
  uint32_t settled;
  uint32_t listed;
};

/** As RowGroup says. */
template <int kThreads>
class SelectGroup : public RowGroup<kThreads, SelectShared<kThreads>> {
  using Base = RowGroup<kThreads, SelectShared<kThreads>>;
  using Shared = typename Base::Shared;
  using Base::await;
  using Base::exchange;
  using Base::expect;
  using Base::inclusive_sum;
  using Base::max_of;
  using Base::meet_warps;
  using Base::push;
  using Base::rank_;
  using Base::shared_;
  using Base::size_;
  using Base::turn;
  using Base::turned;
  using Base::warp_add;
  using Base::warp_at_lane;

 public:
  using Base::kWarps;
  using Base::lane;
  using Base::warp_in_block;
  using Base::warp_sum;
  static constexpr int kBinBits = kHistogramBits;
  static constexpr int kBins = kHistogramBins;

  __device__ SelectGroup() {
    clear_histogram();
    if (threadIdx.x == 0) shared_->listed = 0;
  }

  /**
   * `fill(add)` calls add(bin, weight) for a thread's elements; what is behind the last bin is of it. The crossing of
   * target(), at least 1 and asked for after that, over the bins of the whole row, which every block finds by itself:
   * groups of bins first, then the bins of the crossing group.
   */
  template <class Target, class Fill>
  __device__ Crossing histogram(const Target& target, const Fill& fill) {
    if (turned(Base::kHistogramUsed) != 0) {
      clear_histogram();
      __syncthreads();
    }
    use_histogram();
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
    push_group_sums();
    if (size_ == 1) __syncthreads();
    const uint32_t goal = target();
    if (warp_in_block() == 0) cross(goal);
    __syncthreads();
    return {shared_->crossing_found != 0, shared_->crossing_bin, shared_->crossing_above};
  }

  /**
   * Lists the row's elements from key `low`, not 0, to `high`. False, in all threads, where there are more than fit.
   */
  template <class RowType>
  __device__ bool gather(const RowType& row, uint32_t low, uint32_t high, Candidates& candidates) {
    const int room = kThreads / size_;
    auto* own = scratch<uint64_t>();
    const auto reserve = [&](int count) {
      const int through = static_cast<int>(inclusive_sum(count)), total = __shfl_sync(0xffffffffu, through, 31);
      if (total == 0) return -1;
      int first = lane() == 0 ? static_cast<int>(atomicAdd(&shared_->listed, static_cast<uint32_t>(total))) : 0;
      first = __shfl_sync(0xffffffffu, first, 0);
      return first + total <= room ? first + through - count : -1;
    };
    const auto put = [&](int place, uint32_t key, uint32_t index) {
      own[place] = static_cast<uint64_t>(index) << 32 | key;
    };
    row.find_each(low, high, reserve, put);
    __syncthreads();
    push_list(own, room);
    const uint64_t packed = static_cast<int>(threadIdx.x) < room * size_ ? shared_->list[threadIdx.x] : 0;
    const Candidate one = {static_cast<uint32_t>(packed), static_cast<uint32_t>(packed >> 32)};
    const bool overflow = __syncthreads_or(one.key == kOverflowKey) != 0;
    const unsigned present = __ballot_sync(0xffffffffu, one.key != 0);
    const int before = __popc(present & ((1u << lane()) - 1));
    const uint32_t inclusive = inclusive_sum(static_cast<uint32_t>(warp_at_lane(meet_warps(__popc(present)))));
    if (threadIdx.x == 0) shared_->listed = 0;
    const uint32_t first = warp_in_block() == 0 ? 0 : __shfl_sync(0xffffffffu, inclusive, warp_in_block() - 1);
    candidates.count = static_cast<int>(__shfl_sync(0xffffffffu, inclusive, 31));
    Candidate* dense = scratch<Candidate>();
    if (one.key != 0) dense[first + before] = one;
    __syncthreads();
    candidates.mine = static_cast<int>(threadIdx.x) < candidates.count ? dense[threadIdx.x] : Candidate{0, 0};
    // A histogram may follow, whose sums go where the candidates are.
    if (overflow) {
      __syncthreads();
      exchange(0);
    }
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
    auto* indices = shared_->histogram;
    __syncthreads();  // behind the last readers of the scratch space
    if (static_cast<int>(threadIdx.x) < candidates.count) {
      weights[threadIdx.x] = weight;
      indices[threadIdx.x] = candidates.mine.index;
    }
    __syncthreads();
#pragma unroll 1
    for (int one = warp_in_block(); one < candidates.count; one += kWarps) {
      const uint32_t index = indices[one];
      uint64_t before = 0;
#pragma unroll 1
      for (int i = lane(); i < candidates.count; i += 32) before += indices[i] < index ? weights[i] : 0;
      before = warp_sum(before);
      if (lane() == 0 && point >= before && point - before < weights[one]) *token = static_cast<int>(index);
    }
  }

 private:
  static constexpr int kGroups = kBins / kGroupBins;
  static_assert(kGroups == 32, "one a lane");
  /** Where a block has more candidates than room; no element has this key. */
  static constexpr uint32_t kOverflowKey = 0xffffffffu;
  /** Each against each takes less than digit by digit up to here. */
  static constexpr int kFewCandidates = 128;

  __device__ uint32_t settle_few(const Candidates& candidates, uint32_t target, uint32_t weight) {
    auto* entries = scratch<uint2>();
    if (static_cast<int>(threadIdx.x) < candidates.count) {
      entries[threadIdx.x] = make_uint2(candidates.mine.key, weight);
    }
    if (threadIdx.x == 0) shared_->settled = 0;
    __syncthreads();
#pragma unroll 1
    for (int one = warp_in_block(); one < candidates.count; one += kWarps) {
      const uint32_t key = entries[one].x;
      uint32_t sum = 0;
#pragma unroll 1
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
#pragma unroll 1
    for (int i = threadIdx.x; i < 4 * 256; i += kThreads) bins[i] = 0;
    __syncthreads();
    const bool present = static_cast<int>(threadIdx.x) < candidates.count && candidates.mine.key >= low;
    const uint32_t offset = candidates.mine.key - low;
    uint32_t digits = 0;
#pragma unroll 1
    for (int shift = (31 - __clz((high - low) | 1)) / 8 * 8; shift >= 0; shift -= 8, bins += 256) {
      if (present && static_cast<uint64_t>(offset) >> (shift + 8) == digits) {
        atomicAdd(bins + ((offset >> shift) & 255), weight);
      }
      __syncthreads();
      if (warp_in_block() == 0) cross_digit(bins, target);
      __syncthreads();
      if (shared_->crossing_found == 0) return 0;
      digits = digits << 8 | shared_->crossing_bin;
      target -= shared_->crossing_above;
    }
    return low + digits;
  }

  template <class T>
  __device__ T* scratch() {
    return reinterpret_cast<T*>(shared_->scratch);
  }

  __device__ void clear_histogram() {
    auto* histogram = reinterpret_cast<uint2*>(shared_->histogram);
#pragma unroll
    for (int i = threadIdx.x; i < kBins / 2; i += kThreads) histogram[i] = make_uint2(0, 0);
    if (threadIdx.x < 64) shared_->ends[threadIdx.x] = 0;
  }

  static __device__ __forceinline__ void shared_add(uint32_t address, uint32_t value) {
    asm volatile("red.shared.add.u32 [%0], %1;\n" ::"r"(address), "r"(value) : "memory");
  }

  /** One warp finds the crossing from the last of 256 bins down. */
  __device__ void cross_digit(const uint32_t* bins, uint32_t target) {
    const int last = 255 - 8 * lane();
    uint32_t sum = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += bins[last - i];
    uint32_t through = inclusive_sum(sum) - sum;
    if (through < target && target - through <= sum) {
      int bin = last;
      for (; target - through > bins[bin]; --bin) through += bins[bin];
      shared_->crossing_found = 1;
      shared_->crossing_bin = bin;
      shared_->crossing_above = through;
    } else if (lane() == 31 && through < target) {
      shared_->crossing_found = 0;
    }
  }

  /** Gives every block this one's candidates: those put at `own`, and nothing in the rest of its `room`. */
  __device__ void push_list(const uint64_t* own, int room) {
    const int to = static_cast<int>(threadIdx.x) / room, place = static_cast<int>(threadIdx.x) - to * room;
    const int count = static_cast<int>(shared_->listed);
    uint64_t one = place < count ? own[place] : 0;
    if (count > room) one = kOverflowKey;
    if (size_ == 1) {
      shared_->list[threadIdx.x] = one;
    } else {
      if (threadIdx.x == 0) expect(kList, 8 * room * size_);
      if (to < size_) push(kList, shared_->list + rank_ * room + place, one, to);
      await(kList);
    }
    use_histogram();
  }

  /** The two bins of a group that the lane has, of this block; the ends are gathered. */
  __device__ uint2 bins_at(int group) const {
    uint2 bins = reinterpret_cast<const uint2*>(shared_->histogram)[group * 32 + lane()];
    if (group == 0 || group == kGroups - 1) {
      const uint32_t end = warp_add(shared_->ends[(group == 0 ? 0 : 32) + lane()]);
      if (group == 0 && lane() == 0) bins.x = end;
      if (group == kGroups - 1 && lane() == 31) bins.y = end;
    }
    return bins;
  }

  /** The warps of every block sum its bins, for all. */
  __device__ void push_group_sums() {
    if (size_ > 1 && threadIdx.x == 0) expect(kGroupSums, 4 * kGroups * size_);
#pragma unroll 1
    for (int group = warp_in_block(); group < kGroups; group += kWarps) {
      const uint2 bins = bins_at(group);
      const uint32_t sum = warp_add(bins.x + bins.y);
      uint32_t* to = &shared_->group_sums[rank_][group];
      if (size_ == 1) {
        if (lane() == 0) *to = sum;
      } else if (lane() < size_) {
        push(kGroupSums, to, sum, lane());
      }
    }
  }

  /** One warp finds the crossing: the group of bins first, then in it. */
  __device__ void cross(uint32_t target) {
    if (size_ > 1) await(kGroupSums);
    uint32_t sum = 0;
#pragma unroll 1
    for (int i = 0; i < size_; ++i) sum += shared_->group_sums[i][lane()];
    const uint32_t groups = inclusive_sum(sum);
    const unsigned reached = __ballot_sync(0xffffffffu, groups >= target);
    if (lane() == 0) shared_->crossing_found = reached != 0 ? 1 : 0;
    if (reached == 0) return;
    const int group = __ffs(static_cast<int>(reached)) - 1;
    const uint32_t before = __shfl_sync(0xffffffffu, groups - sum, group);
    const uint2 bins = sum_over_blocks(bins_at(group));
    const uint32_t end = before + inclusive_sum(bins.x + bins.y), begin = end - bins.x - bins.y;
    if (begin < target && end >= target) {
      const bool second = begin + bins.x < target;
      shared_->crossing_bin = group * kGroupBins + 2 * lane() + (second ? 1 : 0);
      shared_->crossing_above = second ? begin + bins.x : begin;
    }
  }

  /** One warp of every block gives a lane's two bins. */
  __device__ uint2 sum_over_blocks(uint2 bins) {
    if (size_ == 1) return bins;
    if (lane() == 0) expect(kBinsOfGroup, 4 * kGroupBins * size_);
    const uint64_t packed = static_cast<uint64_t>(bins.y) << 32 | bins.x;
#pragma unroll 1
    for (int i = 0; i < size_; ++i) push(kBinsOfGroup, &shared_->bins_of_group[rank_][lane()], packed, i);
    await(kBinsOfGroup);
    uint2 sum = make_uint2(0, 0);
#pragma unroll 1
    for (int i = 0; i < size_; ++i) {
      const uint64_t theirs = shared_->bins_of_group[i][lane()];
      sum.x += static_cast<uint32_t>(theirs), sum.y += static_cast<uint32_t>(theirs >> 32);
    }
    return sum;
  }

  __device__ void use_histogram() {
    if (turned(Base::kHistogramUsed) == 0) turn(Base::kHistogramUsed);
  }
};

}  // namespace flashinfer
