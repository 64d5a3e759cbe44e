// SPDX-License-Identifier: Apache-2.0
#include "cpu/elementwise/elementwise.h"
#include "cpu/elementwise/versions.h"

namespace flashinfer::cpu {
namespace {

struct MaxLoop {
  static FLASHINFER_HOST_DEVICE void Run(const uint32_t* values, int64_t count, uint32_t* result) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < count; i++) largest = values[i] > largest ? values[i] : largest;
    *result = largest;
  }
};

}  // namespace

uint32_t MaxUint32(const uint32_t* values, int64_t count) {
  uint32_t result;
  RunVersion<MaxLoop>(values, count, &result);
  return result;
}

}  // namespace flashinfer::cpu
