// SPDX-License-Identifier: Apache-2.0
// cpu.rope: CpuRopeArgs of packages/core/src/native/binding.ts to RopeParams.
#include "cpu/call_args.h"
#include "cpu/entries.h"
#include "cpu/rope/rope.h"

namespace flashinfer::cpu {
namespace {

void Rope(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  RopeParams p = {};
  p.dtype = args.DType("dtype");
  p.q = {args.Pointer<const void>("q"), args.Pointer<void>("qOut"), args.Integer("qHeads"),
         args.Integer("qStrideN"),      args.Integer("qStrideH"),   args.Integer("qOutStrideN"),
         args.Integer("qOutStrideH")};
  p.k = {args.Pointer<const void>("k"), args.Pointer<void>("kOut"), args.Integer("kHeads"),
         args.Integer("kStrideN"),      args.Integer("kStrideH"),   args.Integer("kOutStrideN"),
         args.Integer("kOutStrideH")};
  p.tokens = args.Integer("tokens");
  p.headDim = args.Integer("headDim");
  p.rotaryDim = args.Integer("rotaryDim");
  p.interleave = args.Flag("interleave");
  p.indptr = args.Pointer<const void>("indptr");
  p.positions = args.Pointer<const void>("positions");
  p.wideIndices = args.DType("indexDtype") == DType::kInt64;
  p.batchSize = args.Integer("batchSize");
  p.cache = args.Pointer<const float>("cache");
  p.cacheRows = args.Integer("cacheRows");
  p.cacheStride = args.Integer("cacheStride");
  const bool known = p.dtype <= DType::kFloat32 && p.rotaryDim >= 0 && p.rotaryDim % 2 == 0 &&
                     p.rotaryDim / 2 <= kMaxRopePairs && p.rotaryDim <= p.headDim &&
                     (p.indptr == nullptr || p.batchSize > 0);
  if (!known) throw NativeError("INTERNAL", "cpu.rope: arguments that the kernels cannot take; please report");
  RunRope(p, {args.Number("rcpScale"), args.Number("theta"), args.Number("smoothA"), args.Number("smoothB")});
}

}  // namespace

void RegisterRope(FunctionTable& table) { table.Add<Rope>("rope"); }

}  // namespace flashinfer::cpu
