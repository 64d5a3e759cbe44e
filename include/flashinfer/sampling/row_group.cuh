// SPDX-License-Identifier: Apache-2.0
// The blocks of a cluster that work on one row together, and what they tell each other.
#pragma once
#include <flashinfer/cluster.cuh>
#include <flashinfer/sampling/weights.cuh>

namespace flashinfer {

/** Bins of one digit of a key: 11, 11 and 10 bits of 32. */
constexpr int kDigitBins = 2048;
constexpr int kMaxClusterBlocks = 8;
constexpr int kMaxRowWarps = 128;

/** Start of every block's dynamic shared memory; `segment` elements a warp may follow. */
struct alignas(16) RowShared {
  uint32_t histogram[2][kDigitBins];
  uint64_t slots[2][kMaxRowWarps];
  uint32_t warp_sums[32];
  uint32_t crossing_bin;
  uint32_t crossing_above;
};

/** Where the sum over bins, from the highest down, reaches a target. */
struct Crossing {
  bool found;
  uint32_t bin;
  /** Sum over the bins above `bin`. */
  uint32_t above;
};

/** Where a warp's share lies in the sum over all warps of a row. */
struct WarpShare {
  uint64_t own, before, total;
};

/**
 * All threads of the cluster call every function but the constructor at the same points. Buffers are used in turns:
 * who writes one again has passed the barrier behind its last readers.
 */
template <int kThreads>
class RowGroup {
 public:
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kBins = kDigitBins / kThreads;
  static_assert(kThreads % 32 == 0 && kDigitBins % kThreads == 0, "every thread owns as many bins");

  __device__ RowGroup() : shared_(dynamic_shared_memory<RowShared>()), size_(cluster_size()), rank_(cluster_rank()) {
    for (int i = threadIdx.x; i < 2 * kDigitBins; i += kThreads) (&shared_->histogram[0][0])[i] = 0;
    cluster_arrive();
  }

  __device__ int size() const { return size_; }
  __device__ int lane() const { return threadIdx.x % 32; }
  /** Among the warps of the cluster; segments of the row are in this order. */
  __device__ int warp() const { return rank_ * kWarps + static_cast<int>(threadIdx.x) / 32; }
  __device__ bool is_first_thread() const { return rank_ == 0 && threadIdx.x == 0; }
  __device__ float* buffer(int segment) const {
    return reinterpret_cast<float*>(shared_ + 1) + static_cast<int>(threadIdx.x) / 32 * segment;
  }

  /** Behind the loads of the row: all blocks are there, and their histograms are empty. */
  __device__ void ready() { cluster_wait(); }

  /** Before the block ends: others may still read its memory. */
  __device__ void finish() {
    if (size_ > 1) sync();
  }

  /** Largest key of the row; `key` is one thread's. */
  __device__ uint32_t maximum(uint32_t key) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) key = max_of(key, __shfl_xor_sync(0xffffffffu, key, offset));
    const uint64_t* slots = exchange(key);
    key = 0;
    for (int i = lane(); i < size_ * kWarps; i += 32) key = max_of(key, static_cast<uint32_t>(slots[i]));
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) key = max_of(key, __shfl_xor_sync(0xffffffffu, key, offset));
    return key;
  }

  /** Sums, exact and thus independent of the number of blocks; `value` is one thread's. */
  __device__ WarpShare share(uint64_t value) {
    value = warp_sum(value);
    const uint64_t* slots = exchange(value);
    uint64_t before = 0, total = 0;
    for (int i = lane(); i < size_ * kWarps; i += 32) {
      const uint64_t slot = slots[i];
      total += slot;
      if (i < warp()) before += slot;
    }
    return {value, warp_sum(before), warp_sum(total)};
  }

  /**
   * `fill(add)` calls add(bin, weight) for a thread's elements. The crossing of `target`, at least 1, over the bins of
   * the whole row, which every block finds by itself: 8 KiB read from each of the others.
   */
  template <class Fill>
  __device__ Crossing histogram(uint32_t target, const Fill& fill) {
    uint32_t* mine = shared_->histogram[histogram_turn_];
    histogram_turn_ ^= 1;
    fill([&](uint32_t bin, uint32_t weight) { atomicAdd(mine + bin, weight); });
    sync();
    // Thread 0 owns the highest bins. Its own block's first, so that not all read the same one at once.
    const int first = kDigitBins - (static_cast<int>(threadIdx.x) + 1) * kBins;
    uint32_t bins[kBins] = {};
    for (int i = 0; i < size_; ++i) {
      const int peer = rank_ + i < size_ ? rank_ + i : rank_ + i - size_;
      const uint32_t* theirs = cluster_peer(mine, peer) + first;
#pragma unroll
      for (int bin = 0; bin < kBins; ++bin) bins[bin] += theirs[bin];
    }
    uint32_t sum = 0;
#pragma unroll
    for (int bin = 0; bin < kBins; ++bin) {
      sum += bins[bin];
      shared_->histogram[histogram_turn_][first + bin] = 0;
    }
    uint32_t above = exclusive_sum(sum);
    // Sums only grow from thread to thread, so one thread finds the crossing, or the last one that there is none.
    if (above < target && target - above <= sum) {
#pragma unroll
      for (int bin = kBins - 1; bin >= 0; --bin) {
        if (target - above <= bins[bin]) {
          shared_->crossing_bin = first + bin;
          shared_->crossing_above = above;
          break;
        }
        above += bins[bin];
      }
    } else if (threadIdx.x == kThreads - 1 && above < target) {
      shared_->crossing_bin = kDigitBins;
    }
    __syncthreads();
    return {shared_->crossing_bin < kDigitBins, shared_->crossing_bin, shared_->crossing_above};
  }

 private:
  static __device__ uint32_t max_of(uint32_t a, uint32_t b) { return a > b ? a : b; }

  static __device__ uint64_t warp_sum(uint64_t value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      const uint32_t low = __shfl_xor_sync(0xffffffffu, static_cast<uint32_t>(value), offset);
      const uint32_t high = __shfl_xor_sync(0xffffffffu, static_cast<uint32_t>(value >> 32), offset);
      value += (static_cast<uint64_t>(high) << 32) | low;
    }
    return value;
  }

  /** Sum over the threads of the block before this one. */
  __device__ uint32_t exclusive_sum(uint32_t value) {
    uint32_t inclusive = value;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const uint32_t left = __shfl_up_sync(0xffffffffu, inclusive, offset);
      if (lane() >= offset) inclusive += left;
    }
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (lane() == 31) shared_->warp_sums[warp] = inclusive;
    __syncthreads();
    uint32_t before = lane() < warp ? shared_->warp_sums[lane()] : 0;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) before += __shfl_xor_sync(0xffffffffu, before, offset);
    return before + inclusive - value;
  }

  /** Every warp's value, `value` being one in all its lanes, by warp(); pushed into each block, then one barrier. */
  __device__ const uint64_t* exchange(uint64_t value) {
    uint64_t* slots = shared_->slots[slot_turn_];
    slot_turn_ ^= 1;
    if (lane() < size_) cluster_peer(slots, lane())[warp()] = value;
    sync();
    return slots;
  }

  __device__ void sync() {
    if (size_ == 1) {
      __syncthreads();
    } else {
      cluster_arrive();
      cluster_wait();
    }
  }

  RowShared* shared_;
  int size_;
  int rank_;
  int slot_turn_ = 0;
  int histogram_turn_ = 0;
};

}  // namespace flashinfer
