// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cpu/elementwise/dispatch.h"
#include "cpu/elementwise/elementwise.h"
#include "cpu/elementwise/parallel.h"
#include "flashinfer/elementwise/convert.cuh"

namespace flashinfer::cpu {
namespace {

constexpr int64_t kGrain = 1 << 16;

template <class T>
void FillTyped(void* dst, int64_t count, T value) {
  T* typed = static_cast<T*>(dst);
  ParallelChunks(count, kGrain, [=](int64_t begin, int64_t end) { std::fill(typed + begin, typed + end, value); });
}

}  // namespace

void Fill(void* dst, DType dtype, int64_t count, double value) {
  VisitDType(dtype, "cpu.fill", [&](auto tag) {
    using T = typename decltype(tag)::type;
    FillTyped<T>(dst, count, convert_double<T>(value));
  });
}

void FillInteger(void* dst, DType dtype, int64_t count, int64_t value) {
  VisitDType(dtype, "cpu.fill", [&](auto tag) {
    using T = typename decltype(tag)::type;
    FillTyped<T>(dst, count, convert<T>(value));
  });
}

void Arange(void* dst, DType dtype, int64_t count, double start, double step) {
  VisitDType(dtype, "cpu.arange", [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* typed = static_cast<T*>(dst);
    ParallelChunks(count, kGrain, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) typed[i] = convert_double<T>(start + static_cast<double>(i) * step);
    });
  });
}

}  // namespace flashinfer::cpu
