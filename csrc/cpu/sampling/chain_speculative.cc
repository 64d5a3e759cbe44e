// SPDX-License-Identifier: Apache-2.0
// `chainSpeculative` of NativeCpu, as include/flashinfer/sampling/speculative.cuh.
#include "cpu/call_args.h"
#include "cpu/elementwise/dispatch.h"
#include "cpu/entries.h"
#include "cpu/sampling/row_values.h"

namespace flashinfer::cpu {
namespace {

struct ChainParams {
  const void *draft, *target;
  const int32_t* ids;
  int32_t *out, *accepted, *emitted;
  const uint64_t *seed, *offset;
  uint64_t seed_value, offset_value;
  bool seed_per_row, offset_per_row;
  int64_t drafted, vocab;
};

/** A row of the target's, or what it has more than the draft's. */
template <class T>
class ResidualRow : RowValues {
 public:
  ResidualRow(const T* target, const T* draft, int64_t vocab) {
    Read(vocab, [&](int64_t first, int64_t count, float* values, uint32_t* largest, uint32_t* smallest) {
      if (draft != nullptr) {
        RunVersion<DifferenceLoop<T>>(target + first, draft + first, count, values, largest, smallest);
      } else {
        RunVersion<ReadLoop<T, RowInput::kProbs>>(target + first, count, values, largest, smallest);
      }
    });
  }

  int32_t Draw(Philox4 words) {
    const float factor = weight_factor(value_of_key(max_key_));
    const uint64_t total = WeightFrom(0.0f, values_, factor);
    return total == 0 ? 0 : TokenAt(draw_point(words, total), values_, 0.0f, factor);
  }
};

template <class T>
void Verify(const ChainParams& p, int64_t request) {
  const auto words = [&](uint32_t draw) {
    const uint64_t seed = p.seed != nullptr ? p.seed[p.seed_per_row ? request : 0] : p.seed_value;
    const uint64_t offset = p.offset != nullptr ? p.offset[p.offset_per_row ? request : 0] : p.offset_value;
    return draw_words(seed, offset, p.seed_per_row ? 0 : static_cast<uint32_t>(request), draw);
  };
  const T* draft = static_cast<const T*>(p.draft) + request * p.drafted * p.vocab;
  const T* target = static_cast<const T*>(p.target) + request * (p.drafted + 1) * p.vocab;
  const int32_t* ids = p.ids + request * p.drafted;
  int32_t* out = p.out + request * (p.drafted + 1);
  int64_t accepted = 0, emitted = p.drafted;
  for (int64_t i = 0; i < p.drafted; ++i) {
    const int64_t id = ids[i], at = i * p.vocab + id;
    const bool stands = id >= 0 && id < p.vocab &&
                        accepts_draft(to_float(target[at]), to_float(draft[at]), words(static_cast<uint32_t>(i + 1)));
    accepted += stands ? 1 : 0;
    if (!stands && emitted == p.drafted) emitted = i;
  }
  const int64_t row = emitted * p.vocab;
  ResidualRow<T> residual(target + row, emitted < p.drafted ? draft + row : nullptr, p.vocab);
  for (int64_t i = 0; i <= p.drafted; ++i) out[i] = i < emitted ? ids[i] : -1;
  out[emitted] = residual.Draw(words(0));
  p.accepted[request] += static_cast<int32_t>(accepted);
  p.emitted[request] += static_cast<int32_t>(emitted);
}

void ChainSpeculative(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  ChainParams p = {};
  p.draft = args.Pointer<const void>("draft");
  p.target = args.Pointer<const void>("target");
  p.ids = args.Pointer<const int32_t>("ids");
  p.out = args.Pointer<int32_t>("out");
  p.accepted = args.Pointer<int32_t>("accepted");
  p.emitted = args.Pointer<int32_t>("emitted");
  p.seed = args.Pointer<const uint64_t>("seed");
  p.offset = args.Pointer<const uint64_t>("offset");
  p.seed_value = args.BigUint64("seed_value");
  p.offset_value = args.BigUint64("offset_value");
  p.seed_per_row = args.Int32("seed_per_row") != 0;
  p.offset_per_row = args.Int32("offset_per_row") != 0;
  p.drafted = args.Integer("drafted");
  p.vocab = args.Integer("vocab");
  VisitFloatingDType(args.DType("dtype"), "cpu.chainSpeculative", [&](auto tag) {
    using T = typename decltype(tag)::type;
    ForRows(args.Integer("requests"), [&](int64_t request) { Verify<T>(p, request); });
  });
}

}  // namespace

void RegisterChainSpeculative(FunctionTable& table) { table.Add<ChainSpeculative>("chainSpeculative"); }

}  // namespace flashinfer::cpu
