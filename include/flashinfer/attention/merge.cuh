// SPDX-License-Identifier: Apache-2.0
// Combines attention states of disjoint key sets (arXiv:2501.01005, section 2.2): the states of KV splits.
// Splits are added in index order, so results do not depend on which block finished first.
#pragma once
#include <flashinfer/attention/output.cuh>
#include <flashinfer/attention/states.cuh>
#include <flashinfer/attention/variant.cuh>
#include <flashinfer/pdl.cuh>

namespace flashinfer {

/** Adds up four output elements where the weights are no softmax's; the lse that there is not is 0. */
template <class Value>
__device__ __forceinline__ float sum_states4(int num_splits, Value value, float (&out)[4]) {
  out[0] = out[1] = out[2] = out[3] = 0.0f;
#pragma unroll 4
  for (int i = 0; i < num_splits; ++i) {
    const float4 v = value(i);
    out[0] += v.x;
    out[1] += v.y;
    out[2] += v.z;
    out[3] += v.w;
  }
  return 0.0f;
}

/**
 * Merges the states of one row, four output elements at a time. `lse(i)` is split i's base-2 log-sum-exp and
 * `value(i)` its four normalised outputs; both are only read for i < num_splits. Returns the merged lse.
 */
template <bool SOFTMAX, int AT_ONCE = 1, class Lse, class Value>
__device__ __forceinline__ float merge_states4(int num_splits, Lse lse, Value value, float (&out)[4]) {
  if constexpr (!SOFTMAX) return sum_states4(num_splits, value, out);
  const auto load = [&](int i, float (&v)[4]) {
    const float4 loaded = value(i);
    v[0] = loaded.x, v[1] = loaded.y, v[2] = loaded.z, v[3] = loaded.w;
  };
  if constexpr (AT_ONCE > 1) return merge_states_at_once<4, AT_ONCE>(num_splits, lse, load, out);
  return merge_states<4>(num_splits, lse, load, out);
}

/** Finishes four output elements of a row, and with the first of them its lse: sink, scale, hook of the variant. */
template <class T, class Variant, class Params>
__device__ __forceinline__ void finish_output4(const Params& params, const PackedRow& at, int column, float lse,
                                               const float (&out)[4]) {
  const float factor = join_sink<Variant>(params, at.qo_head, lse) * params.v_scale;
  if (column == 0) store_lse(params, at, lse);
  float final[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    final[e] = out[e] * factor;
    if constexpr (Variant::kTransformsOutput) {
      const ElementPosition place{at.qo_idx, at.qo_head, at.qo_head / params.group_size, column + e};
      final[e] = Variant::transform_output(params, final[e], place, lse);
    }
  }
  T* dst = static_cast<T*>(params.o) + output_offset(params, at) + column;
  *reinterpret_cast<uint2*>(dst) = make_uint2(pack2<T>(final[0], final[1]), pack2<T>(final[2], final[3]));
}

template <class T_, int D_VO_, class Variant_ = DefaultVariant<false, false>>
struct MergeConfig {
  using Variant = Variant_;
  using T = T_;
  using KvT = T_;
  /**
   * kGroups groups of kThreads threads share the splits of an element: few rows with many splits, as a decode step over
   * a shared prefix has, would leave each thread to wait for one read after the other.
   */
  static constexpr int D_VO = D_VO_, kThreads = 128, kGroups = 4;
};

/**
 * Merges the output elements of what split prefill left of a request, four by four: those of `block`, which has kThreads
 * of them; past the end nothing. For all threads of the block.
 */
template <class C, class Params>
__device__ __forceinline__ void merge_splits_at(const Params& params, int64_t block) {
  constexpr int kColumns = C::D_VO / 4, kGroups = C::kGroups;
  constexpr bool kSoftmax = C::Variant::kUsesSoftmax;
  __shared__ float4 group_out[kGroups][C::kThreads];
  __shared__ float group_lse[kGroups][C::kThreads];
  const int lane = threadIdx.x % C::kThreads, group = threadIdx.x / C::kThreads;
  const int64_t index = block * C::kThreads + lane;
  const int64_t num_rows = static_cast<int64_t>(params.qo_len) * params.num_qo_heads;
  const int64_t row = index / kColumns;
  const int column = static_cast<int>(index % kColumns) * 4;
  const float* lse = static_cast<const float*>(params.partial_lse) + row;
  const float* values = static_cast<const float*>(params.partial_o) + row * C::D_VO + column;
  float out[4];
  const int count = row < num_rows ? (params.num_splits - group + kGroups - 1) / kGroups : 0;
  const float part = merge_states4<kSoftmax>(
      count, [&](int i) { return lse[(group + i * kGroups) * num_rows]; },
      [&](int i) { return *reinterpret_cast<const float4*>(values + (group + i * kGroups) * num_rows * C::D_VO); },
      out);
  __syncthreads();
  group_out[group][lane] = make_float4(out[0], out[1], out[2], out[3]);
  group_lse[group][lane] = part;
  __syncthreads();
  if (group != 0 || row >= num_rows) return;
  const float merged = merge_states4<kSoftmax>(
      kGroups, [&](int i) { return group_lse[i][lane]; }, [&](int i) { return group_out[i][lane]; }, out);
  const PackedRow at{static_cast<int>(row / params.num_qo_heads), static_cast<int>(row % params.num_qo_heads)};
  finish_output4<typename C::T, typename C::Variant>(params, at, column, merged, out);
}

/** One request. Grid: ceil(qo_len * num_qo_heads * D_VO / 4 / kThreads) blocks of kGroups * kThreads threads. */
template <class C, class Params>
__device__ __forceinline__ void merge_splits(const Params& params) {
  wait_for_previous_grid();
  merge_splits_at<C>(params, blockIdx.x);
}

}  // namespace flashinfer
