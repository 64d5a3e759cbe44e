// SPDX-License-Identifier: Apache-2.0
// `cast`, `stridedCopy`, `fill`, `arange`, `randomUniform`, `randomNormal` of NativeCpu.
#include <string>

#include "cpu/elementwise/elementwise.h"
#include "cpu/entries.h"

namespace flashinfer::cpu {
namespace {

/** The fields of one argument object. */
class Fields {
 public:
  Fields(const CpuState& state, JsValue object) : env_(state.env), object_(object.value) {}

  void* Pointer(const char* name) const { return reinterpret_cast<void*>(FromJs<uint64_t>(env_, Value(name))); }
  int32_t Int(const char* name) const { return FromJs<int32_t>(env_, Value(name)); }
  int64_t Count(const char* name) const { return static_cast<int64_t>(FromJs<uint64_t>(env_, Value(name))); }
  flashinfer::DType DType(const char* name) const { return static_cast<flashinfer::DType>(Int(name)); }
  double Number(const char* name) const {
    double out;
    Check(napi_get_value_double(env_, Value(name), &out), name);
    return out;
  }
  bool IsBigInt(const char* name) const {
    napi_valuetype type;
    Check(napi_typeof(env_, Value(name), &type), name);
    return type == napi_bigint;
  }
  int64_t BigInt(const char* name) const {
    int64_t out;
    bool lossless;
    Check(napi_get_value_bigint_int64(env_, Value(name), &out, &lossless), name);
    return out;
  }
  void Integers(const char* name, int64_t* out, int count) const {
    const std::vector<uint64_t> values = ArrayFromJs<uint64_t>(env_, Value(name));
    if (static_cast<int>(values.size()) != count) {
      throw NativeError("INTERNAL", std::string("native binding: ") + name + " has " + std::to_string(values.size()) +
                                        " entries; expected " + std::to_string(count));
    }
    for (int i = 0; i < count; i++) out[i] = static_cast<int64_t>(values[i]);
  }
  int Length(const char* name) const {
    uint32_t length;
    Check(napi_get_array_length(env_, Value(name), &length), name);
    return static_cast<int>(length);
  }

 private:
  napi_value Value(const char* name) const { return Property(env_, object_, name); }

  napi_env env_;
  napi_value object_;
};

void CallCast(CpuState& state, JsValue args) {
  const Fields f(state, args);
  Cast(f.Pointer("src"), f.DType("srcDtype"), f.Pointer("dst"), f.DType("dstDtype"), f.Count("count"));
}

void CallStridedCopy(CpuState& state, JsValue args) {
  const Fields f(state, args);
  StridedCopyArgs copy{};
  copy.src = f.Pointer("src");
  copy.dst = f.Pointer("dst");
  copy.element_bytes = f.Int("elementBytes");
  copy.rank = f.Length("shape");
  if (copy.rank > kMaxCopyRank) {
    throw NativeError("INTERNAL", "cpu.stridedCopy: rank " + std::to_string(copy.rank) + "; expected at most " +
                                      std::to_string(kMaxCopyRank));
  }
  f.Integers("shape", copy.shape, copy.rank);
  f.Integers("srcStrides", copy.src_strides, copy.rank);
  f.Integers("dstStrides", copy.dst_strides, copy.rank);
  StridedCopy(copy);
}

void CallFill(CpuState& state, JsValue args) {
  const Fields f(state, args);
  if (f.IsBigInt("value")) {
    FillInteger(f.Pointer("dst"), f.DType("dtype"), f.Count("count"), f.BigInt("value"));
  } else {
    Fill(f.Pointer("dst"), f.DType("dtype"), f.Count("count"), f.Number("value"));
  }
}

void CallArange(CpuState& state, JsValue args) {
  const Fields f(state, args);
  Arange(f.Pointer("dst"), f.DType("dtype"), f.Count("count"), f.Number("start"), f.Number("step"));
}

uint32_t CallMaxUint32(CpuState& state, JsValue array) {
  napi_typedarray_type type;
  size_t length;
  void* data;
  Check(napi_get_typedarray_info(state.env, array.value, &type, &length, &data, nullptr, nullptr), "an Int32Array");
  if (type != napi_int32_array) throw NativeError("INTERNAL", "cpu.maxUint32: expected an Int32Array");
  return MaxUint32(static_cast<const uint32_t*>(data), static_cast<int64_t>(length));
}

void CallRandomUniform(CpuState& state, JsValue args) {
  const Fields f(state, args);
  RandomUniform(f.Pointer("dst"), f.DType("dtype"), f.Count("count"), static_cast<uint64_t>(f.BigInt("seed")));
}

void CallRandomNormal(CpuState& state, JsValue args) {
  const Fields f(state, args);
  RandomNormal(f.Pointer("dst"), f.DType("dtype"), f.Count("count"), static_cast<uint64_t>(f.BigInt("seed")));
}

}  // namespace

void RegisterElementwise(FunctionTable& table) {
  table.Add<CallCast>("cast")
      .Add<CallStridedCopy>("stridedCopy")
      .Add<CallFill>("fill")
      .Add<CallArange>("arange")
      .Add<CallMaxUint32>("maxUint32")
      .Add<CallRandomUniform>("randomUniform")
      .Add<CallRandomNormal>("randomNormal");
}

}  // namespace flashinfer::cpu
