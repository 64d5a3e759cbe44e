// SPDX-License-Identifier: Apache-2.0
// `sampling` of NativeCpu: tokens, softmax and filters of rows, by the weights of include/flashinfer/sampling.
#include "flashinfer/sampling/weights.cuh"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "cpu/call_args.h"
#include "cpu/elementwise/dispatch.h"
#include "cpu/elementwise/versions.h"
#include "cpu/entries.h"

namespace flashinfer::cpu {
namespace {

enum class Kind { kSoftmax, kSampleProbs, kSampleLogits, kRenormProbs, kMaskLogits };

struct SamplingParams {
  Kind kind;
  DType dtype;
  const void* x;
  void* out;
  bool* valid;
  const int32_t *indices, *top_k;
  const float *temperature, *top_p, *min_p;
  const uint64_t *seed, *offset;
  int64_t x_stride, rows, out_rows, vocab;
  int filters, top_k_value;
  float temperature_value, top_p_value, min_p_value;
  uint64_t seed_value, offset_value;
  bool seed_per_row, offset_per_row;
};

template <class V>
V PerRow(const V* values, V value, int64_t row) {
  return values != nullptr ? values[row] : value;
}

template <class T, RowInput kInput>
struct ReadLoop {
  static FLASHINFER_HOST_DEVICE void Run(const T* x, int64_t count, float* values, uint32_t* keys, uint32_t* largest) {
    uint32_t top = 0;
    for (int64_t i = 0; i < count; ++i) {
      values[i] = read_value<kInput>(to_float(x[i]));
      keys[i] = ordered_key(values[i]);
      top = keys[i] > top ? keys[i] : top;
    }
    *largest = top;
  }
};

struct KeptSumLoop {
  static FLASHINFER_HOST_DEVICE void Run(const uint64_t* weights, const uint32_t* keys, int64_t count, uint32_t lowest,
                                         uint64_t* sum) {
    uint64_t total = 0;
    for (int64_t i = 0; i < count; ++i) total += keys[i] >= lowest ? weights[i] : 0;
    *sum = total;
  }
};

/** One row, reused from row to row by one thread. */
template <class T, RowInput kInput>
class SamplingRow {
 public:
  SamplingRow(const SamplingParams& p, int64_t row) : p_(p), row_(row) {
    const int64_t source = PerRow(p.indices, static_cast<int32_t>(row), row);
    // A row that is not there is an empty one.
    count_ = source >= 0 && source < p.rows ? p.vocab : 0;
    values_.resize(count_);
    keys_.resize(count_);
    RunVersion<ReadLoop<T, kInput>>(static_cast<const T*>(p.x) + (count_ > 0 ? source * p.x_stride : 0), count_,
                                    values_.data(), keys_.data(), &max_key_);
  }

  void Sample() {
    Weigh(PerRow(p_.temperature, p_.temperature_value, row_), MinP());
    const uint64_t total = ApplyFilters();
    if (p_.valid != nullptr) p_.valid[row_] = total > 0;
    int32_t token = 0;
    if (total > 0) {
      const uint64_t seed = PerRow(p_.seed, p_.seed_value, p_.seed_per_row ? row_ : 0);
      const uint64_t offset = PerRow(p_.offset, p_.offset_value, p_.offset_per_row ? row_ : 0);
      const uint32_t stream_row = p_.seed_per_row ? 0 : static_cast<uint32_t>(row_);
      const uint64_t point = draw_point(draw_words(seed, offset, stream_row), total);
      uint64_t sum = 0;
      for (;; ++token) {
        if (keys_[token] >= lowest_key_) sum += weights_[token];
        if (sum > point) break;
      }
    }
    static_cast<int32_t*>(p_.out)[row_] = token;
  }

  void Softmax() {
    float* out = static_cast<float*>(p_.out) + row_ * p_.vocab;
    const bool has_nan = std::find(keys_.begin(), keys_.end(), 0u) != keys_.end();
    const float max = value_of_key(max_key_);
    if (has_nan || !(std::fabs(max) <= kLargestFloat)) {
      std::fill(out, out + count_, std::numeric_limits<float>::quiet_NaN());
      return;
    }
    const RowWeights<kInput> weights(max_key_, PerRow(p_.temperature, p_.temperature_value, row_), 0.0f);
    uint64_t sum = 0;
    for (int64_t i = 0; i < count_; ++i) {
      out[i] = weights.value(values_[i]);
      sum += weight_of(out[i], weights.factor);
    }
    const float factor = reciprocal_sum(sum, weights.factor);
    for (int64_t i = 0; i < count_; ++i) out[i] *= factor;
  }

  void Renorm() {
    Weigh(1.0f, MinP());
    const float factor = reciprocal_sum(ApplyFilters(), factor_);
    T* out = static_cast<T*>(p_.out) + row_ * p_.vocab;
    for (int64_t i = 0; i < count_; ++i) {
      const bool kept = keys_[i] >= lowest_key_ && values_[i] >= lowest_;
      out[i] = from_float<T>(kept ? values_[i] * factor : 0.0f);
    }
  }

  void Mask() {
    const uint32_t key = TopKKey();
    T* out = static_cast<T*>(p_.out) + row_ * p_.vocab;
    const float scale = 1.0f / PerRow(p_.temperature, p_.temperature_value, row_);
    for (int64_t i = 0; i < count_; ++i)
      out[i] = from_float<T>(keys_[i] >= key ? values_[i] * scale : -std::numeric_limits<float>::infinity());
  }

 private:
  float MinP() const { return (p_.filters & kMinP) != 0 ? PerRow(p_.min_p, p_.min_p_value, row_) : 0.0f; }

  void Weigh(float temperature, float min_p) {
    const RowWeights<kInput> weights(max_key_, temperature, min_p);
    factor_ = weights.factor;
    lowest_ = weights.lowest;
    weights_.resize(count_);
    for (int64_t i = 0; i < count_; ++i) weights_[i] = weights(values_[i]);
  }

  uint64_t Total() const {
    uint64_t total = 0;
    RunVersion<KeptSumLoop>(weights_.data(), keys_.data(), count_, lowest_key_, &total);
    return total;
  }

  uint32_t TopKKey() const {
    const int32_t k = PerRow(p_.top_k, p_.top_k_value, row_);
    if (k < 1 || k >= count_) return 0;
    std::vector<uint32_t> keys(keys_);
    std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end(), std::greater<>());
    return keys[k - 1];
  }

  /** Digit by digit: the largest key from which up the weights reach the target. */
  uint32_t TopPKey(float top_p, uint64_t total) const {
    if (!(top_p < 1.0f) || total == 0) return 0;
    const int shift = top_p_shift(total);
    uint32_t target = top_p_target(top_p, total, shift), prefix = 0;
    for (int low_bit = 24; low_bit >= 0; low_bit -= 8) {
      uint32_t bins[256] = {};
      for (int64_t i = 0; i < count_; ++i) {
        if (keys_[i] < lowest_key_ || static_cast<uint64_t>(keys_[i]) >> (low_bit + 8) != prefix) continue;
        bins[(keys_[i] >> low_bit) & 255] += top_p_weight(weights_[i], shift);
      }
      int bin = 255;
      for (; bin >= 0 && bins[bin] < target; --bin) target -= bins[bin];
      if (bin < 0) return 0;  // rounded down, all together weigh less
      prefix = prefix << 8 | static_cast<uint32_t>(bin);
    }
    return prefix;
  }

  uint64_t ApplyFilters() {
    uint32_t key = (p_.filters & kTopK) != 0 ? TopKKey() : 0;
    if ((p_.filters & kJoint) == 0) lowest_key_ = key;
    const uint64_t total = Total();
    if ((p_.filters & kTopP) != 0) key = std::max(key, TopPKey(PerRow(p_.top_p, p_.top_p_value, row_), total));
    if (key <= lowest_key_) return total;
    lowest_key_ = key;
    return Total();
  }

  const SamplingParams& p_;
  int64_t row_, count_ = 0;
  uint32_t max_key_ = 0, lowest_key_ = 0;
  float factor_ = 0.0f, lowest_ = 0.0f;
  std::vector<float> values_;
  std::vector<uint32_t> keys_;
  std::vector<uint64_t> weights_;
};

template <class T>
void RunSampling(const SamplingParams& p) {
  ThreadPool::Get().ParallelFor(p.out_rows, [&](int64_t row) {
    switch (p.kind) {
      case Kind::kSoftmax:
        return SamplingRow<T, RowInput::kRaw>(p, row).Softmax();
      case Kind::kSampleProbs:
        return SamplingRow<T, RowInput::kProbs>(p, row).Sample();
      case Kind::kSampleLogits:
        return SamplingRow<T, RowInput::kLogits>(p, row).Sample();
      case Kind::kRenormProbs:
        return SamplingRow<T, RowInput::kProbs>(p, row).Renorm();
      case Kind::kMaskLogits:
        return SamplingRow<T, RowInput::kRaw>(p, row).Mask();
    }
  });
}

void Sampling(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  SamplingParams p = {};
  p.kind = static_cast<Kind>(args.Int32("kind"));
  p.dtype = args.DType("dtype");
  p.x = args.Pointer<const void>("x");
  p.out = args.Pointer<void>("out");
  p.valid = args.Pointer<bool>("valid");
  p.indices = args.Pointer<const int32_t>("indices");
  p.temperature = args.Pointer<const float>("temperature");
  p.top_k = args.Pointer<const int32_t>("top_k");
  p.top_p = args.Pointer<const float>("top_p");
  p.min_p = args.Pointer<const float>("min_p");
  p.seed = args.Pointer<const uint64_t>("seed");
  p.offset = args.Pointer<const uint64_t>("offset");
  p.x_stride = args.Integer("x_stride");
  p.rows = args.Integer("rows");
  p.out_rows = args.Integer("out_rows");
  p.vocab = args.Integer("vocab");
  p.filters = args.Int32("filters");
  p.temperature_value = args.Float("temperature_value");
  p.top_k_value = args.Int32("top_k_value");
  p.top_p_value = args.Float("top_p_value");
  p.min_p_value = args.Float("min_p_value");
  p.seed_value = args.BigUint64("seed_value");
  p.offset_value = args.BigUint64("offset_value");
  p.seed_per_row = args.Int32("seed_per_row") != 0;
  p.offset_per_row = args.Int32("offset_per_row") != 0;
  if (p.vocab < 1 || p.vocab > int64_t{1} << kMaxVocabBits || p.dtype > DType::kFloat32) {
    throw NativeError("INTERNAL", "cpu.sampling: arguments that the kernels cannot take; please report");
  }
  switch (p.dtype) {
    case DType::kFloat16:
      return RunSampling<half_t>(p);
    case DType::kBFloat16:
      return RunSampling<bfloat16_t>(p);
    default:
      return RunSampling<float>(p);
  }
}

}  // namespace

void RegisterSampling(FunctionTable& table) { table.Add<Sampling>("sampling"); }

}  // namespace flashinfer::cpu
