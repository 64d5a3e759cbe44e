// SPDX-License-Identifier: Apache-2.0
// Packs bytes that are zero or not into bits.
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

/** Element 8 * i + b of `src` becomes bit b of byte i of `dst`; `count` elements, missing ones are 0. */
template <class Params>
__device__ __forceinline__ void pack_bits_little(const Params& params) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t count = params.count;
  if (index * 8 >= count) return;
  const uint8_t* src = static_cast<const uint8_t*>(params.src) + index * 8;
  unsigned bits = 0;
  for (int b = 0; b < 8 && index * 8 + b < count; ++b) bits |= (src[b] != 0 ? 1u : 0u) << b;
  static_cast<uint8_t*>(params.dst)[index] = static_cast<uint8_t>(bits);
}

}  // namespace flashinfer
