// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings of q and k, before attention. A thread has one column of pairs and several heads of a token, so
// that it makes its angles once.
#pragma once
#include <flashinfer/divide.cuh>
#include <flashinfer/find_request.cuh>
#include <flashinfer/pdl.cuh>
#include <flashinfer/prefetch.cuh>
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
  /** rope_frequency_of multiples of params.log2_step, with rcp_scale, smooth_a and smooth_b. */
  kFrequency,
  /** Row `position` of params.cache: rotary_dim / 2 cosines, then as many sines. */
  kCache,
};

/**
 * T: element type; Index: int32_t or int64_t of positions. VEC: elements an access, and pairs a thread rotates in a
 * head; HEADS: heads a thread, a divisor of those of q and k together. INTERLEAVE pairs elements 2d and 2d + 1, otherwise
 * d and d + rotary_dim / 2. IN_PLACE: q_out and k_out are q and k. AHEAD: blocks ask for later tokens of a table.
 */
template <class T_, class Index_, int VEC, int HEADS, bool INTERLEAVE, RopePositions POSITIONS, RopeAngles ANGLES,
          bool IN_PLACE, bool AHEAD>
struct RopeConfig {
  using T = T_;
  using Index = Index_;
  static constexpr int kVec = VEC;
  static constexpr int kHeads = HEADS;
  static constexpr bool kInterleave = INTERLEAVE;
  static constexpr RopePositions kPositions = POSITIONS;
  static constexpr RopeAngles kAngles = ANGLES;
  static constexpr bool kInPlace = IN_PLACE;
  static constexpr bool kAhead = AHEAD;
  /** Largest rotary dimension / 2. */
  static constexpr int kMaxPairs = 512;
};

namespace detail {

/** Stays ahead of the loads that are written behind it. */
template <class Index>
__device__ __forceinline__ int64_t load_index(const Index* address) {
  const Vector<Index, 1> v = load_once<Index, 1>(address);
  if constexpr (sizeof(Index) == 4) {
    return static_cast<int32_t>(v.words[0]);
  } else {
    return static_cast<int64_t>(static_cast<uint64_t>(v.words[1]) << 32 | v.words[0]);
  }
}

template <class Config, class Params>
__device__ __forceinline__ int64_t rope_position(const Params& params, uint32_t token) {
  using Index = typename Config::Index;
  const Index* positions = static_cast<const Index*>(params.positions);
  if constexpr (Config::kPositions == RopePositions::kPosIds) {
    return load_index(positions + token);
  } else {
    const Index* indptr = static_cast<const Index*>(params.indptr);
    // In decode, and for prompts of one length, the guess is right; then nothing waits for a search.
    const int batch_size = params.batch_size, guess = guess_request(token, params.requests_per_token, batch_size);
    int64_t first = load_index(indptr + guess), offset = load_index(positions + guess);
    const int64_t next = load_index(indptr + guess + 1), row = token;
    if ((row < first && guess > 0) || (row >= next && guess < batch_size - 1)) {
      const int request = find_request(indptr, batch_size, token);
      first = indptr[request], offset = positions[request];
    }
    return row - first + offset;
  }
}

/** sin and cos of N pairs. */
template <class Config, int N, class Params>
__device__ __forceinline__ void rope_angles(const Params& params, const RopeFrequency* frequencies, int64_t position,
                                            int pair, float (&s)[N], float (&c)[N]) {
  if constexpr (Config::kAngles == RopeAngles::kFrequency) {
    // A branch for all pairs: with one each, launches of one token take 0.5 us longer, and requests of 8192 tokens 62 us
    // for 50 (H200). Four heads a thread, for which registers are few, want one each in graphs: 44.2 us for 46.2.
    constexpr int kTogether = Config::kHeads > 2 ? 1 : N;
#pragma unroll
    for (int i = 0; i < N; i += kTogether) rope_sincos<kTogether>(frequencies + pair + i, position, s + i, c + i);
  } else if (position >= 0 && position < params.cache_rows) {
    const float* row = static_cast<const float*>(params.cache) + position * params.cache_stride + pair;
    unpack<float, N>(load_shared_by_all<float, N>(row), c);
    unpack<float, N>(load_shared_by_all<float, N>(row + params.rotary_dim / 2), s);
  } else {
    // The host cannot see positions; a NaN shows, memory behind the cache would not.
#pragma unroll
    for (int i = 0; i < N; ++i) s[i] = c[i] = __int_as_float(0x7fc00000);
  }
}

/** The first element of a head of q or k, where it is read. */
template <class T, class Params>
__device__ __forceinline__ T* rope_source(const Params& params, uint32_t token, int head) {
  const bool is_q = head < params.q_heads;
  if (!is_q) head -= params.q_heads;
  return static_cast<T*>(is_q ? params.q : params.k) + token * (is_q ? params.q_stride_n : params.k_stride_n) +
         head * (is_q ? params.q_stride_h : params.k_stride_h);
}

/** Where it is written. */
template <class T, class Params>
__device__ __forceinline__ T* rope_destination(const Params& params, uint32_t token, int head) {
  const bool is_q = head < params.q_heads;
  if (!is_q) head -= params.q_heads;
  return static_cast<T*>(is_q ? params.q_out : params.k_out) +
         token * (is_q ? params.q_out_stride_n : params.k_out_stride_n) +
         head * (is_q ? params.q_out_stride_h : params.k_out_stride_h);
}

/**
 * Asks for what a later block reads: the heads of a token, those of q and those of k together, and its angles. In place,
 * blocks may still write other tokens' heads in the same lines: L2 is where writes and reads meet, so a line that came early
 * is no older than any other.
 */
template <class Config, class Params>
__device__ __forceinline__ void prefetch_token(const Params& params, uint32_t token) {
  using T = typename Config::T;
  prefetch_l2(static_cast<const T*>(params.q) + token * params.q_stride_n, params.q_ahead_bytes);
  prefetch_l2(static_cast<const T*>(params.k) + token * params.k_stride_n, params.k_ahead_bytes);
  const int64_t position = rope_position<Config>(params, token);
  if (position >= 0 && position < params.cache_rows) {
    prefetch_l2(static_cast<const float*>(params.cache) + position * params.cache_stride, params.rotary_dim * 4);
  }
}

/** Rotates one column of pairs in the thread's heads of a token. */
template <class Config, class Params>
__device__ __forceinline__ void rope_token(const Params& params, const RopeFrequency* frequencies, uint32_t token,
                                           uint32_t group, uint32_t column) {
  using T = typename Config::T;
  constexpr int kVec = Config::kVec, kHeads = Config::kHeads;
  // Where the thread's two accesses are in a head: apart, so that those of a warp lie together. Neighbours of few tokens
  // would wait for angles in two places; with frequencies it was not measured.
  constexpr bool kApart = !Config::kInterleave || (kVec > 1 && Config::kAhead);
  const int first = kApart ? column * kVec : column * 2 * kVec;
  const int second = kApart ? first + params.rotary_dim / 2 : first + kVec;
  // A position id is asked for first, as angles wait for it; a search for the request would keep the heads waiting.
  int64_t position = 0;
  if constexpr (Config::kPositions == RopePositions::kPosIds) position = rope_position<Config>(params, token);
  Vector<T, kVec> low[kHeads], high[kHeads];
  T* from = nullptr;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    from = rope_source<T>(params, token, group + h * params.groups);
    low[h] = load_once<T, kVec>(from + first);
    high[h] = load_once<T, kVec>(from + second);
  }
  if constexpr (Config::kAhead) {
    const uint32_t later = token + params.ahead, tokens = params.tokens;
    if (group == 0 && column == 0 && later < tokens) prefetch_token<Config>(params, later);
  }
  if constexpr (Config::kPositions == RopePositions::kIndptr) position = rope_position<Config>(params, token);
  float s[kVec], c[kVec];
  if constexpr (Config::kInterleave && kApart) {
    constexpr int kHalf = kVec / 2;
    float half_s[2][kHalf], half_c[2][kHalf];
    rope_angles<Config>(params, frequencies, position, first / 2, half_s[0], half_c[0]);
    rope_angles<Config>(params, frequencies, position, second / 2, half_s[1], half_c[1]);
#pragma unroll
    for (int i = 0; i < kVec; ++i) s[i] = half_s[i / kHalf][i % kHalf], c[i] = half_c[i / kHalf][i % kHalf];
  } else {
    rope_angles<Config>(params, frequencies, position, column * kVec, s, c);
  }
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
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
    const int head = group + h * params.groups;
    // Of several, addresses would take the registers; of one, they are known.
    if constexpr (kHeads > 1) from = rope_source<T>(params, token, head);
    T* to = Config::kInPlace ? from : rope_destination<T>(params, token, head);
    store<T, kVec>(to + first, pack<T, kVec>(y[0]));
    store<T, kVec>(to + second, pack<T, kVec>(y[1]));
    if constexpr (!Config::kInPlace) {
      for (int t = column; t < params.tail; t += params.columns) {
        const int offset = params.rotary_dim + t * kVec;
        store<T, kVec>(to + offset, load_once<T, kVec>(from + offset));
      }
    }
  }
}

}  // namespace detail

/**
 * Rotates the first rotary_dim elements of every head and copies params.tail accesses of the rest, unless in place.
 * params: columns = rotary_dim / 2 / VEC; groups = heads of q and k / HEADS; items = columns * groups;
 * tokens_per_block tokens, whose items fit into a block, or 1, whose items are spread along the grid's y; what divide()
 * takes for divisors. With a table of angles, every token has its block. ahead: tokens from a block's own to those it asks
 * for, as many as there are for none; q_ahead_bytes and k_ahead_bytes: of a token.
 */
template <class Config, class Params>
__device__ __forceinline__ void rope(const Params& params) {
  const uint32_t columns = params.columns, items = params.items;
  const uint32_t index = blockIdx.y * blockDim.x + threadIdx.x;
  const uint32_t local_token = divide(index, items, params.items_multiplier), item = index - local_token * items;
  const uint32_t group = divide(item, columns, params.columns_multiplier), column = item - group * columns;
  const uint32_t tokens = params.tokens, tokens_per_block = params.tokens_per_block;
  const uint32_t token = blockIdx.x * tokens_per_block + local_token;

  if constexpr (Config::kAngles == RopeAngles::kCache) {
    wait_for_previous_grid();
    launch_next_grid();
    if (local_token < tokens_per_block && token < tokens) {
      detail::rope_token<Config>(params, nullptr, token, group, column);
    }
  } else {
    __shared__ RopeFrequency frequencies[Config::kMaxPairs];
    for (int d = threadIdx.x; d < params.rotary_dim / 2; d += blockDim.x) {
      frequencies[d] = rope_frequency_of(d * params.log2_step, params.rcp_scale, params.smooth_a, params.smooth_b);
    }
    __syncthreads();
    wait_for_previous_grid();
    launch_next_grid();
    if (local_token >= tokens_per_block) return;
    for (uint32_t t = token; t < tokens; t += gridDim.x * tokens_per_block) {
      detail::rope_token<Config>(params, frequencies, t, group, column);
    }
  }
}

}  // namespace flashinfer
