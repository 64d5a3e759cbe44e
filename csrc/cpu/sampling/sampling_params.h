// SPDX-License-Identifier: Apache-2.0
// The arguments of one call; those of NativeCpu's `sampling`.
#pragma once
#include <cstdint>

#include "flashinfer/dtype.cuh"

namespace flashinfer::cpu {

enum class Kind { kSoftmax, kSampleProbs, kSampleLogits, kRenormProbs, kMaskLogits };

struct SamplingParams {
  Kind kind;
  DType dtype;
  const void* x;
  void* out;
  bool* valid;
  const int32_t *indices, *top_k;
  const float *temperature, *top_p, *min_p;
  const uint64_t *seed, *offset;
  int64_t x_stride, rows, out_rows, vocab;
  int filters, top_k_value;
  float temperature_value, top_p_value, min_p_value;
  uint64_t seed_value, offset_value;
  bool seed_per_row, offset_per_row;
};

template <class V>
V PerRow(const V* values, V value, int64_t row) {
  return values != nullptr ? values[row] : value;
}

}  // namespace flashinfer::cpu
