// SPDX-License-Identifier: Apache-2.0
// Packs bytes that are zero or not into bits.
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

/** BIG: the first of eight elements becomes the highest bit, else the lowest. SEGMENTED: each segment starts a byte. */
template <bool BIG, bool SEGMENTED>
struct PackBitsConfig {
  static constexpr bool kBig = BIG;
  static constexpr bool kSegmented = SEGMENTED;
};

namespace detail {

/** Byte i of `elements`, in memory order, decides bit i (or 7 - i) of the result. */
template <bool BIG>
FLASHINFER_HOST_DEVICE uint32_t pack_eight(uint64_t elements) {
  constexpr uint64_t kLow7 = 0x7f7f7f7f7f7f7f7fu, kOnes = 0x0101010101010101u;
  const uint64_t ones = ((((elements & kLow7) + kLow7) | elements) >> 7) & kOnes;
  // Multiplying moves each one to its own bit of the highest byte, without carries.
  return static_cast<uint32_t>((ones * (BIG ? 0x8040201008040201u : 0x0102040810204080u)) >> 56);
}

template <bool BIG>
FLASHINFER_HOST_DEVICE uint32_t pack_some(const uint8_t* src, int64_t count) {
  uint32_t bits = 0;
  for (int i = 0; i < 8 && i < count; ++i) bits |= (src[i] != 0 ? 1u : 0u) << (BIG ? 7 - i : i);
  return bits;
}

#ifdef __CUDACC__
/** Eight bytes at any address; `begin` and `end` bound what may be read. */
__device__ __forceinline__ uint64_t load_eight(const uint8_t* src, const uint8_t* begin, const uint8_t* end) {
  const uint64_t address = reinterpret_cast<uint64_t>(src);
  const uint64_t* aligned = reinterpret_cast<const uint64_t*>(address & ~uint64_t{7});
  const unsigned shift = static_cast<unsigned>(address & 7u) * 8;
  if (shift == 0) return *aligned;
  if (reinterpret_cast<const uint8_t*>(aligned) >= begin && reinterpret_cast<const uint8_t*>(aligned + 2) <= end) {
    return (aligned[0] >> shift) | (aligned[1] << (64 - shift));
  }
  uint64_t bytes = 0;
  for (int i = 0; i < 8; ++i) bytes |= static_cast<uint64_t>(src[i]) << (8 * i);
  return bytes;
}

/** Last segment that starts at or before `index`. */
__device__ __forceinline__ int find_segment(const int32_t* indptr, int segments, int32_t index) {
  int low = 0, high = segments - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (indptr[middle] <= index) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}
#endif

}  // namespace detail

#ifdef __CUDACC__
/**
 * params: src, dst, count = elements of src, bytes = bytes of dst; where segmented also segments and their first
 * elements and bytes, src_indptr and dst_indptr, int32 [segments + 1]. One byte of dst a thread.
 */
template <class Config, class Params>
__device__ __forceinline__ void pack_bits(const Params& params) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= params.bytes) return;
  const uint8_t* begin = static_cast<const uint8_t*>(params.src);
  const uint8_t* end = begin + params.count;
  const uint8_t* src = begin + index * 8;
  int64_t present = params.count - index * 8;
  if constexpr (Config::kSegmented) {
    const int32_t* src_indptr = static_cast<const int32_t*>(params.src_indptr);
    const int32_t* dst_indptr = static_cast<const int32_t*>(params.dst_indptr);
    const int segment = detail::find_segment(dst_indptr, params.segments, static_cast<int32_t>(index));
    const int64_t first = src_indptr[segment] + (index - dst_indptr[segment]) * 8;
    src = begin + first;
    present = src_indptr[segment + 1] - first;
  }
  const uint32_t bits = present >= 8 ? detail::pack_eight<Config::kBig>(detail::load_eight(src, begin, end))
                                     : detail::pack_some<Config::kBig>(src, present);
  static_cast<uint8_t*>(params.dst)[index] = static_cast<uint8_t>(bits);
}
#endif

}  // namespace flashinfer
