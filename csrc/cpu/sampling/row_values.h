// SPDX-License-Identifier: Apache-2.0
// The values of one row. Threads share it in segments, unless the rows themselves keep them busy.
#pragma once
#include <algorithm>
#include <vector>

#include "cpu/elementwise/versions.h"
#include "cpu/sampling/row_loops.h"
#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace flashinfer::cpu {

/** Of the thread whose row it is. Taken from the system for every row, its pages would cost more than the work on them. */
struct RowScratch {
  Scratch values, weights, keys, counted;

  static RowScratch& Own() {
    thread_local RowScratch scratch;
    return scratch;
  }
};

/** Threads take rows, or where those are too few, parts of one row after the other. */
template <class Body>
void ForRows(int64_t rows, const Body& body) {
  ThreadPool& pool = ThreadPool::Get();
  if (rows >= pool.NumThreads()) {
    pool.ParallelFor(rows, body);
  } else {
    for (int64_t row = 0; row < rows; ++row) body(row);
  }
}

class RowValues {
 protected:
  /** Elements that a thread takes at once: some 10 us. */
  static constexpr int64_t kSegment = 1 << 13;

  /** body(first, count, segment) */
  template <class Body>
  void ForSegments(const Body& body) const {
    ThreadPool::Get().ParallelFor(segments_, [&](int64_t segment) {
      const int64_t first = segment * kSegment;
      body(first, std::min(kSegment, count_ - first), segment);
    });
  }

  /** Of body(first, count, &part) over all segments, whose parts stay in sums_. */
  template <class Body>
  uint64_t Sum(const Body& body) {
    sums_.assign(segments_, 0);
    ForSegments([&](int64_t first, int64_t count, int64_t segment) { body(first, count, &sums_[segment]); });
    uint64_t total = 0;
    for (const uint64_t part : sums_) total += part;
    return total;
  }

  /** read(first, count, values, &largest key, &smallest key) for each segment. */
  template <class ReadSegment>
  void Read(int64_t count, const ReadSegment& read) {
    count_ = count;
    segments_ = (count + kSegment - 1) / kSegment;
    values_ = static_cast<float*>(RowScratch::Own().values.Get(count * sizeof(float)));
    std::vector<uint32_t> largest(segments_), smallest(segments_);
    ForSegments([&](int64_t first, int64_t part, int64_t segment) {
      read(first, part, values_ + first, &largest[segment], &smallest[segment]);
    });
    for (const uint32_t key : largest) max_key_ = std::max(max_key_, key);
    for (const uint32_t key : smallest) min_key_ = std::min(min_key_, key);
  }

  /** The sum of the weights of values from `low` up; its parts stay. */
  uint64_t WeightFrom(float low, const float* weights, float factor) {
    return Sum([&](int64_t first, int64_t count, uint64_t* part) {
      RunVersion<SumLoop>(values_ + first, weights + first, count, low, factor, part);
    });
  }

  /** The first element whose inclusive prefix sum is above `point`, after WeightFrom() with the same arguments. */
  int32_t TokenAt(uint64_t point, const float* weights, float low, float factor) const {
    int64_t segment = 0;
    for (; sums_[segment] <= point; ++segment) point -= sums_[segment];
    for (int64_t token = segment * kSegment;; ++token) {
      const uint64_t weight = integer_weight(kept_weight(values_[token], weights[token], low), factor);
      if (weight > point) return static_cast<int32_t>(token);
      point -= weight;
    }
  }

  int64_t count_ = 0, segments_ = 0;
  float* values_ = nullptr;
  uint32_t max_key_ = 0, min_key_ = 0xffffffffu;

 private:
  std::vector<uint64_t> sums_;
};

}  // namespace flashinfer::cpu
