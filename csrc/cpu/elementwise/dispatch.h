// SPDX-License-Identifier: Apache-2.0
// From a dtype code to a C++ type.
#pragma once
#include <string>

#include "binding/error.h"
#include "flashinfer/dtype.cuh"

namespace flashinfer::cpu {

template <class T>
struct TypeTag {
  using type = T;
};

template <class Visitor>
void VisitFloatingDType(DType dtype, const char* function, Visitor visit) {
  switch (dtype) {
    case DType::kFloat16:
      return visit(TypeTag<half_t>{});
    case DType::kBFloat16:
      return visit(TypeTag<bfloat16_t>{});
    case DType::kFloat32:
      return visit(TypeTag<float>{});
    case DType::kFloat8E4M3:
      return visit(TypeTag<fp8_e4m3_t>{});
    case DType::kFloat8E5M2:
      return visit(TypeTag<fp8_e5m2_t>{});
    default:
      throw NativeError("INTERNAL", std::string(function) + ": dtype code " + std::to_string(static_cast<int>(dtype)) +
                                        " is not a floating dtype");
  }
}

template <class Visitor>
void VisitDType(DType dtype, const char* function, Visitor visit) {
  switch (dtype) {
    case DType::kInt8:
      return visit(TypeTag<int8_t>{});
    case DType::kUint8:
      return visit(TypeTag<uint8_t>{});
    case DType::kInt32:
      return visit(TypeTag<int32_t>{});
    case DType::kUint32:
      return visit(TypeTag<uint32_t>{});
    case DType::kInt64:
      return visit(TypeTag<int64_t>{});
    case DType::kBool:
      return visit(TypeTag<bool>{});
    default:
      return VisitFloatingDType(dtype, function, visit);
  }
}

}  // namespace flashinfer::cpu
