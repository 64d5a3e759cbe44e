// SPDX-License-Identifier: Apache-2.0
// The fields of the one object that an operator of the cpu device is called with.
#pragma once
#include "binding/call.h"
#include "flashinfer/dtype.cuh"

namespace flashinfer::cpu {

class CallArgs {
 public:
  CallArgs(napi_env env, napi_value object) : env_(env), object_(object) {}
  double Number(const char* name) const {
    double value;
    Check(napi_get_value_double(env_, Property(env_, object_, name), &value), name);
    return value;
  }
  bool Has(const char* name) const {
    napi_valuetype type;
    Check(napi_typeof(env_, Property(env_, object_, name), &type), name);
    return type != napi_undefined;
  }
  float Float(const char* name) const { return static_cast<float>(Number(name)); }
  int64_t Integer(const char* name) const { return static_cast<int64_t>(Number(name)); }
  int32_t Int32(const char* name) const { return static_cast<int32_t>(Number(name)); }
  uint64_t BigUint64(const char* name) const {
    uint64_t value;
    bool lossless;
    Check(napi_get_value_bigint_uint64(env_, Property(env_, object_, name), &value, &lossless), name);
    return value;
  }
  bool Flag(const char* name) const { return FromJs<bool>(env_, Property(env_, object_, name)); }
  flashinfer::DType DType(const char* name) const { return static_cast<flashinfer::DType>(Int32(name)); }
  template <class T>
  T* Pointer(const char* name) const {
    return reinterpret_cast<T*>(static_cast<uintptr_t>(Number(name)));
  }

 private:
  napi_env env_;
  napi_value object_;
};

}  // namespace flashinfer::cpu
