// SPDX-License-Identifier: Apache-2.0
// Thresholds of a row: the largest key such that what is not below it weighs as much as asked for.
//
// A histogram of what lies up to 2^16 below the largest value, in 128 bins an octave, leaves few candidates in the bin
// that crosses the target; these are listed and settled one by one. Where they are too many, as in rows of equal values,
// histograms of further digits follow.
#pragma once
#include <flashinfer/sampling/row.cuh>

namespace flashinfer {

/** Bits of the keys that the first histogram tells apart, from the largest down: 16 octaves. */
constexpr int kFirstKeyBits = 27;

/** ordered_key() less `high`, downwards, of what read_value() gave. */
template <RowInput kInput>
__device__ __forceinline__ uint32_t key_distance(uint32_t high, float x) {
  return kInput == RowInput::kProbs ? (high ^ 0x80000000u) - __float_as_uint(x) : high - ordered_key(x);
}

/**
 * The histogram of the keys from `low` to `high`, from the highest down in steps of 2^shift; the last bin takes the rest.
 * kAll: no key is outside.
 */
template <RowInput kInput, bool kAll, class RowType, class Group, class Weigh>
__device__ Crossing key_histogram(const RowType& row, Group& group, uint32_t target, uint32_t low, uint32_t high,
                                  int shift, const Weigh& weigh) {
  const uint32_t range = high - low;
  return group.histogram([&] { return target; },
                         [&](const auto& add) {
                           row.for_each([&](int, const float (&values)[4]) {
#pragma unroll
                             for (int k = 0; k < 4; ++k) {
                               const uint32_t distance = key_distance<kInput>(high, values[k]);
                               if (kAll || distance <= range) add(distance >> shift, weigh(values[k]));
                             }
                           });
                         });
}

/** The shift of the first histogram of a row. */
template <class Group>
constexpr int kFirstShift = kFirstKeyBits - Group::kBinBits;

/**
 * The largest key t with sum of weigh(x) over ordered_key(x) >= t of at least `target`; 0 where all weigh less. `first` is
 * the crossing in the first histogram where that `is_known`.
 */
template <RowInput kInput, class RowType, class Group, class Weigh>
__device__ uint32_t select_key(const RowType& row, Group& group, uint32_t max_key, uint32_t target, const Weigh& weigh,
                               const Crossing& first = {}, bool is_known = false) {
  constexpr int kListedBits = 16;
  uint32_t low = 0, high = max_key;
  int shift = kFirstShift<Group>;
  Crossing crossing = first;
  if (!is_known) crossing = key_histogram<kInput, true>(row, group, target, low, high, shift, weigh);
  if (!crossing.found) return 0;
  for (;;) {
    target -= crossing.before;
    high -= crossing.bin << shift;
    const uint32_t step = 1u << shift;
    if (crossing.bin < Group::kBins - 1 && high - low >= step) low = high - step + 1;
    if (high == low) return low;
    const int bits = 32 - __clz(high - low);
    if (bits <= kListedBits && low > 0) {
      Candidates candidates;
      if (group.gather(row, low, high, candidates)) {
        return group.settle(candidates, low, high, target, weigh(value_of_key(candidates.mine.key)));
      }
    }
    shift = bits > Group::kBinBits ? bits - Group::kBinBits : 0;
    crossing = key_histogram<kInput, false>(row, group, target, low, high, shift, weigh);
  }
}

}  // namespace flashinfer
