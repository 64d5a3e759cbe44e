// SPDX-License-Identifier: Apache-2.0
// Float32 functions on the special function unit, and the constants attention shares.
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;
constexpr float kTwoPi = 6.283185307179586f;

__device__ __forceinline__ float negative_infinity() { return __int_as_float(0xff800000); }

/** 2^x; 2 ulp, subnormal results flushed (ex2.approx.ftz, PTX ISA 9.7.3.21). */
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float log2_approx(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

/** tanh(x) with absolute error near 1e-7; tanh.approx.f32 errs by 5e-4, which soft caps of 50 turn into 0.02. */
__device__ __forceinline__ float tanh_precise(float x) {
  const float e = exp2_approx(2.0f * kLog2e * fabsf(x));
  return copysignf(1.0f - 2.0f * reciprocal_approx(e + 1.0f), x);
}

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

/** Maximum that keeps NaN from either side, so that a NaN input shows in the output. */
__device__ __forceinline__ float max_nan(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float y;
  asm("max.NaN.f32 %0, %1, %2;\n" : "=f"(y) : "f"(a), "f"(b));
  return y;
#else
  return (a != a) ? a : ((b != b) ? b : fmaxf(a, b));
#endif
}

}  // namespace flashinfer
