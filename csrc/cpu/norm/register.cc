// SPDX-License-Identifier: Apache-2.0
// cpu.norm: CpuNormArgs of packages/core/src/native/binding.ts to NormParams.
#include "cpu/call_args.h"
#include "cpu/entries.h"
#include "cpu/norm/norm.h"

namespace flashinfer::cpu {
namespace {

void Norm(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  NormParams p = {};
  p.layer = args.Flag("layer");
  p.dtype = args.DType("dtype");
  p.weightDtype = args.DType("weightDtype");
  p.outDtype = args.DType("outDtype");
  p.x = args.Pointer<const void>("x");
  p.xStrideN = args.Integer("xStrideN");
  p.xStrideH = args.Integer("xStrideH");
  p.residual = args.Pointer<void>("residual");
  p.residualStrideN = args.Integer("residualStrideN");
  p.residualStrideH = args.Integer("residualStrideH");
  p.out = args.Pointer<void>("out");
  p.outStrideN = args.Integer("outStrideN");
  p.outStrideH = args.Integer("outStrideH");
  p.weight = args.Pointer<const void>("weight");
  p.bias = args.Pointer<const void>("bias");
  p.tokens = args.Integer("tokens");
  p.heads = args.Integer("heads");
  p.length = args.Integer("length");
  p.eps = args.Float("eps");
  p.weightOffset = args.Float("weightOffset");
  const float* scale = args.Pointer<const float>("scale");
  p.rcpScale = 1.0f / (scale != nullptr ? *scale : args.Float("scaleValue"));
  const bool quantizes = p.outDtype == DType::kFloat8E4M3 || p.outDtype == DType::kFloat8E5M2;
  const bool known = p.dtype <= DType::kFloat32 && (p.outDtype == p.dtype || quantizes) &&
                     p.weightDtype == (p.layer ? DType::kFloat32 : p.dtype) && p.length > 0 && p.heads > 0;
  if (!known) throw NativeError("INTERNAL", "cpu.norm: arguments that the kernels cannot take; please report");
  RunNorm(p);
}

}  // namespace

void RegisterNorm(FunctionTable& table) { table.Add<Norm>("norm"); }

}  // namespace flashinfer::cpu
