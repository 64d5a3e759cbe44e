// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace flashinfer {

/** N elements that move in one memory instruction of up to 16 bytes. */
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  static_assert(sizeof(T) * N <= 16, "the widest memory instruction moves 16 bytes");
  T values[N];
};

}  // namespace flashinfer
