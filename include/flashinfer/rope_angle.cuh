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

/**
 * theta^(-2d/D) * rcp_scale for pair `d` of the rotary dimension D. Llama 3.1 scales low frequencies f only: a share
 * f * smooth_a + smooth_b, within [0, 1], is not scaled.
 */
__device__ __forceinline__ RopeFrequency rope_frequency(int d, int rotary_dim, double rcp_scale, double log2_theta,
                                                        double smooth_a = 0.0, double smooth_b = 0.0) {
  // Computed once a thread and pair, so float64 is affordable where float32 would lose the low part.
  const double base = exp2(-2.0 * d / rotary_dim * log2_theta);
  const double smooth = fmin(fmax(base * smooth_a + smooth_b, 0.0), 1.0);
  const double turns = base * (smooth + (1.0 - smooth) * rcp_scale) * 0.15915494309189535;
  RopeFrequency f;
  f.high = static_cast<float>(turns);
  f.low = static_cast<float>(turns - static_cast<double>(f.high));
  return f;
}

__device__ __forceinline__ void rope_sincos(RopeFrequency f, int position, float& s, float& c) {
  const float p = static_cast<float>(position);  // exact below 2^24
  const float turns = p * f.high;
  const float residue = fmaf(p, f.low, fmaf(p, f.high, -turns));
  const float angle = ((turns - rintf(turns)) + residue) * kTwoPi;  // within [-pi, pi]: the fast forms are accurate
  s = __sinf(angle);
  c = __cosf(angle);
}

/** As rope_sincos, at any position; beyond 2^24 the 49 bits of the frequency show. */
__device__ __forceinline__ void rope_sincos_far(RopeFrequency f, int64_t position, float& s, float& c) {
  if (position >= -(1 << 24) && position <= (1 << 24)) return rope_sincos(f, static_cast<int>(position), s, c);
  const double turns = static_cast<double>(position) * (static_cast<double>(f.high) + static_cast<double>(f.low));
  const float angle = static_cast<float>(turns - rint(turns)) * kTwoPi;
  s = __sinf(angle);
  c = __cosf(angle);
}

}  // namespace flashinfer
