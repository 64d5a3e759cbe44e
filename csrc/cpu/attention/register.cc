// SPDX-License-Identifier: Apache-2.0
// cpu.attention: CpuAttentionArgs of packages/core/src/native/binding.ts to AttentionParams.
#include <cmath>
#include <new>

#include "cpu/attention/attention.h"
#include "cpu/call_args.h"
#include "cpu/entries.h"
#include "platform/dynamic_library.h"

namespace flashinfer::cpu {
namespace {

constexpr int32_t kMaxHeadDim = 512;

/** What would make the kernels run out of their buffers; everything else was checked in TypeScript. */
void CheckMemorySafety(const AttentionParams& p) {
  const auto badDim = [](int32_t dim) { return dim <= 0 || dim > kMaxHeadDim || dim % 8 != 0; };
  const bool ok = !badDim(p.headDimQk) && !badDim(p.headDimVo) && p.qoLen >= 0 && p.kvLen >= 0 && p.numKvHeads > 0 &&
                  p.numQoHeads % p.numKvHeads == 0 && p.qDtype <= DType::kFloat8E4M3 && p.outDtype <= DType::kFloat32 &&
                  p.kvDtype <= DType::kFloat8E5M2 && (p.maskMode != MaskMode::kCustom || p.customMask != nullptr) &&
                  (p.posEncodingMode != PosEncodingMode::kAlibi || p.alibiSlopes != nullptr) &&
                  (p.k.pages == nullptr || p.k.pageSize > 0);
  if (!ok) throw NativeError("INTERNAL", "cpu.attention: arguments that the kernels cannot take; please report");
}

int64_t ElementBytes(DType dtype) {
  return dtype == DType::kFloat32 ? 4 : dtype == DType::kFloat16 || dtype == DType::kBFloat16 ? 2 : 1;
}

void Attention(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  AttentionParams p = {};
  p.qDtype = args.DType("qDtype");
  p.kvDtype = args.DType("kvDtype");
  p.outDtype = args.DType("outDtype");
  const int64_t kvBytes = ElementBytes(p.kvDtype);
  p.q = args.Pointer<const void>("q");
  p.k.base = args.Pointer<const uint8_t>("k");
  p.k.rowStride = args.Integer("kStrideN") * kvBytes;
  p.k.headStride = args.Integer("kStrideH") * kvBytes;
  p.v.base = args.Pointer<const uint8_t>("v");
  p.v.rowStride = args.Integer("vStrideN") * kvBytes;
  p.v.headStride = args.Integer("vStrideH") * kvBytes;
  if (args.Has("pageIndices")) {
    p.k.pages = p.v.pages = args.Pointer<const int32_t>("pageIndices");
    p.k.pageSize = p.v.pageSize = args.Integer("pageSize");
    p.k.pageStride = args.Integer("kStridePage") * kvBytes;
    p.v.pageStride = args.Integer("vStridePage") * kvBytes;
  }
  p.out = args.Pointer<void>("out");
  p.lse = args.Pointer<float>("lse");
  p.qoLen = args.Integer("qoLen");
  p.kvLen = args.Integer("kvLen");
  p.numQoHeads = args.Int32("numQoHeads");
  p.numKvHeads = args.Int32("numKvHeads");
  p.headDimQk = args.Int32("headDimQk");
  p.headDimVo = args.Int32("headDimVo");
  p.qStrideN = args.Integer("qStrideN");
  p.qStrideH = args.Integer("qStrideH");
  p.outStrideN = args.Integer("outStrideN");
  p.outStrideH = args.Integer("outStrideH");
  p.maskMode = static_cast<MaskMode>(args.Int32("maskMode"));
  p.customMask = args.Pointer<const uint8_t>("customMask");
  p.posEncodingMode = static_cast<PosEncodingMode>(args.Int32("posEncodingMode"));
  p.alibiSlopes = args.Pointer<const float>("alibiSlopes");
  p.sinks = args.Pointer<const float>("sinks");
  p.windowLeft = args.Integer("windowLeft");
  p.logitsSoftCap = args.Float("logitsSoftCap");
  p.smScale = args.Float("smScale");
  p.vScale = args.Float("vScale");
  if (args.Has("qScales")) {
    p.qScales = args.Pointer<const float>("qScales");
    p.kScales = args.Pointer<const float>("kScales");
    p.vScales = args.Pointer<const float>("vScales");
  }
  p.lseFactor = args.Float("lseFactor");
  if (args.Has("variant")) {
    p.variant = args.Pointer<const VariantTable>("variant");
    p.variantFields = FromJs<Bytes>(state.env, Property(state.env, object.value, "variantParams")).data;
    p.batchIdx = args.Int32("batchIdx");
  }
  CheckMemorySafety(p);
  p.groupSize = p.numQoHeads / p.numKvHeads;
  try {
    RunAttention(p, args.Number("ropeScale"), args.Number("ropeTheta"));
  } catch (const std::bad_alloc&) {
    throw NativeError("OOM", "cpu.attention: no memory for intermediate results");
  }
}

/** Address of the table of a variant's library, which stays loaded. */
Ptr LoadVariant(CpuState&, std::string path) {
  std::vector<std::string> searched;
  const platform::DynamicLibrary library = platform::DynamicLibrary::Open({path}, &searched);
  if (!library) throw NativeError("IO", "cpu.loadVariant: " + searched.front());
  const auto* table = static_cast<const VariantTable*>(library.Symbol("flashinfer_variant"));
  if (table == nullptr || table->abi != kVariantAbi) {
    throw NativeError("INTERNAL", "cpu.loadVariant: " + path + " is not a variant of this version; please report");
  }
  return reinterpret_cast<Ptr>(table);
}

}  // namespace

void RegisterAttention(FunctionTable& table) { table.Add<Attention>("attention").Add<LoadVariant>("loadVariant"); }

}  // namespace flashinfer::cpu
