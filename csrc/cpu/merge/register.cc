// SPDX-License-Identifier: Apache-2.0
// cpu.mergeStates: CpuMergeArgs of packages/core/src/native/binding.ts to MergeParams.
#include "cpu/call_args.h"
#include "cpu/entries.h"
#include "cpu/merge/merge.h"

namespace flashinfer::cpu {
namespace {

void MergeStates(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  MergeParams p = {};
  p.dtype = args.DType("dtype");
  p.a.v = args.Pointer<const void>("v");
  p.a.s = args.Pointer<const float>("s");
  p.a.vStrideN = args.Integer("vStrideN");
  p.a.vStrideH = args.Integer("vStrideH");
  p.a.sStrideN = args.Integer("sStrideN");
  p.a.sStrideH = args.Integer("sStrideH");
  p.vStrideI = args.Integer("vStrideI");
  p.sStrideI = args.Integer("sStrideI");
  p.b.v = args.Pointer<const void>("vOther");
  p.b.s = args.Pointer<const float>("sOther");
  p.b.vStrideN = args.Integer("vOtherStrideN");
  p.b.vStrideH = args.Integer("vOtherStrideH");
  p.b.sStrideN = args.Integer("sOtherStrideN");
  p.b.sStrideH = args.Integer("sOtherStrideH");
  p.isPair = p.b.s != nullptr;
  p.out = args.Pointer<void>("out");
  p.lse = args.Pointer<float>("lse");
  p.outStrideN = args.Integer("outStrideN");
  p.outStrideH = args.Integer("outStrideH");
  p.lseStrideN = args.Integer("lseStrideN");
  p.lseStrideH = args.Integer("lseStrideH");
  p.mask = args.Pointer<const uint8_t>("mask");
  p.shifts = args.Pointer<const int32_t>("shifts");
  p.shiftStrideI = args.Integer("shiftStrideI");
  p.slopes = args.Pointer<const float>("slopes");
  p.rows = args.Integer("rows");
  p.heads = args.Integer("heads");
  p.length = args.Integer("length");
  p.numStates = args.Integer("numStates");
  p.lseInFactor = args.Float("lseInFactor");
  p.lseOutFactor = args.Float("lseOutFactor");
  if (p.dtype > DType::kFloat32 || p.length <= 0 || p.heads <= 0) {
    throw NativeError("INTERNAL", "cpu.mergeStates: arguments that the kernels cannot take; please report");
  }
  RunMerge(p);
}

}  // namespace

void RegisterMerge(FunctionTable& table) { table.Add<MergeStates>("mergeStates"); }

}  // namespace flashinfer::cpu
