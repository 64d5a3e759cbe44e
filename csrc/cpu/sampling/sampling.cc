// SPDX-License-Identifier: Apache-2.0
// `sampling` of NativeCpu: tokens, softmax and filters of rows, by the weights of include/flashinfer/sampling.
#include "cpu/call_args.h"
#include "cpu/elementwise/dispatch.h"
#include "cpu/entries.h"
#include "cpu/sampling/sampling_row.h"

namespace flashinfer::cpu {
namespace {

template <class T>
void RunRow(const SamplingParams& p, int64_t row) {
  switch (p.kind) {
    case Kind::kSoftmax:
      return SamplingRow<T, RowInput::kRaw>(p, row).Softmax();
    case Kind::kSampleProbs:
      return SamplingRow<T, RowInput::kProbs>(p, row).Sample();
    case Kind::kSampleLogits:
      return SamplingRow<T, RowInput::kLogits>(p, row).Sample();
    case Kind::kRenormProbs:
      return SamplingRow<T, RowInput::kProbs>(p, row).Renorm();
    case Kind::kMaskLogits:
      return SamplingRow<T, RowInput::kRaw>(p, row).Mask();
  }
}

template <class T>
void RunSampling(const SamplingParams& p) {
  ForRows(p.out_rows, [&](int64_t row) { RunRow<T>(p, row); });
}

void Sampling(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  SamplingParams p = {};
  p.kind = static_cast<Kind>(args.Int32("kind"));
  p.dtype = args.DType("dtype");
  p.x = args.Pointer<const void>("x");
  p.out = args.Pointer<void>("out");
  p.valid = args.Pointer<bool>("valid");
  p.indices = args.Pointer<const int32_t>("indices");
  p.temperature = args.Pointer<const float>("temperature");
  p.top_k = args.Pointer<const int32_t>("top_k");
  p.top_p = args.Pointer<const float>("top_p");
  p.min_p = args.Pointer<const float>("min_p");
  p.seed = args.Pointer<const uint64_t>("seed");
  p.offset = args.Pointer<const uint64_t>("offset");
  p.x_stride = args.Integer("x_stride");
  p.rows = args.Integer("rows");
  p.out_rows = args.Integer("out_rows");
  p.vocab = args.Integer("vocab");
  p.filters = args.Int32("filters");
  p.temperature_value = args.Float("temperature_value");
  p.top_k_value = args.Int32("top_k_value");
  p.top_p_value = args.Float("top_p_value");
  p.min_p_value = args.Float("min_p_value");
  p.seed_value = args.BigUint64("seed_value");
  p.offset_value = args.BigUint64("offset_value");
  p.seed_per_row = args.Int32("seed_per_row") != 0;
  p.offset_per_row = args.Int32("offset_per_row") != 0;
  if (p.vocab < 1 || p.vocab > int64_t{1} << kMaxVocabBits || p.dtype > DType::kFloat32) {
    throw NativeError("INTERNAL", "cpu.sampling: arguments that the kernels cannot take; please report");
  }
  switch (p.dtype) {
    case DType::kFloat16:
      return RunSampling<half_t>(p);
    case DType::kBFloat16:
      return RunSampling<bfloat16_t>(p);
    default:
      return RunSampling<float>(p);
  }
}

}  // namespace

void RegisterSampling(FunctionTable& table) { table.Add<Sampling>("sampling"); }

}  // namespace flashinfer::cpu
