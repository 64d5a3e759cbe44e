// SPDX-License-Identifier: Apache-2.0
// What may differ between attention operators: which keys a query sees and what happens to a logit.
// A variant is a struct of static hooks; kernels never branch on an option that the variant does not have.
#pragma once
#include <flashinfer/math.cuh>

namespace flashinfer {

// The values are those of FlashInfer's MaskMode and PosEncodingMode, and of packages/core/src/attention/options.ts.
enum class MaskMode : int { kNone = 0, kCausal = 1, kCustom = 2 };
enum class PosEncodingMode : int { kNone = 0, kRopeLlama = 1, kAlibi = 2 };

/** Where a logit stands: query row and head, key row and head. */
struct LogitPosition {
  int qo_idx, kv_idx, qo_head, kv_head;
};

/**
 * The built-in variants: ALiBi bias (arXiv:2108.12409), then soft cap (arXiv:2408.00118).
 * `Params` must carry `sm_scale`, and `alibi_slopes` or `logits_soft_cap` where the variant uses them.
 */
template <bool ALIBI, bool SOFT_CAP>
struct DefaultVariant {
  /** False lets kernels fold `sm_scale` into the exponential, which saves one multiplication a logit. */
  static constexpr bool kTransformsLogits = ALIBI || SOFT_CAP;

  /** Raw q·k → logit in natural units. Only called where kTransformsLogits. */
  template <class Params>
  static __device__ __forceinline__ float transform(const Params& params, float qk, const LogitPosition& at) {
    float logit = qk * params.sm_scale;
    if constexpr (ALIBI) {
      const float slope = static_cast<const float*>(params.alibi_slopes)[at.qo_head];
      logit = fmaf(slope, static_cast<float>(at.kv_idx - at.qo_idx), logit);
    }
    if constexpr (SOFT_CAP) {
      logit = params.logits_soft_cap * tanh_precise(logit * params.rcp_logits_soft_cap);
    }
    return logit;
  }
};

/** Visibility of keys; every test is on absolute rows of one request. */
template <MaskMode MODE, bool WINDOW>
struct Visibility {
  static constexpr bool kMasks = MODE != MaskMode::kNone || WINDOW;

  /** Last key row `qo_idx` may see under the causal rule, which aligns the ends of queries and keys. */
  template <class Params>
  static __device__ __forceinline__ int diagonal(const Params& params, int qo_idx) {
    return qo_idx + params.kv_len - params.qo_len;
  }

  template <class Params>
  static __device__ __forceinline__ bool visible(const Params& params, int qo_idx, int kv_idx) {
    bool seen = kv_idx < params.kv_len;
    if constexpr (MODE == MaskMode::kCausal) seen = seen && kv_idx <= diagonal(params, qo_idx);
    if constexpr (WINDOW) seen = seen && kv_idx >= diagonal(params, qo_idx) - params.window_left;
    if constexpr (MODE == MaskMode::kCustom) {
      if (seen && qo_idx < params.qo_len) {
        const int64_t bit = static_cast<int64_t>(qo_idx) * params.kv_len + kv_idx;
        seen = (static_cast<const uint8_t*>(params.custom_mask)[bit >> 3] >> (bit & 7)) & 1;
      }
    }
    return seen;
  }

  /** Keys [first, end) that some row in [first_row, last_row] may see; empty when first >= end. */
  template <class Params>
  static __device__ __forceinline__ void key_range(const Params& params, int first_row, int last_row, int& first,
                                                   int& end) {
    first = 0;
    end = params.kv_len;
    if constexpr (MODE == MaskMode::kCausal) end = min(end, max(diagonal(params, last_row) + 1, 0));
    if constexpr (WINDOW) first = max(diagonal(params, first_row) - params.window_left, 0);
  }

  /** True when every row in [first_row, last_row] sees every key in [first, end): no per-logit test is needed. */
  template <class Params>
  static __device__ __forceinline__ bool all_visible(const Params& params, int first_row, int last_row, int first,
                                                     int end) {
    bool all = end <= params.kv_len && MODE != MaskMode::kCustom;
    if constexpr (MODE == MaskMode::kCausal) all = all && end - 1 <= diagonal(params, first_row);
    if constexpr (WINDOW) all = all && first >= diagonal(params, last_row) - params.window_left;
    return all;
  }
};

}  // namespace flashinfer
