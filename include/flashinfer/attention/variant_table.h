// SPDX-License-Identifier: Apache-2.0
// What the library of a custom variant for the cpu device exports. Attention calls it for a row of one head at a time, so
// that a call through a pointer serves many elements.
#pragma once
#include <flashinfer/attention/variant_hooks.cuh>

namespace flashinfer {

/** Raised when anything below changes; the addon refuses a library of another number. */
constexpr uint32_t kVariantAbi = 2;

/** One query row of one head. `fields` is the struct of the variant's params. */
struct VariantRow {
  VariantRequest request;
  int qo_idx, qo_head, kv_head;
  const void* fields;
};

/** What the library exports as `flashinfer_variant`. Functions of hooks that a variant does not have are null. */
struct VariantTable {
  uint32_t abi;
  uint32_t uses_softmax;
  /** Transforms `count` elements of the query from element 0 on, in place. */
  void (*transform_query)(const VariantRow& row, float* q, int count);
  /**
   * Turns the products q·k of up to 64 keys from `first_key` on into logits (without softmax: weights), in place, where
   * the bit of `visible` is set. Returns the bits of the keys that are still visible; the others are undefined.
   */
  uint64_t (*transform_logits)(const VariantRow& row, float* logits, int first_key, int count, uint64_t visible);
  /** Transforms `count` elements of the output from element 0 on, in place; `lse` is the row's, base 2. */
  void (*transform_output)(const VariantRow& row, float* output, int count, float lse);
};

}  // namespace flashinfer
