// SPDX-License-Identifier: Apache-2.0
// Draws from rows that clusters hold in registers.
#pragma once
#include <flashinfer/sampling/draw.cuh>
#include <flashinfer/sampling/held_group.cuh>

namespace flashinfer {

/** The elements of a thread: those of a warp lie together, in the order of warps. */
template <class Config, RowInput kInput>
class HeldRow {
 public:
  __device__ __forceinline__ HeldRow(const typename Config::T* x, int length)
      : begin_(static_cast<int>(cluster_rank() * (Config::kThreads / 32) + threadIdx.x / 32) * 128 * Config::kAccesses +
               static_cast<int>(4 * (threadIdx.x % 32))) {
#pragma unroll
    for (int i = 0; i < Config::kAccesses; ++i) {
      const int index = begin_ + 128 * i;
      if (index < length) {
        unpack<typename Config::T>(load_once<typename Config::T, 4>(x + index), values_[i]);
      } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) values_[i][k] = padding_value<kInput>();
      }
    }
  }

  __device__ __forceinline__ float top() {
    float top = padding_value<kInput>();
#pragma unroll
    for (int i = 0; i < Config::kAccesses; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        values_[i][k] = read_value<kInput>(values_[i][k]);
        top = fmaxf(top, values_[i][k]);
      }
    }
    return top;
  }

  /** Weights in place of the elements; their sum. */
  __device__ __forceinline__ uint64_t weigh(const RowWeights<kInput>& weights) {
    WeightSum sum(weights.factor);
#pragma unroll
    for (int i = 0; i < Config::kAccesses; ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float x = values_[i][k];  // not NaN; logits have no lowest value
        values_[i][k] = kInput != RowInput::kProbs || x >= weights.lowest ? weights.value(x) : 0.0f;
      }
      sum.add(values_[i]);
    }
    return sum.total(4 * Config::kAccesses);
  }

  /** As Row::scan(), by one warp of the cluster at most: out of memory, for registers want the code for each access. */
  template <class Body>
  __device__ __forceinline__ void scan(const Body& body) const {
    __shared__ float4 accesses[Config::kAccesses][32];
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < Config::kAccesses; ++i) {
      accesses[i][lane] = make_float4(values_[i][0], values_[i][1], values_[i][2], values_[i][3]);
    }
#pragma unroll 1
    for (int i = 0; i < Config::kAccesses; ++i) {
      const float4 four = accesses[i][lane];
      const float values[4] = {four.x, four.y, four.z, four.w};
      if (!body(begin_ + 128 * i, values)) return;
    }
  }

 private:
  int begin_;
  float values_[Config::kAccesses][4];
};

/** As sample() without thresholds: the same tokens. */
template <class Config, RowInput kInput, class Params>
__device__ __forceinline__ void held_sample(const Params& params) {
  HeldGroup<Config::kThreads, Config::kCluster> group;
  const int out_row = static_cast<int>(blockIdx.x / Config::kCluster);
  wait_for_previous_grid();
  launch_next_grid();
  const int source = per_row<int>(params.indices, out_row, out_row);
  const bool exists = source >= 0 && source < params.rows;
  HeldRow<Config, kInput> row(
      static_cast<const typename Config::T*>(params.x) + (exists ? source * params.x_stride : 0),
      exists ? params.vocab : 0);
  group.open();
  const float temperature = per_row<float>(params.temperature, params.temperature_value, out_row);
  const bool min_p = (params.filters & kMinP) != 0;
  const float least = min_p ? per_row<float>(params.min_p, params.min_p_value, out_row) : 0.0f;
  const Philox4 words = row_words(params, out_row, 0);
  const RowWeights<kInput> weights(group.max(ordered_key(row.top())), temperature, least);
  const WarpShare share = group.share(row.weigh(weights));
  int* token = static_cast<int*>(params.out) + out_row;
  write_valid(params, group, out_row, share.total != 0);
  if (share.total == 0) {
    if (group.is_first_thread()) *token = 0;
  } else {
    find_drawn(
        row, group, share, draw_point(words, share.total), weights.factor, [](float weight) { return weight; },
        [&](int index, float) {
          if (group.lane() == 0) *token = index;
        });
  }
}

}  // namespace flashinfer
