// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <string>

#include "binding/error.h"
#include "cpu/elementwise/elementwise.h"
#include "cpu/elementwise/parallel.h"

namespace flashinfer::cpu {
namespace {

constexpr int64_t kGrainBytes = 1 << 18;
constexpr int64_t kTile = 32;

struct Dim {
  int64_t size, src, dst;
};

/** Dimensions from the slowest to the fastest of dst, at least one; packages/core/src/tensor/copyPlan.ts orders them. */
struct Layout {
  Dim dims[kMaxCopyRank] = {};
  int rank = 0;
};

Layout MakeLayout(const StridedCopyArgs& args) {
  Layout layout;
  layout.rank = args.rank;
  for (int d = 0; d < args.rank; d++) layout.dims[d] = {args.shape[d], args.src_strides[d], args.dst_strides[d]};
  if (layout.rank == 0) layout.dims[layout.rank++] = {1, 1, 1};
  return layout;
}

/** Walks the outer dimensions in order, keeping both offsets without a division a step. */
class OuterWalk {
 public:
  OuterWalk(const Dim* dims, int rank, int64_t start) : dims_(dims), rank_(rank) {
    for (int d = rank - 1; d >= 0; d--) {
      index_[d] = start % dims[d].size;
      start /= dims[d].size;
      src += index_[d] * dims[d].src;
      dst += index_[d] * dims[d].dst;
    }
  }
  void Next() {
    for (int d = rank_ - 1; d >= 0; d--) {
      src += dims_[d].src;
      dst += dims_[d].dst;
      if (++index_[d] < dims_[d].size) return;
      index_[d] = 0;
      src -= dims_[d].size * dims_[d].src;
      dst -= dims_[d].size * dims_[d].dst;
    }
  }
  int64_t src = 0, dst = 0;

 private:
  const Dim* dims_;
  int rank_;
  int64_t index_[kMaxCopyRank] = {};
};

template <class T>
void CopyRow(const T* src, T* dst, int64_t count, int64_t src_stride, int64_t dst_stride) {
  if (src_stride == 1 && dst_stride == 1) {
    std::memcpy(dst, src, static_cast<size_t>(count) * sizeof(T));
  } else if (dst_stride == 1) {
    for (int64_t i = 0; i < count; i++) dst[i] = src[i * src_stride];
  } else {
    for (int64_t i = 0; i < count; i++) dst[i * dst_stride] = src[i * src_stride];
  }
}

/** The fastest dimension of dst is the inner loop; long rows are cut so that few rows still fill all threads. */
template <class T>
void CopyRows(const T* src, T* dst, const Layout& layout) {
  const int outer_rank = layout.rank - 1;
  const Dim inner = layout.dims[outer_rank];
  int64_t rows = 1;
  for (int d = 0; d < outer_rank; d++) rows *= layout.dims[d].size;
  constexpr int64_t kPiece = kGrainBytes / static_cast<int64_t>(sizeof(T));
  const int64_t pieces = (inner.size + kPiece - 1) / kPiece;
  const int64_t grain = std::max<int64_t>(1, kPiece / inner.size);
  ParallelChunks(rows * pieces, grain, [&](int64_t begin, int64_t end) {
    int64_t piece = begin % pieces;
    OuterWalk walk(layout.dims, outer_rank, begin / pieces);
    for (int64_t item = begin; item < end; item++) {
      const int64_t first = piece * kPiece;
      CopyRow(src + walk.src + first * inner.src, dst + walk.dst + first * inner.dst,
              std::min(kPiece, inner.size - first), inner.src, inner.dst);
      if (++piece == pieces) {
        piece = 0;
        walk.Next();
      }
    }
  });
}

/** Where the dimension before the last is src's fastest: square tiles, so that both sides use whole cache lines. */
template <class T>
void CopyTransposed(const T* src, T* dst, Layout layout) {
  const Dim across = layout.dims[layout.rank - 2];
  const Dim along = layout.dims[layout.rank - 1];
  const int64_t across_tiles = (across.size + kTile - 1) / kTile;
  const int64_t along_tiles = (along.size + kTile - 1) / kTile;
  const int outer_rank = layout.rank;
  layout.dims[outer_rank - 2] = {across_tiles, across.src * kTile, across.dst * kTile};
  layout.dims[outer_rank - 1] = {along_tiles, along.src * kTile, along.dst * kTile};
  int64_t tiles = 1;
  for (int d = 0; d < outer_rank; d++) tiles *= layout.dims[d].size;
  constexpr int64_t kGrain = std::max<int64_t>(1, kGrainBytes / (kTile * kTile * static_cast<int64_t>(sizeof(T))));
  ParallelChunks(tiles, kGrain, [&](int64_t begin, int64_t end) {
    OuterWalk walk(layout.dims, outer_rank, begin);
    for (int64_t tile = begin; tile < end; tile++, walk.Next()) {
      const int64_t along_tile = tile % along_tiles;
      const int64_t across_tile = tile / along_tiles % across_tiles;
      const int64_t width = std::min(kTile, along.size - along_tile * kTile);
      const int64_t height = std::min(kTile, across.size - across_tile * kTile);
      for (int64_t i = 0; i < height; i++) {
        CopyRow(src + walk.src + i * across.src, dst + walk.dst + i * across.dst, width, along.src, along.dst);
      }
    }
  });
}

bool IsTransposed(const Layout& layout) {
  if (layout.rank < 2) return false;
  const Dim& across = layout.dims[layout.rank - 2];
  const Dim& along = layout.dims[layout.rank - 1];
  return across.src == 1 && along.src != 1 && along.src != 0 && across.size >= 4 && along.size >= 4;
}

template <class T>
void CopyTyped(const StridedCopyArgs& args) {
  const T* src = static_cast<const T*>(args.src);
  T* dst = static_cast<T*>(args.dst);
  const Layout layout = MakeLayout(args);
  if (IsTransposed(layout)) {
    CopyTransposed(src, dst, layout);
  } else {
    CopyRows(src, dst, layout);
  }
}

}  // namespace

void StridedCopy(const StridedCopyArgs& args) {
  for (int d = 0; d < args.rank; d++) {
    if (args.shape[d] == 0) return;
  }
  switch (args.element_bytes) {
    case 1:
      return CopyTyped<uint8_t>(args);
    case 2:
      return CopyTyped<uint16_t>(args);
    case 4:
      return CopyTyped<uint32_t>(args);
    case 8:
      return CopyTyped<uint64_t>(args);
    default:
      throw NativeError("INTERNAL", "cpu.stridedCopy: elements of " + std::to_string(args.element_bytes) +
                                        " bytes; expected 1, 2, 4 or 8");
  }
}

}  // namespace flashinfer::cpu
