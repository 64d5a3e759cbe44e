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
      // Without a test in it the compiler can vectorise the loop.
      for (int n = 0; n < count; ++n) logits[n] = transformed(row, logits[n], first_key + n);
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
