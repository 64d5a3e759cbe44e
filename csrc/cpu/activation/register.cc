// SPDX-License-Identifier: Apache-2.0
// cpu.actAndMul: CpuActivationArgs of packages/core/src/native/binding.ts to ActivationParams.
#include "cpu/activation/activation.h"
#include "cpu/call_args.h"
#include "cpu/entries.h"

namespace flashinfer::cpu {
namespace {

void ActAndMul(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  ActivationParams p = {};
  p.kind = static_cast<ActivationKind>(args.Int32("kind"));
  p.dtype = args.DType("dtype");
  p.x = args.Pointer<const void>("x");
  p.xStride = args.Integer("xStride");
  p.out = args.Pointer<void>("out");
  p.outStride = args.Integer("outStride");
  p.rows = args.Integer("rows");
  p.length = args.Integer("length");
  if (p.dtype > DType::kFloat32 || p.length <= 0) {
    throw NativeError("INTERNAL", "cpu.actAndMul: arguments that the kernels cannot take; please report");
  }
  RunActivation(p);
}

}  // namespace

void RegisterActivation(FunctionTable& table) { table.Add<ActAndMul>("actAndMul"); }

}  // namespace flashinfer::cpu
