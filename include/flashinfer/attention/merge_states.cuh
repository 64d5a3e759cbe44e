// SPDX-License-Identifier: Apache-2.0
// Merging attention states that the caller holds: two tensors of them, or any number in one. A row of any length belongs
// to LANES threads of one warp, so that the number of heads and their dimension are free.
#pragma once
#include <flashinfer/attention/states.cuh>
#include <flashinfer/pdl.cuh>
#include <flashinfer/vector.cuh>

namespace flashinfer {

/**
 * T: element type of the values. VEC: elements an access. LANES: threads a row, a power of two up to 32. GROUPS: groups of
 * LANES threads that share the states of a row, for few rows with many states; a power of two, 1 for pairs. PAIR: the
 * states are those of two tensors.
 */
template <class T_, int VEC, int LANES, int GROUPS, bool PAIR>
struct MergeStatesConfig {
  using T = T_;
  static constexpr int kVec = VEC;
  static constexpr int kLanes = LANES;
  static constexpr int kGroups = GROUPS;
  static constexpr bool kPair = PAIR;
  static constexpr int kThreads = 128;
  static constexpr int kRows = kThreads / (LANES * GROUPS);
  static_assert(LANES <= 32 && kThreads % (LANES * GROUPS) == 0, "a row has one warp's lanes; whole rows a block");
  static_assert(GROUPS == 1 || kRows == 1, "groups meet at the block's barrier");
};

namespace detail {

/** One row's states: where they are, and their lse in base 2. */
template <class Config, class Params>
struct RowStates {
  using T = typename Config::T;
  const T *v, *v_b;
  const float *s, *s_b;
  const int32_t* shifts;
  int64_t v_stride, s_stride, shift_stride;
  float lse_factor, slope;

  __device__ __forceinline__ RowStates(const Params& p, uint32_t n, uint32_t h) : lse_factor(p.lse_in_factor) {
    v = static_cast<const T*>(p.v) + n * p.v_stride_n + h * p.v_stride_h;
    s = static_cast<const float*>(p.s) + n * p.s_stride_n + h * p.s_stride_h;
    if constexpr (Config::kPair) {
      v_b = static_cast<const T*>(p.v_b) + n * p.v_b_stride_n + h * p.v_b_stride_h;
      s_b = static_cast<const float*>(p.s_b) + n * p.s_b_stride_n + h * p.s_b_stride_h;
    } else {
      v_stride = p.v_stride_i;
      s_stride = p.s_stride_i;
      shift_stride = p.shift_stride_i;
      shifts = p.shifts == nullptr ? nullptr : static_cast<const int32_t*>(p.shifts) + n;
      slope = p.shifts == nullptr ? 0.0f : static_cast<const float*>(p.slopes)[h] * kLog2e;
    }
  }

  __device__ __forceinline__ float lse(int i) const {
    if constexpr (Config::kPair) return *(i == 0 ? s : s_b) * lse_factor;
    const float own = s[i * s_stride] * lse_factor;
    return shifts == nullptr ? own : fmaf(slope, static_cast<float>(shifts[i * shift_stride]), own);
  }

  using Values = Vector<T, Config::kVec>;
  __device__ __forceinline__ Values load(int i, int column) const {
    const T* row = v;
    if constexpr (Config::kPair) {
      if (i != 0) row = v_b;
    } else {
      row += i * v_stride;
    }
    return load_once<T, Config::kVec>(row + column * Config::kVec);
  }

  /** An empty state's values count as 0, whatever they are. */
  __device__ __forceinline__ void read(int i, const Values& loaded, float (&x)[Config::kVec]) const {
    unpack<T, Config::kVec>(loaded, x);
    if (lse(i) == negative_infinity()) {
#pragma unroll
      for (int e = 0; e < Config::kVec; ++e) x[e] = 0.0f;
    }
  }
};

}  // namespace detail

/**
 * params: v, s and, of pairs, v_b, s_b with strides of rows (_n), heads (_h) and states (_i) in elements; out, lse; mask
 * (bytes, or null; rows with 0 are left alone); count (int32, or null: how many n there are); rows = n * heads,
 * vectors = row length / VEC, num_states. s times lse_in_factor is base 2, and the merged one is written times
 * lse_out_factor. out and lse, which may be null, may be v and s of a pair. shifts (int32 [states, n], or null; not of
 * pairs) times slopes (float32 [heads]) are added to natural logarithms: how far each state's ALiBi was from its place.
 */
template <class Config, class Params>
__device__ __forceinline__ void merge_state_rows(const Params& params) {
  using T = typename Config::T;
  constexpr int kVec = Config::kVec, kLanes = Config::kLanes, kGroups = Config::kGroups;
  __shared__ float group_out[kGroups > 1 ? kGroups : 1][kGroups > 1 ? kLanes * kVec : 1];
  __shared__ float group_lse[kGroups];
  const int lane = threadIdx.x % kLanes;
  const int group = threadIdx.x / kLanes % kGroups;
  const uint32_t row = blockIdx.x * Config::kRows + threadIdx.x / (kLanes * kGroups);
  wait_for_previous_grid();
  launch_next_grid();
  const uint32_t heads = params.heads;
  const uint32_t rows = params.count == nullptr ? params.rows : *static_cast<const uint32_t*>(params.count) * heads;
  const bool exists = row < rows;
  const uint32_t n = exists ? row / heads : 0;
  const uint32_t h = exists ? row - n * heads : 0;
  const bool works = exists && (params.mask == nullptr || static_cast<const uint8_t*>(params.mask)[n] != 0);
  const detail::RowStates<Config, Params> states(params, n, h);
  T* out = static_cast<T*>(params.out) + n * params.out_stride_n + h * params.out_stride_h;
  const int num_states = Config::kPair ? 2 : params.num_states;
  const int columns = works ? params.vectors : 0;

  float merged = negative_infinity();
  // Lanes past the end run along, since groups meet at barriers.
  for (int first = 0; first < columns; first += kLanes) {
    const int column = first + lane;
    const bool loads = column < columns;
    const int place = loads ? column : 0;
    float x[kVec];
    const auto load = [&](int i, float (&values)[kVec]) { states.read(i, states.load(i, place), values); };
    if constexpr (kGroups == 1) {
      // The first two start before their weights are known: most calls have no more.
      typename detail::RowStates<Config, Params>::Values head[2] = {};
      if (num_states > 0) head[0] = states.load(0, place);
      if (num_states > 1) head[1] = states.load(1, place);
      merged = merge_states<kVec>(
          num_states, [&](int i) { return states.lse(i); },
          [&](int i, float (&values)[kVec]) {
            if (i == 0) return states.read(0, head[0], values);
            if (i == 1) return states.read(1, head[1], values);
            load(i, values);
          },
          x);
    } else {
      const int count = (num_states - group + kGroups - 1) / kGroups;
      const float part = merge_states<kVec>(
          count, [&](int i) { return states.lse(group + i * kGroups); },
          [&](int i, float (&values)[kVec]) { load(group + i * kGroups, values); }, x);
      __syncthreads();
      if (lane == 0) group_lse[group] = part;
#pragma unroll
      for (int e = 0; e < kVec; ++e) group_out[group][lane * kVec + e] = x[e];
      __syncthreads();
      if (group != 0) continue;
      merged = merge_states<kVec>(
          kGroups, [&](int i) { return group_lse[i]; },
          [&](int i, float (&values)[kVec]) {
#pragma unroll
            for (int e = 0; e < kVec; ++e) values[e] = group_out[i][lane * kVec + e];
          },
          x);
    }
    if (loads) store<T, kVec>(out + column * kVec, pack<T, kVec>(x));
  }
  // In place, every lane has read the row's s before it is overwritten.
  __syncwarp();
  if (works && lane == 0 && group == 0 && params.lse != nullptr) {
    float* lse = static_cast<float*>(params.lse) + n * params.lse_stride_n + h * params.lse_stride_h;
    *lse = merged * params.lse_out_factor;
  }
}

}  // namespace flashinfer
