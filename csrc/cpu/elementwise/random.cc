// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cpu/elementwise/dispatch.h"
#include "cpu/elementwise/elementwise.h"
#include "cpu/elementwise/parallel.h"
#include "cpu/elementwise/versions.h"
#include "flashinfer/elementwise/random_values.cuh"

namespace flashinfer::cpu {
namespace {

constexpr int64_t kGrainGroups = 1 << 13;
// Groups of four elements made at once: enough for full vectors, few enough to stay in the first-level cache.
constexpr int kBatch = 64;

template <class Distribution, class T>
struct RandomLoop {
  /** Groups `begin` to `end` of four elements; the last may be cut off by `count`. */
  static FLASHINFER_HOST_DEVICE void Run(T* dst, int64_t count, uint64_t seed, int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; group += kBatch) {
      float values[4 * kBatch];
      for (int i = 0; i < kBatch; i++) {
        const RandomGroup four = Distribution::Group(seed, static_cast<uint64_t>(group + i));
        values[4 * i] = four.values[0];
        values[4 * i + 1] = four.values[1];
        values[4 * i + 2] = four.values[2];
        values[4 * i + 3] = four.values[3];
      }
      const int64_t first = 4 * group;
      const int64_t valid = std::min<int64_t>(4 * std::min<int64_t>(kBatch, end - group), count - first);
      for (int64_t i = 0; i < valid; i++) dst[first + i] = from_float<T>(values[i]);
    }
  }
};

template <template <class> class Distribution>
void RandomFill(void* dst, DType dtype, int64_t count, uint64_t seed, const char* function) {
  VisitFloatingDType(dtype, function, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* typed = static_cast<T*>(dst);
    ParallelChunks((count + 3) / 4, kGrainGroups, [=](int64_t begin, int64_t end) {
      RunVersion<RandomLoop<Distribution<T>, T>>(typed, count, seed, begin, end);
    });
  });
}

}  // namespace

void RandomUniform(void* dst, DType dtype, int64_t count, uint64_t seed) {
  RandomFill<UniformDistribution>(dst, dtype, count, seed, "cpu.randomUniform");
}

void RandomNormal(void* dst, DType dtype, int64_t count, uint64_t seed) {
  RandomFill<NormalDistribution>(dst, dtype, count, seed, "cpu.randomNormal");
}

}  // namespace flashinfer::cpu
