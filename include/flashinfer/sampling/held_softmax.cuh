// SPDX-License-Identifier: Apache-2.0
// Softmax of rows, each in the registers of one cluster (sm_90 and up).
//
// Latency. A row of 128256 float32 takes 0.3 us to move at full bandwidth, and less than two reads of memory: what counts is
// the chain of one block, from its loads over the two values that all blocks tell each other, maximum and sum, to its
// stores. So 16 blocks share a row, every thread asks for its elements at once, and the code has neither loops nor options.
#pragma once
#include <flashinfer/pdl.cuh>
#include <flashinfer/sampling/filter.cuh>

namespace flashinfer {

/** kAccesses: of four elements a thread; all but the last one are within the row. */
template <class T_, int kThreads_, int kCluster_, int kAccesses_>
struct HeldRowConfig {
  using T = T_;
  static constexpr int kThreads = kThreads_;
  static constexpr int kCluster = kCluster_;
  static constexpr int kAccesses = kAccesses_;
  /** Elements from one access of a thread to its next. */
  static constexpr int kStep = 4 * kThreads * kCluster;
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

  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int warp() { return threadIdx.x / 32; }
  static __device__ uint64_t warp_sum(uint64_t value) { return RowGroup<kThreads>::warp_sum(value); }
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

/**
 * As softmax(), of the same bits. params: x, out, temperature (float32 a row, or null: temperature_value), x_stride, vocab: a
 * multiple of 4.
 */
template <class Config, class Params>
__device__ __forceinline__ void held_softmax(const Params& params) {
  using T = typename Config::T;
  constexpr int kAccesses = Config::kAccesses;
  const uint32_t row = blockIdx.x / Config::kCluster;
  const int first = 4 * (cluster_rank() * Config::kThreads + static_cast<int>(threadIdx.x));
  const T* x = static_cast<const T*>(params.x) + row * params.x_stride + first;
  const bool has_last = first + (kAccesses - 1) * Config::kStep < params.vocab;
  float values[kAccesses][4];
  wait_for_previous_grid();
  launch_next_grid();
#pragma unroll
  for (int i = 0; i < kAccesses; ++i) {
    if (i < kAccesses - 1 || has_last) {
      unpack<T>(load_once<T, 4>(x + i * Config::kStep), values[i]);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) values[i][k] = negative_infinity();
    }
  }
  HeldGroup<Config::kThreads, Config::kCluster> group;
  group.open();
  const float temperature = per_row<float>(params.temperature, params.temperature_value, static_cast<int>(row));

  float top = negative_infinity();
#pragma unroll
  for (int i = 0; i < kAccesses; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) top = max_nan(top, values[i][k]);
  }
  const uint32_t max_key = group.max(top != top ? 0xffffffffu : ordered_key(top));
  const RowWeights<RowInput::kSoftmax> weights(max_key, temperature, 0.0f);
  WeightSum sum(weights.factor);
#pragma unroll
  for (int i = 0; i < kAccesses; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) values[i][k] = weights.value(values[i][k]);
    sum.add(values[i]);
  }
  const float factor = softmax_factor(max_key, group.sum(sum.total(4 * kAccesses)));
  float* out = static_cast<float*>(params.out) + static_cast<int64_t>(row) * params.vocab + first;
#pragma unroll
  for (int i = 0; i < kAccesses; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) values[i][k] *= factor;
    if (i < kAccesses - 1 || has_last) store_once<float, 4>(out + i * Config::kStep, pack<float>(values[i]));
  }
}

}  // namespace flashinfer
