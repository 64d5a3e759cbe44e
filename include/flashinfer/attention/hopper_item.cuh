// SPDX-License-Identifier: Apache-2.0
// The work items of the fa3 template: what a block takes next.
#pragma once
#include <flashinfer/attention/batch.cuh>
#include <flashinfer/attention/hopper_config.cuh>

namespace flashinfer {

/** One item as the loader hands it to a warpgroup. */
struct HopperItem {
  int request, tile, head, qo_begin, qo_len, kv_len, first, end;
};

/** What a warpgroup needs to know of its request. */
template <class C, class Params>
__device__ __forceinline__ BatchRequest<Params> hopper_request(const Params& batch, const HopperItem& item) {
  BatchRequest<Params> p;
  p.batch = &batch;
  p.batch_idx = item.request;
  p.o = static_cast<char*>(batch.o) + item.qo_begin * batch.o_stride_n * static_cast<int64_t>(sizeof(typename C::T));
  p.lse = batch.lse == nullptr
              ? nullptr
              : static_cast<float*>(batch.lse) + static_cast<int64_t>(item.qo_begin) * batch.num_qo_heads;
  p.alibi_slopes = batch.alibi_slopes;
  p.sinks = batch.sinks;
  p.o_stride_n = batch.o_stride_n;
  p.o_stride_h = batch.o_stride_h;
  p.qo_len = item.qo_len;
  p.kv_len = item.kv_len;
  p.num_qo_heads = batch.num_qo_heads;
  p.group_size = batch.group_size;
  p.window_left = batch.window_left;
  p.sm_scale = batch.sm_scale;
  p.logits_soft_cap = batch.logits_soft_cap;
  p.rcp_logits_soft_cap = batch.rcp_logits_soft_cap;
  p.v_scale = batch.v_scale;
  p.lse_factor = batch.lse_factor;
  return p;
}

/** How many items there are. In a CUDA graph the number may change from replay to replay: the plan has it. */
template <class C, class Params>
__device__ __forceinline__ int hopper_num_items(const Params& batch) {
  if constexpr (C::BATCH) return work_item(batch, 0).count_or_eviction;
  else return batch.num_items;
}

/** Item `index` without its tiles of keys; `kv_start` is the first row of its keys, or the first entry of its page list. */
template <class C, class Params>
__device__ __forceinline__ HopperItem hopper_work(const Params& batch, int num_items, int index, int head,
                                                  int& kv_start) {
  if constexpr (C::BATCH) {
    const WorkItem work = work_item(batch, index);
    const RequestRecord record = request_record(batch, work.request);
    kv_start = record.kv_start;
    return {work.request, work.tile, head, record.qo_begin, record.qo_len, record.kv_len, 0, 0};
  } else {
    kv_start = 0;
    // The last tile sees the most keys under the causal rule.
    return {0, num_items - 1 - index, head, 0, batch.qo_len, batch.kv_len, 0, 0};
  }
}

/**
 * The item of a place in the launch's order; request -1 where there is none. All items of one section of heads come before
 * the next, so that the keys and values of those at work stay in the second-level cache.
 */
template <class C, class Params>
__device__ __forceinline__ HopperItem hopper_item(const Params& batch, int num_items, int place, int& kv_start) {
  if (num_items <= 0) return {-1, 0, 0, 0, 0, 0, 0, 0};
  const int section = place / (num_items * batch.head_section);
  const int heads = min(batch.head_section, batch.num_kv_heads - section * batch.head_section);
  const int rest = place - section * num_items * batch.head_section;
  if (heads <= 0 || rest >= num_items * heads) return {-1, 0, 0, 0, 0, 0, 0, 0};
  HopperItem item =
      hopper_work<C>(batch, num_items, rest / heads, section * batch.head_section + rest % heads, kv_start);
  const BatchRequest<Params> request = hopper_request<C>(batch, item);
  const int tokens = C::kWarpgroups * batch.warpgroup_tokens, first_token = item.tile * tokens;
  int first_key, end_key;
  C::Visible::key_range(request, first_token, min(first_token + tokens, item.qo_len) - 1, first_key, end_key);
  item.first = first_key / C::KV_TILE;
  item.end = first_key < end_key ? ceil_div(end_key, C::KV_TILE) : item.first;
  return item;
}

/**
 * The tile, counted down, at which a block takes the place of its next item. Late, for who is done first shall have it: with
 * two items a block all places would else be dealt before one of them was done, whatever they weigh; while two more tiles are
 * loaded the latency passes. At an item's begin where a block has many items, each of them short: there it costs more than
 * an even end gains (H200, 16 x L1024 of d128: 2 %).
 */
template <class Params>
__device__ __forceinline__ int hopper_taking_tile(const Params& batch, int num_items, const HopperItem& item) {
  const int last = item.end - 1, blocks = static_cast<int>(gridDim.x);
  const bool many = num_items * batch.num_kv_heads >= 4 * blocks * (item.end - item.first);
  return many ? last : min(item.first + 2, last);
}

/**
 * One thread takes a place. Not by an addition, even one in assembly: the compiler would gather those of a warp's lanes, and
 * wait for the result at once.
 */
__device__ __forceinline__ unsigned take_place(unsigned* counter) {
  unsigned place;
  asm volatile("atom.global.inc.u32 %0, [%1], 0x7fffffff;\n" : "=r"(place) : "l"(counter) : "memory");
  return place;
}

}  // namespace flashinfer
