// SPDX-License-Identifier: Apache-2.0
// What a variant written as a C++ struct builds on: FlashInfer's AttentionVariantBase with its registration macros
// (FlashInfer, include/flashinfer/attention/variant_helper.cuh) and the functions such structs call.
//
// The struct's hooks keep FlashInfer's meaning: LogitsTransform takes the unscaled product q·k, and with use_softmax its
// result times the member sm_scale_log2 is the base-2 logit. OutputTransform takes m, d and the output they belong to.
#pragma once
#include <flashinfer/attention/variant_hooks.cuh>

#define REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, ...) \
  template <class Params, class T>                                                                          \
  FLASHINFER_HOOK T LogitsTransform(const Params& params, T logits, uint32_t batch_idx, uint32_t qo_idx,    \
                                    uint32_t kv_idx, uint32_t qo_head_idx, uint32_t kv_head_idx) {          \
    __VA_ARGS__                                                                                             \
  }

#define REGISTER_LOGITS_MASK(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, ...)                \
  template <class Params>                                                                                     \
  FLASHINFER_HOOK bool LogitsMask(const Params& params, uint32_t batch_idx, uint32_t qo_idx, uint32_t kv_idx, \
                                  uint32_t qo_head_idx, uint32_t kv_head_idx) {                               \
    __VA_ARGS__                                                                                               \
  }

#define REGISTER_OUTPUT_TRANSFORM(params, output, batch_idx, qo_idx, qo_head_idx, m, d, scale, ...)      \
  template <class Params, class T, class M>                                                              \
  FLASHINFER_HOOK T OutputTransform(const Params& params, T output, uint32_t batch_idx, uint32_t qo_idx, \
                                    uint32_t qo_head_idx, M& m, float& d, float scale) {                 \
    __VA_ARGS__                                                                                          \
  }

// What kernels here do not call is refused where it is written, not passed over.
#define REGISTER_QUERY_TRANSFORM(...) \
  static_assert(false, "REGISTER_QUERY_TRANSFORM is never called; use the hook queryTransform, or transform q before")
#define REGISTER_KEY_TRANSFORM(...) \
  static_assert(false, "REGISTER_KEY_TRANSFORM is never called; transform k before it goes into the cache")
#define REGISTER_M_D_UPDATE(...) \
  static_assert(false, "REGISTER_M_D_UPDATE is never called; pass attention sinks as the option sinks")

namespace flashinfer {

namespace math {

constexpr float log2e = 1.44269504088896340736f;
constexpr float loge2 = 0.693147180559945309417f;
constexpr float inf = __builtin_bit_cast(float, 0x7f800000u);

FLASHINFER_HOOK float ptx_exp2(float x) { return exp2f(x); }
FLASHINFER_HOOK float ptx_log2(float x) { return log2f(x); }
FLASHINFER_HOOK float ptx_rcp(float x) { return 1.0f / x; }
FLASHINFER_HOOK float tanh(float x) { return tanhf(x); }

}  // namespace math

struct AttentionVariantBase {
  static constexpr bool use_softmax = true;
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, { return logits; })
  REGISTER_LOGITS_MASK(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, { return true; })
  REGISTER_OUTPUT_TRANSFORM(params, output, batch_idx, qo_idx, qo_head_idx, m, d, scale,
                            { return m == -math::inf ? T(0) : output / d; })
};

/** sm_scale_log2 of a struct, where it has one: only those with softmax need it. */
template <class Variant>
FLASHINFER_HOOK auto softmax_scale_log2(const Variant& variant, int) -> decltype(+variant.sm_scale_log2) {
  return variant.sm_scale_log2;
}
template <class Variant>
FLASHINFER_HOOK float softmax_scale_log2(const Variant&, long) {
  static_assert(!Variant::use_softmax, "a struct with use_softmax needs a member float sm_scale_log2");
  return 1.0f;
}

/** VariantHooks (see CustomVariant) of a struct; `Fields::view(fields, request)` gives the params it is made from. */
template <class Variant, class View, bool SOFTMAX>
struct StructHooks {
  static_assert(Variant::use_softmax == SOFTMAX, "use_softmax of the struct and useSoftmax of the definition differ");
  static constexpr bool kUsesSoftmax = SOFTMAX;
  static constexpr bool kTransformsQuery = false, kTransformsLogits = true, kMasksLogits = true;
  static constexpr bool kTransformsOutput = true;

  template <class Fields>
  static FLASHINFER_HOOK float transform_logits(const Fields& fields, const VariantRequest& r, const LogitPosition& at,
                                                float qk) {
    const View params(fields, r);
    Variant variant(params, static_cast<uint32_t>(r.batch_idx), static_cast<uint8_t*>(nullptr));
    const float logits = variant.LogitsTransform(params, qk, r.batch_idx, at.qo_idx, at.kv_idx, at.qo_head, at.kv_head);
    return SOFTMAX ? logits * softmax_scale_log2(variant, 0) * math::loge2 : logits;
  }

  template <class Fields>
  static FLASHINFER_HOOK bool mask_logits(const Fields& fields, const VariantRequest& r, const LogitPosition& at) {
    const View params(fields, r);
    Variant variant(params, static_cast<uint32_t>(r.batch_idx), static_cast<uint8_t*>(nullptr));
    return variant.LogitsMask(params, r.batch_idx, at.qo_idx, at.kv_idx, at.qo_head, at.kv_head);
  }

  /** The output comes normalised: d = 1 belongs to it, and m = lse. */
  template <class Fields>
  static FLASHINFER_HOOK float transform_output(const Fields& fields, const VariantRequest& r,
                                                const ElementPosition& at, float output, float lse) {
    const View params(fields, r);
    Variant variant(params, static_cast<uint32_t>(r.batch_idx), static_cast<uint8_t*>(nullptr));
    float m = SOFTMAX ? lse : 0.0f, d = 1.0f;
    return variant.OutputTransform(params, output, r.batch_idx, at.qo_idx, at.qo_head, m, d, 1.0f);
  }
};

}  // namespace flashinfer
