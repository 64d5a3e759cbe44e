// SPDX-License-Identifier: Apache-2.0
// Elementwise operations of the cpu device; what each does is said in packages/core/src/native/binding.ts.
#pragma once
#include <cstdint>

#include "flashinfer/dtype.cuh"

namespace flashinfer::cpu {

void Cast(const void* src, DType src_dtype, void* dst, DType dst_dtype, int64_t count);

constexpr int kMaxCopyRank = 8;

/** Shape and strides in elements of `element_bytes` (1, 2, 4 or 8); strides may be 0 (src only) or negative. */
struct StridedCopyArgs {
  const void* src;
  void* dst;
  int element_bytes;
  int rank;
  int64_t shape[kMaxCopyRank];
  int64_t src_strides[kMaxCopyRank];
  int64_t dst_strides[kMaxCopyRank];
};
void StridedCopy(const StridedCopyArgs& args);

void Fill(void* dst, DType dtype, int64_t count, double value);
void FillInteger(void* dst, DType dtype, int64_t count, int64_t value);
void Arange(void* dst, DType dtype, int64_t count, double start, double step);

/** 0 where there are none. */
uint32_t MaxUint32(const uint32_t* values, int64_t count);

/** Floating dtypes only. */
void RandomUniform(void* dst, DType dtype, int64_t count, uint64_t seed);
void RandomNormal(void* dst, DType dtype, int64_t count, uint64_t seed);

}  // namespace flashinfer::cpu
