// SPDX-License-Identifier: Apache-2.0
// RMSNorm and LayerNorm of rows, alone or after adding to the residual. A row stays in registers from the first pass
// to the last; sums are float32.
#pragma once
#include <flashinfer/pdl.cuh>
#include <flashinfer/prefetch.cuh>
#include <flashinfer/reduce.cuh>
#include <flashinfer/saturate_fp8.cuh>
#include <flashinfer/vector.cuh>

namespace flashinfer {

enum class NormKind { kRms, kLayer };

/**
 * T, Weight, Out: element types of x (and residual), of weight and bias, and of out; an fp8 Out is scaled and saturated.
 * VEC: elements an access; VECS: accesses a thread. LANES: threads a row, a power of two up to 32 or the whole block.
 * ROWS: rows a block at a time. ADD: residual += x first, and the sum is normalised, before it is rounded. FULL: rows are
 * exactly VEC * VECS * LANES long. HEADS: rows are heads of tokens, which have strides of their own; otherwise all rows
 * are at the distance of tokens.
 */
template <class T_, class Weight_, class Out_, int VEC, int VECS, int LANES, int ROWS, NormKind KIND, bool ADD,
          bool FULL, bool HEADS>
struct NormConfig {
  using T = T_;
  using Weight = Weight_;
  using Out = Out_;
  static constexpr int kVec = VEC;
  static constexpr int kVecs = VECS;
  static constexpr int kLanes = LANES;
  static constexpr int kRows = ROWS;
  static constexpr int kThreads = LANES * ROWS;
  static constexpr bool kLayer = KIND == NormKind::kLayer;
  static constexpr bool kAdd = ADD;
  static constexpr bool kFull = FULL;
  static constexpr bool kHeads = HEADS;
  /**
   * A block of one row's threads serves that row and ends. With many accesses a thread it could, too, but the straight
   * code needs more registers or reads the weights late, and streams slower (H200, 8192 x 8192: 71.2 us for 70.1).
   */
  static constexpr bool kOneRow = LANES > 32 && VECS <= 2;
  static constexpr bool kQuantize = sizeof(Out_) == 1;
  /** Of few rows a thread takes one access, and all blocks start at once: none has a later one's row to ask for. */
  static constexpr bool kAhead = LANES > 32 && VECS > 1 && VEC * sizeof(T_) == 16;
  /** Weights kept from row to row, where registers allow; read with x, they cost a short call no second round trip. */
  static constexpr bool kKeepWeights =
      VECS * Vector<Weight_, VEC>::kWords * (kLayer ? 2 : 1) <= (LANES <= 512 ? 16 : 4) && VEC * VECS <= 32;
  static_assert(LANES > 32 ? ROWS == 1 : (LANES & (LANES - 1)) == 0, "a group of lanes is part of a warp or a block");
};

namespace detail {

/** Keeps the compiler from unpacking what is used again in every round ahead of them all, at twice the registers. */
template <class V>
__device__ __forceinline__ void stay_packed(V& v) {
#pragma unroll
  for (int i = 0; i < V::kWords; ++i) asm volatile("" : "+r"(v.words[i]));
}

/**
 * One thread's share of a row, from the first pass to the last. Values of x stay packed, at half the registers; a sum,
 * which is normalised before it is rounded, is kept as floats.
 */
template <class T, int VEC, int VECS, bool SUM>
struct RowShare {
  Vector<T, VEC> packed[VECS];
  __device__ __forceinline__ void get(int i, float (&x)[VEC]) {
    stay_packed(packed[i]);
    unpack<T, VEC>(packed[i], x);
  }
};
template <class T, int VEC, int VECS>
struct RowShare<T, VEC, VECS, true> {
  float sums[VECS][VEC];
  __device__ __forceinline__ void get(int i, float (&x)[VEC]) {
#pragma unroll
    for (int j = 0; j < VEC; ++j) x[j] = sums[i][j];
  }
};

/** One thread's weights (and biases) of the columns it works on. */
template <class Config, class Params>
struct NormWeights {
  using W = typename Config::Weight;
  static constexpr int kKept = Config::kKeepWeights ? Config::kVecs : 1;
  Vector<W, Config::kVec> weight[kKept];
  Vector<W, Config::kVec> bias[Config::kLayer ? kKept : 1];

  __device__ __forceinline__ void load(const Params& params, int i, int column) {
    weight[i] = load_shared_by_all<W, Config::kVec>(static_cast<const W*>(params.weight) + column * Config::kVec);
    if constexpr (Config::kLayer) {
      bias[i] = load_shared_by_all<W, Config::kVec>(static_cast<const W*>(params.bias) + column * Config::kVec);
    }
  }
};

/**
 * One thread asks for what the row params.ahead tokens later has at `row_start`'s place: it comes into L2 as one run of
 * memory, before its block waits for it. The kernel's own writes need no care, nor would those of grids before it: all meet
 * in L2, where a line that came early is no older than any other.
 */
template <class Config, class Params>
__device__ __forceinline__ void prefetch_row_ahead(const Params& params, uint32_t row,
                                                   const typename Config::T* row_start, int64_t token_stride) {
  if constexpr (Config::kAhead) {
    if (threadIdx.x != 0 || row - params.first_ahead >= params.rows_ahead) return;
    prefetch_l2(row_start + params.ahead * token_stride, params.vectors * 16);
  }
}

}  // namespace detail

/**
 * out = (x - mean) * rsqrt(mean((x - mean)^2) + eps) * (weight + weight_offset) + bias, where RMSNorm has neither mean
 * nor bias; fp8: divided by the scale. params: out, x, residual, weight, bias, scale (float32[1] or null: scale_value),
 * strides of tokens (_n) and heads (_h) in elements, rows = tokens * heads, vectors = row length / VEC; rows_ahead rows from
 * first_ahead on have one `ahead` tokens later, for which their blocks ask.
 */
template <class Config, class Params>
__device__ __forceinline__ void norm(const Params& params) {
  using T = typename Config::T;
  using Out = typename Config::Out;
  constexpr int kVec = Config::kVec, kVecs = Config::kVecs, kLanes = Config::kLanes;
  const int lane = threadIdx.x % kLanes;
  const uint32_t rows = params.rows;
  const int vectors = params.vectors;
  GroupSum<kLanes> group_sum;
  detail::NormWeights<Config, Params> weights;

  wait_for_previous_grid();
  launch_next_grid();
  float rcp_scale = 1.0f;
  if constexpr (Config::kQuantize) {
    rcp_scale = 1.0f / (params.scale != nullptr ? *static_cast<const float*>(params.scale) : params.scale_value);
  }

  // All threads of the block make the same number of rounds: they meet in the sums. No block is without a row.
  for (uint32_t first = blockIdx.x * Config::kRows; Config::kOneRow || first < rows;
       first += gridDim.x * Config::kRows) {
    const uint32_t row = first + threadIdx.x / kLanes;
    uint32_t token = row, head = 0;
    if constexpr (Config::kHeads) {
      // A division takes as long as an access to L2, and stands before all of them.
      const uint32_t heads = params.heads;
      token = heads == 1 ? row : row / heads, head = row - token * heads;
    }
    // What compares to true at compile time costs nothing: the loads of a full row follow one another.
    const bool has_row = Config::kRows == 1 || row < rows;
    const auto holds = [&](int column) { return (Config::kFull || column < vectors) && has_row; };
    const T* x = static_cast<const T*>(params.x) + token * params.x_stride_n + head * params.x_stride_h;
    Out* out = static_cast<Out*>(params.out) + token * params.out_stride_n + head * params.out_stride_h;

    detail::RowShare<T, kVec, kVecs, Config::kAdd> share;
    if constexpr (Config::kAdd) {
      T* residual =
          static_cast<T*>(params.residual) + token * params.residual_stride_n + head * params.residual_stride_h;
      Vector<T, kVec> loaded[kVecs], added[kVecs];
#pragma unroll
      for (int i = 0; i < kVecs; ++i) {
        const int column = lane + i * kLanes;
        if (!holds(column)) continue;
        loaded[i] = load_once<T, kVec>(x + column * kVec);
        added[i] = load_once<T, kVec>(residual + column * kVec);
      }
      detail::prefetch_row_ahead<Config>(params, row, x, params.x_stride_n);
      detail::prefetch_row_ahead<Config>(params, row, residual, params.residual_stride_n);
#pragma unroll
      for (int i = 0; i < kVecs; ++i) {
        const int column = lane + i * kLanes;
        if (!holds(column)) continue;
        float addend[kVec];
        unpack<T, kVec>(loaded[i], share.sums[i]);
        unpack<T, kVec>(added[i], addend);
#pragma unroll
        for (int j = 0; j < kVec; ++j) share.sums[i][j] += addend[j];
        store<T, kVec>(residual + column * kVec, pack<T, kVec>(share.sums[i]));
      }
    } else {
#pragma unroll
      for (int i = 0; i < kVecs; ++i) {
        const int column = lane + i * kLanes;
        if (holds(column)) share.packed[i] = load_once<T, kVec>(x + column * kVec);
      }
      detail::prefetch_row_ahead<Config>(params, row, x, params.x_stride_n);
    }
    if constexpr (Config::kKeepWeights) {
      // Behind the first row, which comes from farther away.
      if (Config::kOneRow || first == blockIdx.x * Config::kRows) {
#pragma unroll
        for (int i = 0; i < kVecs; ++i) {
          if (Config::kFull || lane + i * kLanes < vectors) weights.load(params, i, lane + i * kLanes);
        }
      }
    }

    float mean = 0.0f;
    if constexpr (Config::kLayer) {
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kVecs; ++i) {
        if (!holds(lane + i * kLanes)) continue;
        float values[kVec];
        share.get(i, values);
#pragma unroll
        for (int j = 0; j < kVec; ++j) sum += values[j];
      }
      mean = group_sum(sum) * params.rcp_length;
    }
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      if (!holds(lane + i * kLanes)) continue;
      float values[kVec];
      share.get(i, values);
#pragma unroll
      for (int j = 0; j < kVec; ++j) squares = fmaf(values[j] - mean, values[j] - mean, squares);
    }
    const float factor = rsqrtf(fmaf(group_sum(squares), params.rcp_length, params.eps));

#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int column = lane + i * kLanes;
      if (!holds(column)) continue;
      const int kept = Config::kKeepWeights ? i : 0;
      if constexpr (!Config::kKeepWeights) weights.load(params, 0, column);
      float values[kVec], weight[kVec];
      share.get(i, values);
      detail::stay_packed(weights.weight[kept]);
      unpack<typename Config::Weight, kVec>(weights.weight[kept], weight);
#pragma unroll
      for (int j = 0; j < kVec; ++j) values[j] = (values[j] - mean) * factor * (weight[j] + params.weight_offset);
      if constexpr (Config::kLayer) {
        float bias[kVec];
        detail::stay_packed(weights.bias[kept]);
        unpack<typename Config::Weight, kVec>(weights.bias[kept], bias);
#pragma unroll
        for (int j = 0; j < kVec; ++j) values[j] += bias[j];
      }
      if constexpr (Config::kQuantize) {
#pragma unroll
        for (int j = 0; j < kVec; ++j) values[j] *= rcp_scale;
        store<Out, kVec>(out + column * kVec, pack_saturated<Out, kVec>(values));
      } else {
        store<Out, kVec>(out + column * kVec, pack<Out, kVec>(values));
      }
    }
    if constexpr (Config::kOneRow) break;
  }
}

}  // namespace flashinfer
