// SPDX-License-Identifier: Apache-2.0
// Angles of rotary embeddings, accurate to float32 at positions of millions.
#pragma once
#include <flashinfer/math.cuh>

namespace flashinfer {

/**
 * Frequency of a pair in turns a position, as an unevaluated sum of two floats: near position 1e6 a single float32
 * product would be off by hundredths of a turn.
 */
struct RopeFrequency {
  float high, low;
};

/** 2^exponent * rcp_scale. Llama 3.1 scales low frequencies f only: a share f * smooth_a + smooth_b, within [0, 1], is not scaled. */
__device__ __forceinline__ RopeFrequency rope_frequency_of(double exponent, double rcp_scale, double smooth_a,
                                                           double smooth_b) {
  // Computed once a thread and pair, so float64 is affordable where float32 would lose the low part.
  const double base = exp2(exponent);
  const double smooth = fmin(fmax(base * smooth_a + smooth_b, 0.0), 1.0);
  const double turns = base * (smooth + (1.0 - smooth) * rcp_scale) * 0.15915494309189535;
  RopeFrequency f;
  f.high = static_cast<float>(turns);
  f.low = static_cast<float>(turns - static_cast<double>(f.high));
  return f;
}

/** theta^(-2d/D) * rcp_scale for pair `d` of the rotary dimension D. */
__device__ __forceinline__ RopeFrequency rope_frequency(int d, int rotary_dim, double rcp_scale, double log2_theta) {
  return rope_frequency_of(-2.0 * d / rotary_dim * log2_theta, rcp_scale, 0.0, 0.0);
}

/** Turns of a pair at a position of up to 2^24, in which float32 is exact; within half a turn. */
__device__ __forceinline__ float rope_turns(RopeFrequency f, float position) {
  const float turns = position * f.high;
  const float residue = fmaf(position, f.low, fmaf(position, f.high, -turns));
  return (turns - rintf(turns)) + residue;
}

/** As rope_turns, at any position: all 49 bits of the frequency show. */
__device__ __forceinline__ float rope_turns_far(RopeFrequency f, double position) {
  const double turns = position * (static_cast<double>(f.high) + static_cast<double>(f.low));
  return static_cast<float>(turns - rint(turns));
}

/** Of a fraction of a turn: within [-pi, pi] the fast forms are accurate. */
__device__ __forceinline__ void rope_sincos_of(float turns, float& s, float& c) {
  const float angle = turns * kTwoPi;
  s = __sinf(angle);
  c = __cosf(angle);
}

__device__ __forceinline__ void rope_sincos(RopeFrequency f, int position, float& s, float& c) {
  rope_sincos_of(rope_turns(f, static_cast<float>(position)), s, c);
}

/** sin and cos of N pairs at any position. */
template <int N>
__device__ __forceinline__ void rope_sincos(const RopeFrequency* f, int64_t position, float* s, float* c) {
  float turns[N];
  if (position >= -(1 << 24) && position <= (1 << 24)) {
    const float near = static_cast<float>(static_cast<int>(position));
#pragma unroll
    for (int i = 0; i < N; ++i) turns[i] = rope_turns(f[i], near);
  } else {
    const double far = static_cast<double>(position);
#pragma unroll
    for (int i = 0; i < N; ++i) turns[i] = rope_turns_far(f[i], far);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) rope_sincos_of(turns[i], s[i], c[i]);
}

}  // namespace flashinfer
