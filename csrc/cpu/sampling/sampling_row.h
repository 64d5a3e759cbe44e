// SPDX-License-Identifier: Apache-2.0
// One row of probabilities or logits, and what becomes of it.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "cpu/sampling/row_values.h"
#include "cpu/sampling/sampling_params.h"

namespace flashinfer::cpu {

template <class T, RowInput kInput>
class SamplingRow : RowValues {
 public:
  SamplingRow(const SamplingParams& p, int64_t row) : p_(p), row_(row) {
    const int64_t source = PerRow(p.indices, static_cast<int32_t>(row), row);
    // A row that is not there is an empty one.
    const bool exists = source >= 0 && source < p.rows;
    const T* x = static_cast<const T*>(p.x) + (exists ? source * p.x_stride : 0);
    Read(exists ? p.vocab : 0, [&](int64_t first, int64_t count, float* values, uint32_t* largest, uint32_t* smallest) {
      RunVersion<ReadLoop<T, kInput>>(x + first, count, values, largest, smallest);
    });
  }

  void Sample() {
    Weigh(PerRow(p_.temperature, p_.temperature_value, row_));
    const bool nucleus = (p_.filters & kTopP) != 0 && TopK() == 0;
    const uint64_t total = nucleus ? Total() : ApplyFilters();
    if (p_.valid != nullptr) p_.valid[row_] = total > 0;
    int32_t token = 0;
    if (total > 0) token = nucleus ? TokenOfNucleus(total) : Token(draw_point(Words(0), total));
    static_cast<int32_t*>(p_.out)[row_] = token;
  }

  void Softmax() {
    float* out = static_cast<float*>(p_.out) + row_ * p_.vocab;
    if (min_key_ == 0 || !(std::fabs(value_of_key(max_key_)) <= kLargestFloat)) {
      std::fill(out, out + count_, std::numeric_limits<float>::quiet_NaN());
      return;
    }
    const RowWeights<kInput> weights(max_key_, PerRow(p_.temperature, p_.temperature_value, row_), 0.0f);
    const uint64_t sum = Sum([&](int64_t first, int64_t count, uint64_t* part) {
      RunVersion<WeighLoop>(&values_[first], count, weights.max, weights.scale, 0.0f, out + first);
      RunVersion<SumLoop>(out + first, out + first, count, 0.0f, weights.factor, part);
    });
    const float factor = reciprocal_sum(sum, weights.factor);
    ForSegments([&](int64_t first, int64_t count, int64_t) { RunVersion<ScaleLoop>(out + first, count, factor); });
  }

  void Renorm() {
    Weigh(1.0f);
    const float factor = reciprocal_sum(ApplyFilters(), factor_);
    T* out = static_cast<T*>(p_.out) + row_ * p_.vocab;
    ForSegments([&](int64_t first, int64_t count, int64_t) {
      RunVersion<RenormLoop<T>>(&values_[first], count, low_, factor, out + first);
    });
  }

  void Mask() {
    const uint32_t key = TopKKey();
    T* out = static_cast<T*>(p_.out) + row_ * p_.vocab;
    const float scale = 1.0f / PerRow(p_.temperature, p_.temperature_value, row_);
    ForSegments([&](int64_t first, int64_t count, int64_t) {
      RunVersion<MaskLoop<T>>(&values_[first], count, key, scale, out + first);
    });
  }

 private:
  /** Probabilities weigh what they are. */
  void Weigh(float temperature) {
    const float min_p = (p_.filters & kMinP) != 0 ? PerRow(p_.min_p, p_.min_p_value, row_) : 0.0f;
    const RowWeights<kInput> weights(max_key_, temperature, min_p);
    factor_ = weights.factor;
    low_ = weights.lowest;
    weights_ = values_;
    if (kInput == RowInput::kProbs) return;
    float* own = static_cast<float*>(RowScratch::Own().weights.Get(count_ * sizeof(float)));
    weights_ = own;
    ForSegments([&](int64_t first, int64_t count, int64_t) {
      const float max = weights.max, scale = weights.scale, floor = weights.floor;
      RunVersion<WeighLoop>(&values_[first], count, max, scale, floor, own + first);
    });
  }

  uint64_t Total() { return WeightFrom(low_, weights_, factor_); }

  Philox4 Words(uint32_t draw) const {
    const uint64_t seed = PerRow(p_.seed, p_.seed_value, p_.seed_per_row ? row_ : 0);
    const uint64_t offset = PerRow(p_.offset, p_.offset_value, p_.offset_per_row ? row_ : 0);
    return draw_words(seed, offset, p_.seed_per_row ? 0 : static_cast<uint32_t>(row_), draw);
  }

  int32_t Token(uint64_t point) const { return TokenAt(point, weights_, low_, factor_); }

  /** As draw_token() of include/flashinfer/sampling/nucleus.cuh. */
  int32_t TokenOfNucleus(uint64_t total) {
    const float top_p = PerRow(p_.top_p, p_.top_p_value, row_);
    if (!(top_p < 1.0f)) return Token(draw_point(Words(0), total));
    const int shift = top_p_shift(total);
    const uint32_t target = top_p_target(top_p, total, shift);
    const float largest = value_of_key(max_key_), largest_weight = kInput == RowInput::kProbs ? largest : 1.0f;
    if (top_p_weight(weight_of(largest_weight, factor_), shift) >= target) {
      low_ = largest;
      const uint64_t kept = Total();
      return Token(draw_point(Words(0), kept));
    }
    for (uint32_t round = 0;; ++round) {
      const Philox4 words = Words(round);
      const int32_t first = Token(draw_point(words, total)), second = Token(second_point(words, total));
      if (UnitsAbove(values_[first], shift) < target) return first;
      if (UnitsAbove(values_[second], shift) < target) return second;
      low_ = next_value(std::max(values_[first], values_[second]));
      total = Total();
    }
  }

  uint64_t UnitsAbove(float value, int shift) {
    const float low = next_value(value);
    return Sum([&](int64_t first, int64_t count, uint64_t* part) {
      RunVersion<UnitsLoop>(&values_[first], weights_ + first, count, low, factor_, shift, part);
    });
  }

  /** How many elements top-k keeps; 0 where it keeps all. */
  int32_t TopK() const {
    const int32_t k = (p_.filters & kTopK) != 0 ? PerRow(p_.top_k, p_.top_k_value, row_) : 0;
    return k > 0 && k < count_ ? k : 0;
  }

  /** The k-th largest key, or 0 where all are kept. A sample gives a bound that a few more than k keys reach. */
  uint32_t TopKKey() const {
    const int32_t k = TopK();
    if (k == 0) return 0;
    std::vector<uint32_t> keys = KeysFrom(GuessTopK(k));
    if (static_cast<int64_t>(keys.size()) < k) keys = KeysFrom(0);
    std::nth_element(keys.begin(), keys.begin() + (k - 1), keys.end(), std::greater<>());
    return keys[k - 1];
  }

  uint32_t GuessTopK(int64_t k) const {
    constexpr int64_t kSamples = 2048;
    if (count_ < 2 * kSamples || k > count_ / 4) return 0;
    std::vector<uint32_t> sample(kSamples);
    for (int64_t i = 0; i < kSamples; ++i) sample[i] = ordered_key(values_[i * count_ / kSamples]);
    const double mean = static_cast<double>(k) * kSamples / static_cast<double>(count_);
    const auto rank = std::min<int64_t>(kSamples - 1, static_cast<int64_t>(mean + 4 * std::sqrt(mean) + 5));
    std::nth_element(sample.begin(), sample.begin() + rank, sample.end(), std::greater<>());
    return sample[rank];
  }

  std::vector<uint32_t> KeysFrom(uint32_t least) const {
    // One place more a segment: CollectLoop writes it.
    auto* found = static_cast<uint32_t*>(RowScratch::Own().keys.Get((count_ + segments_) * sizeof(uint32_t)));
    std::vector<int64_t> numbers(segments_);
    ForSegments([&](int64_t first, int64_t count, int64_t segment) {
      RunVersion<CollectLoop>(&values_[first], count, least, &found[first + segment], &numbers[segment]);
    });
    std::vector<uint32_t> keys;
    for (int64_t segment = 0; segment < segments_; ++segment) {
      const uint32_t* from = &found[segment * kSegment + segment];
      keys.insert(keys.end(), from, from + numbers[segment]);
    }
    return keys;
  }

  /** The largest key from which up the weights reach the target: by its upper 11 bits, then the next, then the last 10. */
  uint32_t TopPKey(float top_p, uint64_t total) const {
    if (!(top_p < 1.0f) || total == 0) return 0;
    const int shift = top_p_shift(total);
    uint32_t target = top_p_target(top_p, total, shift);
    auto* keys = static_cast<uint32_t*>(RowScratch::Own().keys.Get(count_ * sizeof(uint32_t)));
    auto* counted = static_cast<uint32_t*>(RowScratch::Own().counted.Get(count_ * sizeof(uint32_t)));
    std::vector<Bins> parts(segments_);
    ForSegments([&](int64_t first, int64_t count, int64_t segment) {
      RunVersion<TopPLoop>(&values_[first], weights_ + first, count, low_, factor_, shift, &keys[first],
                           &counted[first]);
      parts[segment].assign(kBins, 0);
      for (int64_t i = first; i < first + count; ++i) parts[segment][keys[i] >> 21] += counted[i];
    });
    Bins bins(kBins, 0);
    for (const Bins& part : parts) std::transform(bins.begin(), bins.end(), part.begin(), bins.begin(), std::plus<>());
    const int64_t upper = FindBin(bins, &target);
    if (upper < 0) return 0;  // rounded down, all together weigh less
    std::vector<std::pair<uint32_t, uint32_t>> rest;
    for (int64_t i = 0; i < count_; ++i) {
      if (keys[i] >> 21 == upper) rest.emplace_back(keys[i], counted[i]);
    }
    bins.assign(kBins, 0);
    for (const auto& [key, weight] : rest) bins[(key >> 10) & 2047] += weight;
    const int64_t middle = FindBin(bins, &target);
    bins.assign(1024, 0);
    for (const auto& [key, weight] : rest) bins[key & 1023] += ((key >> 10) & 2047) == middle ? weight : 0;
    return static_cast<uint32_t>(upper << 21 | middle << 10 | FindBin(bins, &target));
  }

  using Bins = std::vector<uint32_t>;
  static constexpr int64_t kBins = 2048;

  /** From the largest down, the bin in which what is left of the target is reached; -1 where it is not. */
  static int64_t FindBin(const Bins& bins, uint32_t* target) {
    int64_t bin = static_cast<int64_t>(bins.size()) - 1;
    for (; bin >= 0 && bins[bin] < *target; --bin) *target -= bins[bin];
    return bin;
  }

  /** Leaves the lowest value that is kept; the sum of the weights from it up. */
  uint64_t ApplyFilters() {
    const float lowest = low_;
    uint32_t key = TopKKey();
    const bool top_p = (p_.filters & kTopP) != 0;
    if (!top_p || (p_.filters & kJoint) == 0) low_ = std::max(lowest, lowest_value(key));
    const uint64_t total = Total();
    if (!top_p) return total;
    key = std::max(key, TopPKey(PerRow(p_.top_p, p_.top_p_value, row_), total));
    const float low = std::max(lowest, lowest_value(key));
    if (low <= low_) return total;
    low_ = low;
    return Total();
  }

  const SamplingParams& p_;
  int64_t row_;
  float factor_ = 0.0f;
  /** What is below is not kept. */
  float low_ = 0.0f;
  const float* weights_ = nullptr;
};

}  // namespace flashinfer::cpu
