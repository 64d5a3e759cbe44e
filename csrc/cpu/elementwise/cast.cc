// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <type_traits>

#include "cpu/elementwise/dispatch.h"
#include "cpu/elementwise/elementwise.h"
#include "cpu/elementwise/parallel.h"
#include "cpu/elementwise/versions.h"
#include "flashinfer/elementwise/convert.cuh"

namespace flashinfer::cpu {
namespace {

// Elements a thread takes at least: below this, waking another thread costs more than it saves.
constexpr int64_t kGrain = 1 << 16;

template <class Src, class Dst>
struct CastLoop {
  static FLASHINFER_HOST_DEVICE void Run(const Src* src, Dst* dst, int64_t count) {
    for (int64_t i = 0; i < count; i++) dst[i] = convert<Dst>(src[i]);
  }
};

/** Bytes that claim to be bool may hold anything; reading one as `bool` would be undefined. */
template <class Dst>
struct CastLoop<bool, Dst> {
  static FLASHINFER_HOST_DEVICE void Run(const bool* src, Dst* dst, int64_t count) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(src);
    const Dst one = convert<Dst>(uint8_t{1});
    for (int64_t i = 0; i < count; i++) dst[i] = bytes[i] != 0 ? one : Dst{};
  }
};

template <class Src, class Dst>
void CastTyped(const void* src, void* dst, int64_t count) {
  const Src* typed_src = static_cast<const Src*>(src);
  Dst* typed_dst = static_cast<Dst*>(dst);
  ParallelChunks(count, kGrain, [=](int64_t begin, int64_t end) {
    if constexpr (std::is_same_v<Src, Dst>) {
      std::memcpy(typed_dst + begin, typed_src + begin, static_cast<size_t>(end - begin) * sizeof(Src));
    } else {
      RunVersion<CastLoop<Src, Dst>>(typed_src + begin, typed_dst + begin, end - begin);
    }
  });
}

}  // namespace

void Cast(const void* src, DType src_dtype, void* dst, DType dst_dtype, int64_t count) {
  VisitDType(src_dtype, "cpu.cast", [&](auto src_tag) {
    VisitDType(dst_dtype, "cpu.cast", [&](auto dst_tag) {
      CastTyped<typename decltype(src_tag)::type, typename decltype(dst_tag)::type>(src, dst, count);
    });
  });
}

}  // namespace flashinfer::cpu
