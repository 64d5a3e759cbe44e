// SPDX-License-Identifier: Apache-2.0
// The last elements of a row, fewer than a vector has lanes; included by kernel files after vec.h.
#pragma once
#include "cpu/isa/vec.h"

namespace flashinfer::cpu::FLASHINFER_ISA {

/** The first `count` lanes from memory, the rest 0. */
template <class T>
FLASHINFER_INLINE Vec LoadPartial(const T* p, int64_t count) {
  T buffer[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) buffer[i] = p[i];
  return Load(buffer);
}

/** The first `count` lanes. */
template <class T>
FLASHINFER_INLINE void StorePartial(T* p, Vec x, int64_t count) {
  T buffer[kLanes];
  Store(buffer, x);
  for (int64_t i = 0; i < count; ++i) p[i] = buffer[i];
}

/** body(offset, lanes) over `count` elements: whole vectors, then what is left. */
template <class Body>
FLASHINFER_INLINE void ForVectors(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, count - i);
}

/** Loads `count` lanes, which is kLanes but for the last vector of a row. */
template <class T>
FLASHINFER_INLINE Vec LoadLanes(const T* p, int64_t count) {
  return count == kLanes ? Load(p) : LoadPartial(p, count);
}

template <class T>
FLASHINFER_INLINE void StoreLanes(T* p, Vec x, int64_t count) {
  if (count == kLanes) {
    Store(p, x);
  } else {
    StorePartial(p, x, count);
  }
}

}  // namespace flashinfer::cpu::FLASHINFER_ISA
