// SPDX-License-Identifier: Apache-2.0
// Attention of a batch of requests of any lengths: the single-request templates, driven by a plan's work list.
//
// The plan (packages/core/src/attention/batchPlan.ts) is one int32 buffer: `work`, an item a block row of the grid,
// and `requests`. A block reads its item, builds the request's own parameters from it and runs the same code as a
// single request would. Items with request -1 pad the grid: to the size a CUDA graph was captured with, and to a whole
// number of rows. An item of decode holds its request and its first page ids too: there a chain of reads would take
// longer than the rest of a short batch.
#pragma once
#include <flashinfer/attention/decode.cuh>
#include <flashinfer/attention/prefill.cuh>

namespace flashinfer {

struct WorkItem {
  int request, tile, split;
  /** Of the first item: how many there are. Of decode: whether L2 shall evict what the item reads first. */
  int count_or_eviction;
};

struct RequestRecord {
  int qo_begin, qo_len;
  /** First row of a ragged request, or first entry of a paged request's page list. */
  int kv_start, kv_len;
  int num_splits, kv_chunk, kv_begin;
  /** First row of this request's partial states (of qo_len * num_qo_heads or 16 * states rows a split) and counter. */
  int partial_row, counter;
  /** First byte of the packed custom mask. */
  unsigned mask_begin_low, mask_begin_high;
  /** Of an item of decode: the first entry of the request's page list that the item's listed pages are of. */
  int first_entry;
};
static_assert(sizeof(WorkItem) == 16 && sizeof(RequestRecord) == 48, "the plan writes these as int32 words");

/** The number of this block's item: the grid's y and z count items. */
__device__ __forceinline__ int item_index() { return static_cast<int>(blockIdx.z * gridDim.y + blockIdx.y); }

/** An item, or request -1. */
template <class Params>
__device__ __forceinline__ WorkItem work_item(const Params& batch, int index) {
  const int4 words = __ldg(static_cast<const int4*>(batch.work) + index);
  return {words.x, words.y, words.z, words.w};
}

template <class Params>
__device__ __forceinline__ RequestRecord request_record(const Params& batch, int request) {
  const int4* words = static_cast<const int4*>(batch.requests) + request * 3;
  const int4 a = __ldg(words), b = __ldg(words + 1), c = __ldg(words + 2);
  return {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, c.x, static_cast<unsigned>(c.y), static_cast<unsigned>(c.z), c.w};
}

/** One request's parameters under the names the single-request templates read. */
struct RequestParams {
  const void *q, *k, *v;
  void *o, *lse;
  const void *custom_mask, *alibi_slopes, *sinks, *kv_pages;
  void *partial_o, *partial_lse, *counters;
  int64_t q_stride_n, q_stride_h, k_stride_n, k_stride_h, v_stride_n, v_stride_h, o_stride_n, o_stride_h;
  int64_t k_stride_page, v_stride_page;
  int qo_len, kv_len, num_qo_heads, group_size, num_splits, kv_chunk, kv_begin, window_left, page_size;
  unsigned page_size_multiplier;
  float sm_scale, logits_soft_cap, rcp_logits_soft_cap, rope_rcp_scale, rope_log2_theta, v_scale, lse_factor;
};

/** What custom variants read besides: the request's number, and the batch's params, which have the variant's fields. */
template <class Batch>
struct BatchRequest : RequestParams {
  const Batch* batch;
  int batch_idx;
  /** Of decode: this lane's word of the block's item, and what the item says of its pages. */
  static constexpr int kFirstPageWord = 16, kListedPages = 16;
  int item_word, first_entry, evicts_first;
};

template <class Batch>
__device__ __forceinline__ VariantRequest variant_request(const BatchRequest<Batch>& r) {
  const int num_kv_heads = r.num_qo_heads / r.group_size;
  return {r.batch_idx, r.qo_len, r.kv_len, r.num_qo_heads, num_kv_heads, r.window_left, r.sm_scale};
}

template <class Batch>
__device__ __forceinline__ const Batch& variant_fields(const BatchRequest<Batch>& r) {
  return *r.batch;
}

template <class C, bool PAGED, class Params>
__device__ __forceinline__ BatchRequest<Params> request_params(const Params& batch, int request,
                                                               const RequestRecord& r) {
  constexpr int64_t kOutBytes = sizeof(typename C::T), kKvBytes = sizeof(typename C::KvT);
  BatchRequest<Params> p;
  p.batch = &batch;
  p.batch_idx = request;
  p.q = static_cast<const char*>(batch.q) + r.qo_begin * batch.q_stride_n * kOutBytes;
  p.o = static_cast<char*>(batch.o) + r.qo_begin * batch.o_stride_n * kOutBytes;
  p.lse = batch.lse == nullptr ? nullptr
                               : static_cast<float*>(batch.lse) + static_cast<int64_t>(r.qo_begin) * batch.num_qo_heads;
  const int64_t first_row = PAGED ? 0 : r.kv_start;
  p.k = static_cast<const char*>(batch.k) + first_row * batch.k_stride_n * kKvBytes;
  p.v = static_cast<const char*>(batch.v) + first_row * batch.v_stride_n * kKvBytes;
  p.kv_pages = PAGED ? static_cast<const int32_t*>(batch.kv_indices) + r.kv_start : nullptr;
  p.custom_mask = static_cast<const uint8_t*>(batch.custom_mask) +
                  (static_cast<uint64_t>(r.mask_begin_low) | static_cast<uint64_t>(r.mask_begin_high) << 32);
  p.alibi_slopes = batch.alibi_slopes;
  p.sinks = batch.sinks;
  p.partial_o = static_cast<float*>(batch.partial_o) + static_cast<int64_t>(r.partial_row) * C::D_VO;
  p.partial_lse = static_cast<float*>(batch.partial_lse) + r.partial_row;
  p.counters = static_cast<unsigned*>(batch.counters) + r.counter;
  p.q_stride_n = batch.q_stride_n;
  p.q_stride_h = batch.q_stride_h;
  p.k_stride_n = batch.k_stride_n;
  p.k_stride_h = batch.k_stride_h;
  p.v_stride_n = batch.v_stride_n;
  p.v_stride_h = batch.v_stride_h;
  p.o_stride_n = batch.o_stride_n;
  p.o_stride_h = batch.o_stride_h;
  p.k_stride_page = batch.k_stride_page;
  p.v_stride_page = batch.v_stride_page;
  p.qo_len = r.qo_len;
  p.kv_len = r.kv_len;
  p.num_qo_heads = batch.num_qo_heads;
  p.group_size = batch.group_size;
  p.num_splits = r.num_splits;
  p.kv_chunk = r.kv_chunk;
  p.kv_begin = r.kv_begin;
  p.window_left = batch.window_left;
  p.page_size = batch.page_size;
  p.page_size_multiplier = batch.page_size_multiplier;
  p.sm_scale = batch.sm_scale;
  p.logits_soft_cap = batch.logits_soft_cap;
  p.rcp_logits_soft_cap = batch.rcp_logits_soft_cap;
  p.rope_rcp_scale = batch.rope_rcp_scale;
  p.rope_log2_theta = batch.rope_log2_theta;
  p.v_scale = batch.v_scale;
  p.lse_factor = batch.lse_factor;
  return p;
}

/** Grid: (KV heads, items, items): the heads of an item run together, so that they finish together. */
template <class C, bool PAGED, class Params>
__device__ __forceinline__ void batch_decode(const Params& batch) {
  extern __shared__ __align__(128) char smem[];
  require_shared_bytes(C::kSharedBytes);
  const int word = __ldg(static_cast<const int*>(batch.work) + item_index() * 32 + threadIdx.x % 32);
  const auto at = [&](int i) { return __shfl_sync(0xffffffffu, word, i); };
  const WorkItem item{at(0), at(1), at(2), at(3)};
  if (item.request < 0) return;
  const RequestRecord record{at(4),
                             at(5),
                             at(6),
                             at(7),
                             at(8),
                             at(9),
                             at(10),
                             at(11),
                             at(12),
                             static_cast<unsigned>(at(13)),
                             static_cast<unsigned>(at(14)),
                             at(15)};
  BatchRequest<Params> params = request_params<C, PAGED>(batch, item.request, record);
  params.item_word = word;
  params.first_entry = record.first_entry;
  params.evicts_first = item.count_or_eviction;
  decode_rows<C>(params, smem, item.split, blockIdx.x, item.tile);
}

/** Grid: (KV heads, items, items). */
template <class C, bool PAGED, class Params>
__device__ __forceinline__ void batch_prefill(const Params& batch) {
  extern __shared__ __align__(128) char smem[];
  require_shared_bytes(C::kSharedBytes);
  const WorkItem item = work_item(batch, item_index());
  if (item.request < 0) return;
  const RequestRecord record = request_record(batch, item.request);
  const BatchRequest<Params> params = request_params<C, PAGED>(batch, item.request, record);
  prefill_tile<C>(params, smem, item.split, blockIdx.x, item.tile);
}

/**
 * Merges the states of split prefill. Items of (request, first of 128 groups of four output elements) are dealt to the
 * blocks of any grid, of MergeConfig::kGroups * kThreads threads; requests without splits have none. Those that pad the list of a CUDA graph come last.
 */
template <class C, class Params>
__device__ __forceinline__ void batch_merge_splits(const Params& batch) {
  wait_for_previous_grid();
  for (int i = blockIdx.x; i < batch.num_merge_items; i += gridDim.x) {
    const WorkItem item = work_item(batch, batch.first_merge_item + i);
    if (item.request < 0) return;
    const RequestRecord record = request_record(batch, item.request);
    const BatchRequest<Params> params = request_params<C, false>(batch, item.request, record);
    merge_splits_at<C>(params, item.tile);
  }
}

}  // namespace flashinfer
