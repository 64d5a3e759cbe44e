// SPDX-License-Identifier: Apache-2.0
// One row of probabilities or logits, dealt to the warps of a cluster in contiguous segments.
//
// Bytes. A row is read from memory once where it fits the cluster: 128256 float32 are 501 KiB, of which two blocks of
// 1024 threads hold 416 KiB in shared memory and the rest in registers, or eight blocks of 256 threads, of which four share
// a multiprocessor, so that rows load while others are worked on. Small batches take more blocks a row, so that all
// multiprocessors read. All further passes stay on chip.
#pragma once
#include <flashinfer/cp_async.cuh>
#include <flashinfer/sampling/select_group.cuh>
#include <flashinfer/vector.cuh>

namespace flashinfer {

/**
 * kVec: 4 where rows are aligned to four elements and as long, else 1. kShared: segments fit shared memory. kSelects:
 * thresholds are looked for. kDifference: of two rows.
 */
template <class T_, int kVec_, bool kShared_, int kThreads_, bool kSelects_, bool kDifference_ = false>
struct RowConfig {
  using T = T_;
  static constexpr int kVec = kVec_;
  static constexpr bool kShared = kShared_;
  static constexpr int kThreads = kThreads_;
  static constexpr bool kSelects = kSelects_;
  static constexpr bool kDifference = kDifference_;
  /** Clusters may work on several rows; else registers do not suffice. */
  static constexpr bool kLoops = kThreads == 512;
  /** Accesses of a warp at the start of its segment that stay in registers. */
  static constexpr int kHeld = kShared ? (kThreads == 512 ? 6 : 3) : 0;
};

template <int kThreads, bool kSelects>
struct GroupOf {
  using Type = RowGroup<kThreads>;
};
template <int kThreads>
struct GroupOf<kThreads, true> {
  using Type = SelectGroup<kThreads>;
};
template <class Config>
using GroupFor = typename GroupOf<Config::kThreads, Config::kSelects>::Type;

/** kWritten: the row is written in the end. */
template <class Config, RowInput kInput, bool kWritten_ = false>
class Row {
 public:
  static constexpr bool kWritten = kWritten_;
  /** sum() is known. */
  static constexpr bool kSums = kWritten && kInput == RowInput::kProbs;
  using T = typename Config::T;
  using Group = GroupFor<Config>;

  /** `segment`: elements a warp, a multiple of 128, and 128 * kHeld or more. */
  __device__ Row(Group& group, int segment)
      : group_(group),
        buffer_(group.buffer() + group.warp_in_block() * (segment - kHeldElements) - kHeldElements),
        begin_(group.warp() * segment),
        segment_(segment) {}

  /** Takes `other` away element by element, before start(). */
  __device__ void subtract(const T* other) { minus_ = other; }

  /** Begins to read a row, in place of the one before. */
  __device__ void start(const T* data, int length) {
    data_ = data;
    length_ = length;
    if constexpr (kCopies) {
#pragma unroll
      for (int j = 0; j < Config::kHeld; ++j) load_held(j);
      copy(kHeldElements, middle());
      copy(middle(), segment_);
    }
  }

  /** Behind start(): has read the row; the thread's largest value. */
  __device__ float load() {
    group_.open();
    top_ = padding_value<kInput>();
    sum_ = 0.0f;
    has_nan_ = false;
    if constexpr (kCopies) {
      cp_async_wait<1>();
      see_copied(kHeldElements, middle());
      cp_async_wait<0>();
      see_copied(middle(), segment_);
#pragma unroll
      for (int j = 0; j < Config::kHeld; ++j) {
#pragma unroll
        for (int k = 0; k < 4; ++k) held_[j][k] = read_value<kInput>(held_[j][k]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < Config::kHeld; ++j) load_global(128 * j + 4 * group_.lane(), held_[j]);
      load_converted();
    }
#pragma unroll
    for (int j = 0; j < Config::kHeld; ++j) see(held_[j]);
    group_.ready();
    return top_;
  }

  /** The thread's elements, with what stands behind the end. */
  __device__ int count() const { return segment_ / 32; }

  /** Of the thread's elements, about; not NaN. Of probabilities that are written alone. */
  __device__ float sum() const { return sum_; }

  /** NaN among the thread's elements, of a row for softmax. */
  __device__ bool has_nan() const { return has_nan_; }

  /**
   * put(place + n, key, index) for the n-th of the thread's elements from key `low`, not 0, to `high`, which are few:
   * `place` is what reserve(count), which all lanes call, gives for as many; below 0 for no room.
   */
  template <class Reserve, class Put>
  __device__ void find_each(uint32_t low, uint32_t high, const Reserve& reserve, const Put& put) const {
    const float lowest = lowest_value(low), highest = value_of_key(high);
    if (!__any_sync(0xffffffffu, top_ >= lowest)) return;
    // First which, by bits: what is done with one is too much code to be there for every element.
#pragma unroll 1
    for (int chunk = 0; chunk < segment_; chunk += kChunk) {
      const int end = chunk + kChunk < segment_ ? chunk + kChunk : segment_;
      uint64_t found = 0;  // the last four in the lowest bits
      const auto look = [&](const float (&values)[4]) {
        uint32_t bits = 0;
#pragma unroll
        for (int k = 0; k < 4; ++k) bits |= values[k] >= lowest && values[k] <= highest ? 1u << k : 0;
        found = found << 4 | bits;
      };
      int i = chunk;
      if (chunk == 0) {
#pragma unroll
        for (int j = 0; j < Config::kHeld; ++j) look(held_[j]);
        i = kHeldElements;
      }
#pragma unroll 4
      for (; i < end; i += 128) {
        float values[4];
        fetch(i + 4 * group_.lane(), values);
        look(values);
      }
      int n = reserve(__popcll(found));
#pragma unroll 1
      for (; n >= 0 && found != 0; found &= found - 1, ++n) {
        const int bit = __ffsll(static_cast<long long>(found)) - 1;
        const int place = end - 128 - bit / 4 * 128 + 4 * group_.lane();
        put(n, ordered_key(value_at(place, bit % 4)), static_cast<uint32_t>(begin_ + place + bit % 4));
      }
    }
  }

  /** body(index, values): the thread's elements, four at a time; past the end of the row, padding. */
  template <class Body>
  __device__ __forceinline__ void for_each(const Body& body) const {
#pragma unroll
    for (int j = 0; j < Config::kHeld; ++j) {
      float values[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) values[k] = opaque(held_[j][k]);
      body(begin_ + 128 * j + 4 * group_.lane(), values);
      __syncwarp();
    }
#pragma unroll kUnroll
    for (int i = kHeldElements + 4 * group_.lane(); i < segment_; i += 128) {
      float values[4];
      fetch(i, values);
      body(begin_ + i, values);
    }
  }

  /** As for_each, in step over the warp, until body(index, values) is false, which it is in all lanes. */
  template <class Body>
  __device__ __forceinline__ void scan(const Body& body) const {
#pragma unroll
    for (int j = 0; j < Config::kHeld; ++j) {
      if (!body(begin_ + 128 * j + 4 * group_.lane(), held_[j])) return;
    }
    for (int i = kHeldElements; i < segment_; i += 128) {
      float values[4];
      fetch(i + 4 * group_.lane(), values);
      if (!body(begin_ + i + 4 * group_.lane(), values)) return;
    }
  }

  /** replace(values): puts other values in the place of the row's, which is on chip. */
  template <class Replace>
  __device__ __forceinline__ void replace_each(const Replace& replace) {
    static_assert(Config::kShared, "memory stays as it is");
#pragma unroll
    for (int j = 0; j < Config::kHeld; ++j) replace(held_[j]);
#pragma unroll 2
    for (int i = kHeldElements + 4 * group_.lane(); i < segment_; i += 128) {
      float values[4];
      fetch(i, values);
      replace(values);
      *reinterpret_cast<float4*>(buffer_ + i) = make_float4(values[0], values[1], values[2], values[3]);
    }
  }

  /** Writes value(x) for every element; rows of `out` are aligned as those of the input. */
  template <class Out, class Value>
  __device__ __forceinline__ void write(Out* out, const Value& value) const {
    for_each([&](int index, const float (&values)[4]) { write_four(out, index, values, value); });
  }

  /** As write(), and start() of a row as long where `next` is one: what is written makes room for it. */
  template <class Out, class Value>
  __device__ __forceinline__ void write_and_start(Out* out, const Value& value, const T* next) {
    if constexpr (kCopies) {
      data_ = next;
#pragma unroll
      for (int j = 0; j < Config::kHeld; ++j) {
        write_four(out, begin_ + 128 * j + 4 * group_.lane(), held_[j], value);
        if (next != nullptr) load_held(j);
      }
      write_and_copy(out, value, kHeldElements, middle());
      write_and_copy(out, value, middle(), segment_);
    } else {
      write(out, value);
      data_ = next;
    }
  }

 private:
  static constexpr int kHeldElements = 128 * Config::kHeld;
  /** What registers suffice for: with 4 top-p renorm took 269 us in place of 283, top-p sampling 225 of 214 (H200, 512 rows). */
  static constexpr int kUnroll = kWritten && Config::kLoops ? 4 : 2;
  /** As many of a warp's elements as a lane has bits for. */
  static constexpr int kChunk = 128 * 16;

  /** Elements go from memory to shared memory as they are, all at once, without a stop in registers. */
  static constexpr bool kCopies = Config::kShared && Config::kVec == 4 && sizeof(T) == 4 && !Config::kDifference;

  /** Rows are waited for in two halves. */
  __device__ int middle() const { return kHeldElements + (segment_ - kHeldElements) / 256 * 128; }

  __device__ __forceinline__ void load_held(int j) {
    const int index = begin_ + 128 * j + 4 * group_.lane();
    if (index < length_) {
      unpack<T>(load_once<T, 4>(data_ + index), held_[j]);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) held_[j][k] = padding_value<kInput>();
    }
  }

  __device__ __forceinline__ void copy(int first, int end) {
    for (int i = first + 4 * group_.lane(); i < end; i += 128) copy_four(i);
    cp_async_commit();
  }

  __device__ __forceinline__ void copy_four(int i) {
    if (begin_ + i < length_) {
      cp_async_16(shared_address(buffer_ + i), data_ + begin_ + i, true);
    } else {
      const float padding = padding_value<kInput>();
      *reinterpret_cast<float4*>(buffer_ + i) = make_float4(padding, padding, padding, padding);
    }
  }

  template <class Out, class Value>
  __device__ __forceinline__ void write_and_copy(Out* out, const Value& value, int first, int end) {
#pragma unroll 2
    for (int i = first + 4 * group_.lane(); i < end; i += 128) {
      float values[4];
      fetch(i, values);
      write_four(out, begin_ + i, values, value);
      if (data_ != nullptr) copy_four(i);
    }
    cp_async_commit();
  }

  template <class Out, class Value>
  __device__ __forceinline__ void write_four(Out* out, int index, const float (&values)[4], const Value& value) const {
    float results[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) results[k] = value(values[k]);
    if constexpr (Config::kVec == 4) {
      if (index < length_) store_once<Out, 4>(out + index, pack<Out>(results));
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (index + k < length_) out[index + k] = from_float<Out>(results[k]);
      }
    }
  }

  /** As read, in place of what was copied. */
  __device__ __forceinline__ void see_copied(int first, int end) {
    if constexpr (kInput == RowInput::kProbs) {
      // Bits order what is neither negative nor NaN; of those that have to be read otherwise all are larger.
      uint32_t largest = 0;
      float sum = 0.0f;
#pragma unroll 2
      for (int i = first + 4 * group_.lane(); i < end; i += 128) {
        float values[4];
        fetch(i, values);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const uint32_t bits = __float_as_uint(values[k]);
          largest = bits > largest ? bits : largest;
        }
        if constexpr (kSums) sum += (values[0] + values[1]) + (values[2] + values[3]);
      }
      if (largest <= __float_as_uint(kLargestFloat)) {
        top_ = fmaxf(top_, __uint_as_float(largest));
        sum_ += sum;
        return;
      }
    }
#pragma unroll 2
    for (int i = first + 4 * group_.lane(); i < end; i += 128) {
      float values[4];
      fetch(i, values);
      if constexpr (kInput == RowInput::kProbs || kInput == RowInput::kLogits) {
#pragma unroll
        for (int k = 0; k < 4; ++k) values[k] = read_value<kInput>(values[k]);
        *reinterpret_cast<float4*>(buffer_ + i) = make_float4(values[0], values[1], values[2], values[3]);
      }
      see(values);
    }
  }

  __device__ __forceinline__ void load_converted() {
    constexpr int kBatch = Config::kThreads == 512 ? 8 : 4;  // loads in flight, and those of kHeld
    for (int base = kHeldElements + 4 * group_.lane(); base < segment_; base += 128 * kBatch) {
      float values[kBatch][4];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) load_global(base + 128 * j, values[j]);
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int i = base + 128 * j;
        if (i >= segment_) break;
        if (Config::kShared)
          *reinterpret_cast<float4*>(buffer_ + i) = make_float4(values[j][0], values[j][1], values[j][2], values[j][3]);
        see(values[j]);
      }
    }
  }

  __device__ __forceinline__ void see(const float (&values)[4]) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      top_ = fmaxf(top_, values[k]);  // the other for NaN
      if constexpr (kInput == RowInput::kSoftmax) has_nan_ |= values[k] != values[k];
      if constexpr (kSums) sum_ += values[k];
    }
  }

  /** The same value, of which the compiler computes nothing ahead of time: results would take the registers. */
  static __device__ __forceinline__ float opaque(float x) {
    asm volatile("" : "+f"(x));
    return x;
  }

  /** Element k of the four at i, which the lane reads. */
  __device__ __forceinline__ float value_at(int i, int k) const {
    float values[4];
    if (i >= kHeldElements) {
      fetch(i, values);
    } else {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        values[n] = 0.0f;
#pragma unroll
        for (int j = 0; j < Config::kHeld; ++j) {
          const float held = opaque(held_[j][n]);  // a register: what is chosen by an index would go to memory
          values[n] = i / 128 == j ? held : values[n];
        }
      }
    }
    const float low = k % 2 == 0 ? values[0] : values[1], high = k % 2 == 0 ? values[2] : values[3];
    return k < 2 ? low : high;
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
  const T* data_ = nullptr;
  const T* minus_ = nullptr;
  float* buffer_;
  int begin_;
  int length_ = 0;
  int segment_;
  float top_;
  float sum_ = 0.0f;
  bool has_nan_ = false;
  float held_[Config::kHeld + 1][4];
};

}  // namespace flashinfer
