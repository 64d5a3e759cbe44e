// SPDX-License-Identifier: Apache-2.0
// `topk` of NativeCpu: the k largest elements of rows, as include/flashinfer/topk.cuh finds them: a sample gives a
// threshold that few elements pass, and the exact ones are selected from those.
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "cpu/call_args.h"
#include "cpu/elementwise/dispatch.h"
#include "cpu/elementwise/versions.h"
#include "cpu/entries.h"

namespace flashinfer::cpu {
namespace {

/** Elements of a row that one thread takes at least, where rows are fewer than threads. */
constexpr int64_t kSegment = 1 << 15;
constexpr int64_t kSamples = 2048;

struct TopKParams {
  DType dtype;
  const void* x;
  int64_t stride, rows, length, k;
  void* values;
  int32_t* indices;
  bool sorted, tieLarge;
};

/** Key in the upper half, order among equals in the lower: unique, so that one comparison decides everything. */
using Composite = uint64_t;

/** Integers in the order of the values: -0 equals 0, all NaN are equal and the largest. */
template <class T>
FLASHINFER_HOST_DEVICE uint32_t Key(T x) {
  if constexpr (sizeof(T) == 4) {
    const uint32_t bits = float_as_bits(x), magnitude = bits & 0x7fffffffu;
    const uint32_t ordered = bits > 0x80000000u ? ~bits : magnitude | 0x80000000u;
    return magnitude > 0x7f800000u ? 0xffffffffu : ordered;
  } else {
    constexpr uint32_t kInfinity = DTypeOf<T>::value == DType::kFloat16 ? 0x7c00u : 0x7f80u;
    const uint32_t bits = x.bits, magnitude = bits & 0x7fffu;
    const uint32_t ordered = bits > 0x8000u ? ~bits & 0xffffu : magnitude | 0x8000u;
    return magnitude > kInfinity ? 0xffffu : ordered;
  }
}

/** Positions of the elements whose key is `least` or more, `count` at most; returns how many. */
template <class T>
struct FilterLoop {
  static FLASHINFER_HOST_DEVICE void Run(const T* x, int64_t count, uint32_t least, int32_t* positions,
                                         int64_t* found) {
    constexpr int64_t kBlock = 64;
    int64_t n = 0;
    for (int64_t begin = 0; begin < count; begin += kBlock) {
      const int64_t present = count - begin < kBlock ? count - begin : kBlock;
      uint32_t keys[kBlock];
      for (int64_t i = 0; i < present; ++i) keys[i] = Key(x[begin + i]);
      for (int64_t i = 0; i < present; ++i) {
        positions[n] = static_cast<int32_t>(begin + i);
        n += keys[i] >= least ? 1 : 0;
      }
    }
    *found = n;
  }
};

template <class T>
class TopKRow {
 public:
  TopKRow(const TopKParams& p, int64_t row, int64_t segments)
      : p_(p), row_(row), x_(static_cast<const T*>(p.x) + row * p.stride), parts_(segments) {}

  /** A threshold that a few more than k elements pass, most likely. */
  void Guess() {
    if (p_.length < 2 * kSamples || p_.k > p_.length / 4) return;
    std::vector<Composite> sample(kSamples);
    for (int64_t i = 0; i < kSamples; ++i) sample[i] = At(i * p_.length / kSamples);
    const double mean = static_cast<double>(p_.k) * kSamples / p_.length;
    const auto rank = std::min<int64_t>(kSamples - 1, static_cast<int64_t>(mean + 4 * std::sqrt(mean) + 5));
    std::nth_element(sample.begin(), sample.begin() + rank, sample.end(), std::greater<>());
    guess_ = sample[rank];
  }

  void Filter(int64_t segment) { Filter(segment, guess_); }

  void Finish() {
    size_t count = 0;
    for (const auto& part : parts_) count += part.size();
    if (static_cast<int64_t>(count) < p_.k) {
      for (size_t s = 0; s < parts_.size(); ++s) Filter(s, 0);
    }
    std::vector<Composite> kept;
    kept.reserve(count);
    for (const auto& part : parts_) kept.insert(kept.end(), part.begin(), part.end());
    std::nth_element(kept.begin(), kept.begin() + (p_.k - 1), kept.end(), std::greater<>());
    kept.resize(p_.k);
    if (p_.sorted) {
      std::sort(kept.begin(), kept.end(), std::greater<>());
    } else {
      std::sort(kept.begin(), kept.end(), [this](Composite a, Composite b) { return Index(a) < Index(b); });
    }
    T* values = static_cast<T*>(p_.values) + row_ * p_.k;
    int32_t* indices = p_.indices + row_ * p_.k;
    for (int64_t i = 0; i < p_.k; ++i) {
      indices[i] = Index(kept[i]);
      values[i] = x_[indices[i]];
    }
  }

 private:
  Composite Compose(uint32_t key, int64_t index) const {
    const uint32_t tie = p_.tieLarge ? static_cast<uint32_t>(index) : ~static_cast<uint32_t>(index);
    return static_cast<Composite>(key) << 32 | tie;
  }
  Composite At(int64_t index) const { return Compose(Key(x_[index]), index); }
  int32_t Index(Composite composite) const {
    const uint32_t tie = static_cast<uint32_t>(composite);
    return static_cast<int32_t>(p_.tieLarge ? tie : ~tie);
  }

  void Filter(int64_t segment, Composite guess) {
    const int64_t segments = static_cast<int64_t>(parts_.size());
    const int64_t begin = segment * p_.length / segments, end = (segment + 1) * p_.length / segments;
    std::vector<int32_t> positions(end - begin + 1);
    int64_t found = 0;
    RunVersion<FilterLoop<T>>(x_ + begin, end - begin, static_cast<uint32_t>(guess >> 32), positions.data(), &found);
    auto& part = parts_[segment];
    part.clear();
    for (int64_t i = 0; i < found; ++i) {
      const Composite composite = At(begin + positions[i]);
      if (composite >= guess) part.push_back(composite);
    }
  }

  const TopKParams& p_;
  int64_t row_;
  const T* x_;
  Composite guess_ = 0;
  std::vector<std::vector<Composite>> parts_;
};

/** Rows at a time: their candidates are in memory together. */
constexpr int64_t kRowsAtOnce = 64;

template <class T>
void RunTopK(const TopKParams& p) {
  ThreadPool& pool = ThreadPool::Get();
  const int64_t threads = pool.NumThreads();
  const int64_t segments = p.rows >= threads ? 1 : std::max<int64_t>(1, std::min(threads, p.length / kSegment));
  for (int64_t first = 0; first < p.rows; first += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, p.rows - first);
    std::vector<TopKRow<T>> states;
    states.reserve(rows);
    for (int64_t row = 0; row < rows; ++row) states.emplace_back(p, first + row, segments);
    if (segments == 1) {
      pool.ParallelFor(rows, [&](int64_t row) {
        states[row].Guess();
        states[row].Filter(0);
        states[row].Finish();
      });
      continue;
    }
    for (auto& state : states) state.Guess();
    pool.ParallelFor(rows * segments, [&](int64_t task) { states[task / segments].Filter(task % segments); });
    pool.ParallelFor(rows, [&](int64_t row) { states[row].Finish(); });
  }
}

void TopK(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  TopKParams p = {};
  p.dtype = args.DType("dtype");
  p.x = args.Pointer<const void>("x");
  p.stride = args.Integer("stride");
  p.rows = args.Integer("rows");
  p.length = args.Integer("length");
  p.k = args.Integer("k");
  p.values = args.Pointer<void>("values");
  p.indices = args.Pointer<int32_t>("indices");
  p.sorted = args.Flag("sorted");
  p.tieLarge = args.Flag("tieLarge");
  if (p.k < 1 || p.k > p.length || p.length > INT32_MAX || p.dtype > DType::kFloat32) {
    throw NativeError("INTERNAL", "cpu.topk: arguments that the kernels cannot take; please report");
  }
  switch (p.dtype) {
    case DType::kFloat16:
      return RunTopK<half_t>(p);
    case DType::kBFloat16:
      return RunTopK<bfloat16_t>(p);
    default:
      return RunTopK<float>(p);
  }
}

}  // namespace

void RegisterTopK(FunctionTable& table) { table.Add<TopK>("topk"); }

}  // namespace flashinfer::cpu
