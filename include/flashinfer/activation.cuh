// SPDX-License-Identifier: Apache-2.0
// Gated activations of feed-forward layers: out = activation(gate) * up, where x holds [gate, up] in each row.
#pragma once
#include <flashinfer/divide.cuh>
#include <flashinfer/pdl.cuh>
#include <flashinfer/vector.cuh>

namespace flashinfer {

/** 1 / (1 + e^-x), the relative error of which grows with |x| as float32 exponents do: 1e-5 at -88. */
__device__ __forceinline__ float sigmoid(float x) { return reciprocal_approx(1.0f + exp2_approx(-kLog2e * x)); }

struct Silu {
  static __device__ __forceinline__ float apply(float x) { return x * sigmoid(x); }
};

/** x Φ(x), Φ the normal distribution function. */
struct Gelu {
  static __device__ __forceinline__ float apply(float x) {
    // Φ(-a) = e^(-a²/2) t P(t), t = 1 / (1 + 0.31 a), P fitted in float64 for the least relative error over [0, 14],
    // 4e-7 in float32; the exponential is 0 from there on. Unlike 1 + erf, nothing is lost to cancellation.
    const float a = fminf(fabsf(x), 20.0f);
    const float t = reciprocal_approx(fmaf(0.31f, a, 1.0f));
    float p = fmaf(0.035840824246406555f, t, -0.14160092175006866f);
    p = fmaf(p, t, 0.15506163239479065f);
    p = fmaf(p, t, -0.014897680841386318f);
    p = fmaf(p, t, 0.11010709404945374f);
    p = fmaf(p, t, 0.10777202993631363f);
    p = fmaf(p, t, 0.12406018376350403f);
    p = fmaf(p, t, 0.12365692108869553f);
    const float tail = p * t * exp2_approx(-0.5f * kLog2e * a * a);
    return x * (x > 0.0f ? 1.0f - tail : tail);
  }
};

/** 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/π) (x + 0.044715 x³): no cancellation on the negative side either. */
struct GeluTanh {
  static __device__ __forceinline__ float apply(float x) {
    return x * sigmoid(1.5957691216057308f * x * fmaf(0.044715f * x, x, 1.0f));
  }
};

/** VEC: elements an access, of which a thread has one of each half; COLS threads share a row, ROWS rows a block. */
template <class T_, class Activation_, int VEC, int COLS, int ROWS>
struct ActivationConfig {
  using T = T_;
  using Activation = Activation_;
  static constexpr int kVec = VEC;
  static constexpr int kCols = COLS;
  static constexpr int kRows = ROWS;
};

/**
 * params: out, x, out_stride and x_stride between rows in elements, rows, vectors = half a row of x / VEC, chunks =
 * blocks along a row, and what divide() takes for them. out may be a half of x: a thread reads all that it overwrites
 * first.
 */
template <class Config, class Params>
__device__ __forceinline__ void act_and_mul(const Params& params) {
  using T = typename Config::T;
  constexpr int kVec = Config::kVec, kCols = Config::kCols;
  const uint32_t chunks = params.chunks;
  const uint32_t tile = divide(blockIdx.x, chunks, params.chunks_multiplier), chunk = blockIdx.x - tile * chunks;
  const uint32_t row = tile * Config::kRows + threadIdx.x / kCols;
  const int column = static_cast<int>(chunk) * kCols + static_cast<int>(threadIdx.x) % kCols;
  const T* gate = static_cast<const T*>(params.x) + row * params.x_stride + column * kVec;
  const T* up = gate + static_cast<int64_t>(params.vectors) * kVec;
  T* out = static_cast<T*>(params.out) + row * params.out_stride + column * kVec;

  wait_for_previous_grid();
  launch_next_grid();
  if (column >= params.vectors || (Config::kRows > 1 && row >= static_cast<uint32_t>(params.rows))) return;
  float x[kVec], y[kVec];
  const Vector<T, kVec> gates = load_once<T, kVec>(gate), ups = load_once<T, kVec>(up);
  unpack<T, kVec>(gates, x);
  unpack<T, kVec>(ups, y);
#pragma unroll
  for (int i = 0; i < kVec; ++i) x[i] = Config::Activation::apply(x[i]) * y[i];
  store<T, kVec>(out, pack<T, kVec>(x));
}

}  // namespace flashinfer
