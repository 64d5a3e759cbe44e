// SPDX-License-Identifier: Apache-2.0
// `appendPagedKv`, `batchIndicesPositions` and `seqLens` of NativeCpu; the rules are those of include/flashinfer/page.cuh.
#include <algorithm>
#include <cstring>

#include "cpu/call_args.h"
#include "cpu/elementwise/parallel.h"
#include "cpu/entries.h"

namespace flashinfer::cpu {
namespace {

/** Bytes a thread copies at least. */
constexpr int64_t kGrain = int64_t{1} << 15;

/** New k or v `[rows, heads, width]` and its half of the cache; strides and width in bytes. */
struct AppendHalf {
  const uint8_t* from;
  uint8_t* to;
  int64_t width, strideN, strideH, cacheStridePage, cacheStrideN, cacheStrideH;
};

struct AppendParams {
  AppendHalf k, v;
  int64_t rows, heads, pageSize, numPages, batchSize, numIndices;
  const int32_t *batchIndices, *positions, *kvIndices, *kvIndptr;
};

void CopyToken(const AppendHalf& half, int64_t heads, int64_t row, int64_t page, int64_t entry) {
  const uint8_t* from = half.from + row * half.strideN;
  uint8_t* to = half.to + page * half.cacheStridePage + entry * half.cacheStrideN;
  const auto width = static_cast<size_t>(half.width);
  if (half.strideH == half.width && half.cacheStrideH == half.width) {
    std::memcpy(to, from, width * static_cast<size_t>(heads));
    return;
  }
  for (int64_t head = 0; head < heads; ++head) {
    std::memcpy(to + head * half.cacheStrideH, from + head * half.strideH, width);
  }
}

void AppendToken(const AppendParams& p, int64_t row) {
  const int32_t request = p.batchIndices[row], position = p.positions[row];
  if (request < 0 || request >= p.batchSize || position < 0) return;
  const int64_t index = p.kvIndptr[request] + position / p.pageSize;
  if (index < 0 || index >= p.kvIndptr[request + 1] || index >= p.numIndices) return;
  const int32_t page = p.kvIndices[index];
  if (page < 0 || page >= p.numPages) return;
  CopyToken(p.k, p.heads, row, page, position % p.pageSize);
  CopyToken(p.v, p.heads, row, page, position % p.pageSize);
}

void AppendPagedKv(CpuState& state, JsValue object) {
  const CallArgs args(state.env, object.value);
  AppendParams p = {};
  p.k = {args.Pointer<const uint8_t>("k"), args.Pointer<uint8_t>("kCache"), args.Integer("kWidth"),
         args.Integer("kStrideN"),         args.Integer("kStrideH"),        args.Integer("kCacheStridePage"),
         args.Integer("kCacheStrideN"),    args.Integer("kCacheStrideH")};
  p.v = {args.Pointer<const uint8_t>("v"), args.Pointer<uint8_t>("vCache"), args.Integer("vWidth"),
         args.Integer("vStrideN"),         args.Integer("vStrideH"),        args.Integer("vCacheStridePage"),
         args.Integer("vCacheStrideN"),    args.Integer("vCacheStrideH")};
  p.rows = args.Integer("rows");
  p.heads = args.Integer("heads");
  p.pageSize = args.Integer("pageSize");
  p.numPages = args.Integer("numPages");
  p.batchSize = args.Integer("batchSize");
  p.numIndices = args.Integer("numIndices");
  p.batchIndices = args.Pointer<const int32_t>("batchIndices");
  p.positions = args.Pointer<const int32_t>("positions");
  p.kvIndices = args.Pointer<const int32_t>("kvIndices");
  p.kvIndptr = args.Pointer<const int32_t>("kvIndptr");
  const int64_t bytes = std::max<int64_t>(1, p.heads * (p.k.width + p.v.width));
  ParallelChunks(p.rows, std::max<int64_t>(1, kGrain / bytes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) AppendToken(p, row);
  });
}

void BatchIndicesPositions(CpuState&, uint64_t append_indptr, uint64_t seq_lens, uint64_t batch_size,
                           uint64_t batch_indices, uint64_t positions, uint64_t rows) {
  const auto* indptr = reinterpret_cast<const int32_t*>(append_indptr);
  const auto* lengths = reinterpret_cast<const int32_t*>(seq_lens);
  auto* requests = reinterpret_cast<int32_t*>(batch_indices);
  auto* places = reinterpret_cast<int32_t*>(positions);
  std::fill_n(requests, rows, -1);
  std::fill_n(places, rows, 0);
  for (int64_t r = 0; r < static_cast<int64_t>(batch_size); ++r) {
    const int64_t end = std::min<int64_t>(indptr[r + 1], static_cast<int64_t>(rows));
    for (int64_t row = std::max(0, indptr[r]); row < end; ++row) {
      requests[row] = static_cast<int32_t>(r);
      places[row] = static_cast<int32_t>(lengths[r] - (indptr[r + 1] - row));
    }
  }
}

void SeqLens(CpuState&, uint64_t kv_indptr, uint64_t kv_last_page_len, uint64_t batch_size, uint64_t page_size,
             uint64_t seq_lens) {
  const auto* indptr = reinterpret_cast<const int32_t*>(kv_indptr);
  const auto* last = reinterpret_cast<const int32_t*>(kv_last_page_len);
  auto* lengths = reinterpret_cast<int32_t*>(seq_lens);
  for (uint64_t r = 0; r < batch_size; ++r) {
    lengths[r] = std::max(indptr[r + 1] - indptr[r] - 1, 0) * static_cast<int32_t>(page_size) + last[r];
  }
}

}  // namespace

void RegisterPage(FunctionTable& table) {
  table.Add<AppendPagedKv>("appendPagedKv");
  table.Add<BatchIndicesPositions>("batchIndicesPositions");
  table.Add<SeqLens>("seqLens");
}

}  // namespace flashinfer::cpu
