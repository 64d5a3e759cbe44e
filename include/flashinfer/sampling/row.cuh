// SPDX-License-Identifier: Apache-2.0
// One row of probabilities or logits, dealt to the warps of a cluster in contiguous segments, and the selection of
// thresholds in it.
//
// Bytes and passes. A row is read from memory once where the segments fit shared memory (128256 float32 are 501 KiB:
// eight blocks of 63 KiB, two of them a multiprocessor, so that one row loads while another computes); all further
// passes stay on chip. A threshold is found by histograms of 11, 11 and 10 bits of the ordered key; ahead of them, one of
// each thread's largest value only gives a lower bound for the first digit, which spares most elements the atomics.
#pragma once
#include <flashinfer/sampling/row_group.cuh>
#include <flashinfer/vector.cuh>

namespace flashinfer {

/** kVec: 4 where rows are aligned to four elements and as long, else 1. kShared: segments fit shared memory. kDifference: of two rows. */
template <class T_, int kVec_, bool kShared_, int kThreads_, bool kDifference_ = false>
struct RowConfig {
  using T = T_;
  static constexpr int kVec = kVec_;
  static constexpr bool kShared = kShared_;
  static constexpr int kThreads = kThreads_;
  static constexpr bool kDifference = kDifference_;
};

template <class Config, RowInput kInput>
class Row {
 public:
  using T = typename Config::T;
  using Group = RowGroup<Config::kThreads>;

  /** `segment`: elements a warp, a multiple of 128. */
  __device__ Row(Group& group, const T* data, int length, int segment)
      : group_(group),
        data_(data),
        buffer_(group.buffer(segment)),
        begin_(group.warp() * segment),
        length_(length),
        segment_(segment) {}

  /** Takes `other` away element by element, before load(). */
  __device__ void subtract(const T* other) { minus_ = other; }

  /** Reads the row; the thread's largest value. */
  __device__ float load() {
    constexpr int kBatch = 4;  // loads in flight
    top_ = padding_value<kInput>();
    for (int base = 4 * group_.lane(); base < segment_; base += 128 * kBatch) {
      float values[kBatch][4];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) load_global(base + 128 * j, values[j]);
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int i = base + 128 * j;
        if (i >= segment_) break;
        if (Config::kShared)
          *reinterpret_cast<float4*>(buffer_ + i) = make_float4(values[j][0], values[j][1], values[j][2], values[j][3]);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          if (ordered_key(values[j][k]) > ordered_key(top_)) top_ = values[j][k];
        }
      }
    }
    return top_;
  }

  /** The thread's largest value. */
  __device__ float top() const { return top_; }

  /** body(index, values): the thread's elements, four at a time; past the end of the row, padding. */
  template <class Body>
  __device__ __forceinline__ void for_each(const Body& body) const {
#pragma unroll 2
    for (int i = 4 * group_.lane(); i < segment_; i += 128) {
      float values[4];
      fetch(i, values);
      body(begin_ + i, values);
    }
  }

  /** As for_each, in step over the warp, until body(index, values) is false, which it is in all lanes. */
  template <class Body>
  __device__ __forceinline__ void scan(const Body& body) const {
    for (int i = 0; i < segment_; i += 128) {
      float values[4];
      fetch(i + 4 * group_.lane(), values);
      if (!body(begin_ + i + 4 * group_.lane(), values)) return;
    }
  }

  /** Writes value(x) for every element; rows of `out` are aligned as those of the input. */
  template <class Out, class Value>
  __device__ __forceinline__ void write(Out* out, const Value& value) const {
    for_each([&](int index, const float (&values)[4]) {
      float results[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) results[k] = value(values[k]);
      if constexpr (Config::kVec == 4) {
        if (index < length_) store<Out, 4>(out + index, pack<Out>(results));
      } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          if (index + k < length_) out[index + k] = from_float<Out>(results[k]);
        }
      }
    });
  }

  /** The largest key t with sum of weigh(x) over ordered_key(x) >= t of at least `target`; 0 where all weigh less. */
  template <class Weigh>
  __device__ uint32_t select(uint32_t target, bool bound, const Weigh& weigh) const {
    uint32_t lowest = 0;
    if (bound) {
      const Crossing coarse = group_.histogram(target, [&](const auto& add) {
        const uint32_t weight = weigh(top_);
        if (weight != 0) add(ordered_key(top_) >> 21, weight);
      });
      if (coarse.found) lowest = coarse.bin << 21;
    }
    const Crossing first = digit<21, 11>(target, lowest, 0xffffffffu, weigh);
    if (!first.found) return 0;
    const uint32_t high = first.bin << 21;
    const Crossing second = digit<10, 11>(target - first.above, high, high | 0x1fffffu, weigh);
    const uint32_t middle = high | (second.bin << 10);
    const Crossing third = digit<0, 10>(target - first.above - second.above, middle, middle | 0x3ffu, weigh);
    return middle | third.bin;
  }

 private:
  /** The histogram of one digit over the keys from `low` to `high`. */
  template <int kShift, int kBits, class Weigh>
  __device__ Crossing digit(uint32_t target, uint32_t low, uint32_t high, const Weigh& weigh) const {
    return group_.histogram(target, [&](const auto& add) {
      // Neighbours of one bin are added first: rows of equal values would queue up at one address.
      uint32_t bin = 0, sum = 0;
      for_each([&](int, const float (&values)[4]) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const uint32_t key = ordered_key(values[k]);
          if (key < low || key > high) continue;
          const uint32_t weight = weigh(values[k]);
          const uint32_t next = (key >> kShift) & ((1u << kBits) - 1);
          if (next != bin) {
            if (sum != 0) add(bin, sum);
            bin = next;
            sum = 0;
          }
          sum += weight;
        }
      });
      if (sum != 0) add(bin, sum);
    });
  }

  __device__ __forceinline__ void fetch(int i, float (&values)[4]) const {
    if constexpr (Config::kShared) {
      const float4 four = *reinterpret_cast<const float4*>(buffer_ + i);
      values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
    } else {
      load_global(i, values);
    }
  }

  __device__ __forceinline__ void load_global(int i, float (&values)[4]) const {
    const int index = begin_ + i;
    if constexpr (Config::kVec == 4) {
      if (i < segment_ && index < length_) {
        unpack<T>(load_once<T, 4>(data_ + index), values);
        take_away<4>(index, values);
#pragma unroll
        for (int k = 0; k < 4; ++k) values[k] = read_value<kInput>(values[k]);
      } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) values[k] = padding_value<kInput>();
      }
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        values[k] = padding_value<kInput>();
        if (i < segment_ && index + k < length_) {
          float one[1];
          unpack<T>(load_once<T, 1>(data_ + index + k), one);
          take_away<1>(index + k, one);
          values[k] = read_value<kInput>(one[0]);
        }
      }
    }
  }

  template <int kCount>
  __device__ __forceinline__ void take_away(int index, float (&values)[kCount]) const {
    if constexpr (Config::kDifference) {
      if (minus_ == nullptr) return;
      float others[kCount];
      unpack<T>(load_once<T, kCount>(minus_ + index), others);
#pragma unroll
      for (int k = 0; k < kCount; ++k) values[k] -= others[k];
    }
  }

  Group& group_;
  const T* data_;
  const T* minus_ = nullptr;
  float* buffer_;
  int begin_;
  int length_;
  int segment_;
  float top_;
};

}  // namespace flashinfer
