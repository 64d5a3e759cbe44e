// SPDX-License-Identifier: Apache-2.0
// The row functions of a custom variant's library for the cpu device; the generated source instantiates them. Compiled
// by the host's compiler, after <math.h>.
#pragma once
#include <flashinfer/attention/variant_table.h>

// Structs that were written for kernels.
#define __device__
#define __host__
#define __forceinline__
#include <flashinfer/attention/variant_struct.cuh>

namespace flashinfer {

// The functions and constants of math.cuh that hooks may use; without branches, so that loops over them vectorise.

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

/** 2^x by the polynomial of csrc/cpu/isa/vec_math.h, for any x: relative error below 1.5e-7. */
inline float exp2_approx(float x) {
  x = x < -252.0f ? -252.0f : x > 252.0f ? 252.0f : x;
  const float n = rintf(x), f = x - n;
  float p = 1.5353360504377633e-4f * f + 1.3398875016719103e-3f;
  p = p * f + 9.6184369176626205e-3f;
  p = p * f + 5.5503323674201965e-2f;
  p = p * f + 2.4022647738456726e-1f;
  p = p * f + 6.9314718246459961e-1f;
  // Half of the exponent at a time: 2^n alone may be out of range where the result is not.
  const int exponent = static_cast<int>(n), half = exponent >> 1;
  const float low = bits_as_float(static_cast<uint32_t>(half + 127) << 23);
  const float high = bits_as_float(static_cast<uint32_t>(exponent - half + 127) << 23);
  return (p * f + 1.0f) * low * high;
}
inline float log2_approx(float x) { return log2f(x); }
inline float reciprocal_approx(float x) { return 1.0f / x; }
inline float tanh_precise(float x) {
  return copysignf(1.0f - 2.0f / (exp2_approx(2.0f * kLog2e * fabsf(x)) + 1.0f), x);
}

template <class Hooks, class Fields>
struct VariantRows {
  static const Fields& fields(const VariantRow& row) { return *static_cast<const Fields*>(row.fields); }

  static void transform_query(const VariantRow& row, float* q, int count) {
    for (int d = 0; d < count; ++d) {
      q[d] = Hooks::transform_query(fields(row), row.request, {row.qo_idx, row.qo_head, row.kv_head, d}, q[d]);
    }
  }

  static uint64_t transform_logits(const VariantRow& row, float* logits, int first_key, int count, uint64_t visible) {
    if (!Hooks::kMasksLogits && visible == ~uint64_t{0} >> (64 - count)) {
      // Neither a test in the loop nor an alias of what it reads: the compiler can vectorise it.
      const Fields values = fields(row);
      VariantRow copy = row;
      copy.fields = &values;
      for (int n = 0; n < count; ++n) logits[n] = transformed(copy, logits[n], first_key + n);
      return visible;
    }
    uint64_t seen = visible;
    for (int n = 0; n < count; ++n) {
      if ((visible >> n & 1) == 0) continue;
      if constexpr (Hooks::kMasksLogits) {
        if (!Hooks::mask_logits(fields(row), row.request, {row.qo_idx, first_key + n, row.qo_head, row.kv_head})) {
          seen &= ~(uint64_t{1} << n);
          continue;
        }
      }
      logits[n] = transformed(row, logits[n], first_key + n);
    }
    return seen;
  }

  static float transformed(const VariantRow& row, float product, int kv_idx) {
    if constexpr (Hooks::kTransformsLogits) {
      const LogitPosition at{row.qo_idx, kv_idx, row.qo_head, row.kv_head};
      return Hooks::transform_logits(fields(row), row.request, at, product);
    } else {
      return product * row.request.sm_scale;
    }
  }

  static void transform_output(const VariantRow& row, float* output, int count, float lse) {
    for (int d = 0; d < count; ++d) {
      output[d] =
          Hooks::transform_output(fields(row), row.request, {row.qo_idx, row.qo_head, row.kv_head, d}, output[d], lse);
    }
  }
};

template <class Hooks, class Fields>
constexpr VariantTable variant_table() {
  using Rows = VariantRows<Hooks, Fields>;
  VariantTable table{kVariantAbi, Hooks::kUsesSoftmax, nullptr, nullptr, nullptr};
  if constexpr (Hooks::kTransformsQuery) table.transform_query = Rows::transform_query;
  if constexpr (Hooks::kTransformsLogits || Hooks::kMasksLogits || !Hooks::kUsesSoftmax) {
    table.transform_logits = Rows::transform_logits;
  }
  if constexpr (Hooks::kTransformsOutput) table.transform_output = Rows::transform_output;
  return table;
}

}  // namespace flashinfer
