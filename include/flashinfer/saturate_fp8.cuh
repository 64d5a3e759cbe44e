// SPDX-License-Identifier: Apache-2.0
// Floats to fp8, where all that is too large becomes the largest finite value, infinities too; NaN stays NaN.
#pragma once
#include <flashinfer/vector.cuh>

namespace flashinfer {

template <class Out>
__device__ __forceinline__ float largest_fp8() {
  return DTypeOf<Out>::value == DType::kFloat8E4M3 ? 448.0f : 57344.0f;
}

/** Two values, saturated, `low` in bits 0..7 (PTX ISA 9.7.9.22, cvt.satfinite). */
template <class Out>
__device__ __forceinline__ uint32_t saturate_fp8x2(float low, float high) {
#if __CUDA_ARCH__ >= 890
  uint16_t pair;
  if constexpr (DTypeOf<Out>::value == DType::kFloat8E4M3) {
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;\n" : "=h"(pair) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;\n" : "=h"(pair) : "f"(high), "f"(low));
  }
  return pair;
#else
  const float largest = largest_fp8<Out>();
  // NaN passes both comparisons.
  low = low > largest ? largest : (low < -largest ? -largest : low);
  high = high > largest ? largest : (high < -largest ? -largest : high);
  return from_float<Out>(low).bits | static_cast<uint32_t>(from_float<Out>(high).bits) << 8;
#endif
}

template <class Out, int N>
__device__ __forceinline__ Vector<Out, N> pack_saturated(const float (&x)[N]) {
  Vector<Out, N> v;
#pragma unroll
  for (int i = 0; i < Vector<Out, N>::kWords; ++i) v.words[i] = 0;
#pragma unroll
  for (int i = 0; i < N; i += 2) {
    v.words[i / 4] |= saturate_fp8x2<Out>(x[i], i + 1 < N ? x[i + 1] : 0.0f) << (i % 4 * 8);
  }
  return v;
}

}  // namespace flashinfer
