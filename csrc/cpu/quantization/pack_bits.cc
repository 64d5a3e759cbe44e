// SPDX-License-Identifier: Apache-2.0
// `packBits` of NativeCpu: bytes that are zero or not → bits.
#include "flashinfer/pack_bits.cuh"

#include <algorithm>
#include <cstring>

#include "cpu/elementwise/parallel.h"
#include "cpu/elementwise/versions.h"
#include "cpu/entries.h"

namespace flashinfer::cpu {
namespace {

/** Bytes of dst a thread takes at least. */
constexpr int64_t kGrain = int64_t{1} << 14;

/** `count` elements → ceil(count / 8) bytes. */
template <bool BIG>
struct PackLoop {
  static FLASHINFER_HOST_DEVICE void Run(const uint8_t* src, uint8_t* dst, int64_t count) {
    const int64_t whole = count / 8;
    for (int64_t i = 0; i < whole; ++i) {
      uint64_t elements;
      std::memcpy(&elements, src + i * 8, sizeof(elements));
      dst[i] = static_cast<uint8_t>(detail::pack_eight<BIG>(elements));
    }
    if (whole * 8 < count)
      dst[whole] = static_cast<uint8_t>(detail::pack_some<BIG>(src + whole * 8, count - whole * 8));
  }
};

struct Segments {
  const int32_t* src;
  const int32_t* dst;
  int64_t count;
};

/** Bytes [begin, end) of dst, which may span segments. */
template <bool BIG>
void PackRange(const uint8_t* src, uint8_t* dst, const Segments& segments, int64_t begin, int64_t end) {
  const int32_t* past = std::upper_bound(segments.dst, segments.dst + segments.count, begin);
  for (int64_t s = past - segments.dst - 1; begin < end; ++s) {
    const int64_t last = std::min<int64_t>(end, segments.dst[s + 1]);
    const int64_t first = segments.src[s] + (begin - segments.dst[s]) * 8;
    const int64_t count = std::min<int64_t>(segments.src[s + 1] - first, (last - begin) * 8);
    if (count > 0) RunVersion<PackLoop<BIG>>(src + first, dst + begin, count);
    begin = last;
  }
}

template <bool BIG>
void Pack(const uint8_t* src, uint8_t* dst, int64_t count, const Segments& segments) {
  if (segments.count > 0) {
    ParallelChunks(segments.dst[segments.count], kGrain,
                   [&](int64_t begin, int64_t end) { PackRange<BIG>(src, dst, segments, begin, end); });
    return;
  }
  ParallelChunks((count + 7) / 8, kGrain, [&](int64_t begin, int64_t end) {
    RunVersion<PackLoop<BIG>>(src + begin * 8, dst + begin, std::min(count - begin * 8, (end - begin) * 8));
  });
}

void PackBits(CpuState&, uint64_t src, uint64_t dst, uint64_t count, bool big, uint64_t src_indptr, uint64_t dst_indptr,
              uint64_t num_segments) {
  const Segments segments = {reinterpret_cast<const int32_t*>(src_indptr), reinterpret_cast<const int32_t*>(dst_indptr),
                             static_cast<int64_t>(num_segments)};
  const auto pack = big ? Pack<true> : Pack<false>;
  pack(reinterpret_cast<const uint8_t*>(src), reinterpret_cast<uint8_t*>(dst), static_cast<int64_t>(count), segments);
}

}  // namespace

void RegisterPackBits(FunctionTable& table) { table.Add<PackBits>("packBits"); }

}  // namespace flashinfer::cpu
