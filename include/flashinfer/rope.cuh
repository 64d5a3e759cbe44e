// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings of q and k, before attention. A thread has one column of pairs and several heads of a token, so
// that it makes its angles once.
#pragma once
#include <flashinfer/find_request.cuh>
#include <flashinfer/pdl.cuh>
#include <flashinfer/rope_angle.cuh>
#include <flashinfer/vector.cuh>

namespace flashinfer {

/** Where positions come from. */
enum class RopePositions {
  /** Element `token` of params.positions. */
  kPosIds,
  /** Distance from the token's request's first row in params.indptr, plus the request's element of params.positions. */
  kIndptr,
};

/** Where sin and cos come from. */
enum class RopeAngles {
  /** rope_frequency of params.rcp_scale, log2_theta, smooth_a and smooth_b. */
  kFrequency,
  /** Row `position` of params.cache: rotary_dim / 2 cosines, then as many sines. */
  kCache,
};

/**
 * T: element type; Index: int32_t or int64_t of positions. VEC: elements an access, and pairs a thread rotates in a
 * head; HEADS: heads a thread. INTERLEAVE pairs elements 2d and 2d + 1, otherwise d and d + rotary_dim / 2. STREAM:
 * writes by store_once.
 */
template <class T_, class Index_, int VEC, int HEADS, bool INTERLEAVE, RopePositions POSITIONS, RopeAngles ANGLES,
          bool STREAM>
struct RopeConfig {
  using T = T_;
  using Index = Index_;
  static constexpr int kVec = VEC;
  static constexpr int kHeads = HEADS;
  static constexpr bool kInterleave = INTERLEAVE;
  static constexpr RopePositions kPositions = POSITIONS;
  static constexpr RopeAngles kAngles = ANGLES;
  static constexpr bool kStream = STREAM;
  /** Largest rotary dimension / 2. */
  static constexpr int kMaxPairs = 512;
};

namespace detail {

template <class Config, class Params>
__device__ __forceinline__ int64_t rope_position(const Params& params, uint32_t token) {
  using Index = typename Config::Index;
  const Index* positions = static_cast<const Index*>(params.positions);
  if constexpr (Config::kPositions == RopePositions::kPosIds) {
    return positions[token];
  } else {
    const Index* indptr = static_cast<const Index*>(params.indptr);
    const int request = find_request(indptr, params.batch_size, token);
    return static_cast<int64_t>(token) - indptr[request] + positions[request];
  }
}

/** sin and cos of the thread's pairs. */
template <class Config, class Params>
__device__ __forceinline__ void rope_angles(const Params& params, const RopeFrequency* frequencies, int64_t position,
                                            int pair, float (&s)[Config::kVec], float (&c)[Config::kVec]) {
  constexpr int kVec = Config::kVec;
  if constexpr (Config::kAngles == RopeAngles::kFrequency) {
#pragma unroll
    for (int i = 0; i < kVec; ++i) rope_sincos_far(frequencies[pair + i], position, s[i], c[i]);
  } else if (position >= 0 && position < params.cache_rows) {
    const float* row = static_cast<const float*>(params.cache) + position * params.cache_stride + pair;
    unpack<float, kVec>(load_shared_by_all<float, kVec>(row), c);
    unpack<float, kVec>(load_shared_by_all<float, kVec>(row + params.rotary_dim / 2), s);
  } else {
    // The host cannot see positions; a NaN shows, memory behind the cache would not.
#pragma unroll
    for (int i = 0; i < kVec; ++i) s[i] = c[i] = __int_as_float(0x7fc00000);
  }
}

/** A head of q or k: its first element, where it is read and written. */
template <class T>
struct RopeHead {
  const T* from;
  T* to;
};

template <class T, class Params>
__device__ __forceinline__ RopeHead<T> rope_head(const Params& params, uint32_t token, int head) {
  if (head < params.q_heads) {
    return {static_cast<const T*>(params.q) + token * params.q_stride_n + head * params.q_stride_h,
            static_cast<T*>(params.q_out) + token * params.q_out_stride_n + head * params.q_out_stride_h};
  }
  head -= params.q_heads;
  return {static_cast<const T*>(params.k) + token * params.k_stride_n + head * params.k_stride_h,
          static_cast<T*>(params.k_out) + token * params.k_out_stride_n + head * params.k_out_stride_h};
}

template <class Config>
__device__ __forceinline__ void rope_store(typename Config::T* to, const Vector<typename Config::T, Config::kVec>& v) {
  if constexpr (Config::kStream) {
    store_once<typename Config::T, Config::kVec>(to, v);
  } else {
    store<typename Config::T, Config::kVec>(to, v);
  }
}

}  // namespace detail

/**
 * Rotates the first rotary_dim elements of every head and copies params.tail accesses of the rest (0 in place).
 * params: columns = rotary_dim / 2 / VEC; groups = heads of q and k / HEADS, rounded up; tokens_per_block tokens, whose
 * columns * groups items fit into a block, or 1, whose items are spread along the grid's y.
 */
template <class Config, class Params>
__device__ __forceinline__ void rope(const Params& params) {
  using T = typename Config::T;
  constexpr int kVec = Config::kVec, kHeads = Config::kHeads;
  const uint32_t columns = params.columns, groups = params.groups, items = columns * groups;
  const uint32_t index = blockIdx.y * blockDim.x + threadIdx.x;
  const uint32_t local_token = index / items, item = index - local_token * items;
  const uint32_t group = item / columns, column = item - group * columns;
  const uint32_t tokens = params.tokens, tokens_per_block = params.tokens_per_block;
  const int heads = params.q_heads + params.k_heads;
  // Where the thread's two accesses are in a head.
  const int first = Config::kInterleave ? column * 2 * kVec : column * kVec;
  const int second = Config::kInterleave ? first + kVec : first + params.rotary_dim / 2;

  const RopeFrequency* frequencies = nullptr;
  if constexpr (Config::kAngles == RopeAngles::kFrequency) {
    __shared__ RopeFrequency table[Config::kMaxPairs];
    for (int d = threadIdx.x; d < params.rotary_dim / 2; d += blockDim.x) {
      table[d] =
          rope_frequency(d, params.rotary_dim, params.rcp_scale, params.log2_theta, params.smooth_a, params.smooth_b);
    }
    __syncthreads();
    frequencies = table;
  }
  wait_for_previous_grid();
  launch_next_grid();
  if (local_token >= tokens_per_block) return;

  for (uint32_t token = blockIdx.x * tokens_per_block + local_token; token < tokens;
       token += gridDim.x * tokens_per_block) {
    Vector<T, kVec> low[kHeads], high[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int head = group + h * groups;
      if (head >= heads) continue;
      const T* from = detail::rope_head<T>(params, token, head).from;
      low[h] = load_once<T, kVec>(from + first);
      high[h] = load_once<T, kVec>(from + second);
    }
    float s[kVec], c[kVec];
    detail::rope_angles<Config>(params, frequencies, detail::rope_position<Config>(params, token), column * kVec, s, c);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int head = group + h * groups;
      if (head >= heads) continue;
      const detail::RopeHead<T> at = detail::rope_head<T>(params, token, head);
      float x[2][kVec], y[2][kVec];
      unpack<T, kVec>(low[h], x[0]);
      unpack<T, kVec>(high[h], x[1]);
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        // Elements of pair i among the 2 * VEC that the thread holds.
        const int a = Config::kInterleave ? 2 * i : i, b = Config::kInterleave ? 2 * i + 1 : kVec + i;
        const float x_a = x[a / kVec][a % kVec], x_b = x[b / kVec][b % kVec];
        y[a / kVec][a % kVec] = x_a * c[i] - x_b * s[i];
        y[b / kVec][b % kVec] = x_b * c[i] + x_a * s[i];
      }
      detail::rope_store<Config>(at.to + first, pack<T, kVec>(y[0]));
      detail::rope_store<Config>(at.to + second, pack<T, kVec>(y[1]));
      for (int t = column; t < params.tail; t += columns) {
        const int offset = params.rotary_dim + t * kVec;
        detail::rope_store<Config>(at.to + offset, load_once<T, kVec>(at.from + offset));
      }
    }
  }
}

}  // namespace flashinfer
