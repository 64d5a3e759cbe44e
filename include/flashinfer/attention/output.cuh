// SPDX-License-Identifier: Apache-2.0
// Packed query rows, and where a row's result goes: the output tensor, or the partial state of one KV split.
#pragma once
#include <flashinfer/attention/variant_hooks.cuh>
#include <flashinfer/convert.cuh>
#include <flashinfer/smem_tile.cuh>

namespace flashinfer {

/**
 * Row `packed` of a KV head's queries: the group's heads of one token are neighbours, so one tile of keys serves
 * them all (grouped-query attention packed along rows).
 */
struct PackedRow {
  int qo_idx, qo_head;

  template <class Params>
  static __device__ __forceinline__ PackedRow at(const Params& params, int packed, int kv_head) {
    const unsigned group = params.group_size;
    const unsigned idx = static_cast<unsigned>(packed) / group;
    return {static_cast<int>(idx), static_cast<int>(kv_head * group + (packed - idx * group))};
  }
};

/** Starts copying ROWS packed query rows to a swizzled tile; rows past the end become zeros. */
template <class T, int D, int ROWS, int THREADS, class Params>
__device__ __forceinline__ void load_query_async(const Params& params, uint32_t tile, int first_packed, int kv_head,
                                                 int thread) {
  constexpr int kChunks = SmemTile<D>::kChunks;
  const int total = params.qo_len * params.group_size;
  for (int index = thread; index < ROWS * kChunks; index += THREADS) {
    const int row = index / kChunks, chunk = index % kChunks;
    const bool valid = first_packed + row < total;
    const PackedRow at = PackedRow::at(params, valid ? first_packed + row : 0, kv_head);
    const T* src = static_cast<const T*>(params.q) + at.qo_idx * params.q_stride_n + at.qo_head * params.q_stride_h;
    cp_async_16(tile + SmemTile<D>::offset(row, chunk), src + chunk * 8, valid);
  }
}

/** Applies a variant's query hook to ROWS packed rows in shared memory; rows past the end stay zeros. */
template <class Variant, class T, int D, int ROWS, int THREADS, class Params>
__device__ __forceinline__ void transform_query_tile(const Params& params, char* tile, int first_packed, int kv_head,
                                                     int thread) {
  constexpr int kChunks = SmemTile<D>::kChunks;
  const int total = params.qo_len * params.group_size;
  for (int index = thread; index < ROWS * kChunks; index += THREADS) {
    const int row = index / kChunks, chunk = index % kChunks;
    if (first_packed + row >= total) continue;
    const PackedRow at = PackedRow::at(params, first_packed + row, kv_head);
    uint4* place = reinterpret_cast<uint4*>(tile + SmemTile<D>::offset(row, chunk));
    uint32_t words[4] = {place->x, place->y, place->z, place->w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int dim = chunk * 8 + 2 * i;
      float low, high;
      unpack2<T>(words[i], low, high);
      low = Variant::transform_query(params, low, ElementPosition{at.qo_idx, at.qo_head, kv_head, dim});
      high = Variant::transform_query(params, high, ElementPosition{at.qo_idx, at.qo_head, kv_head, dim + 1});
      words[i] = pack2<T>(low, high);
    }
    *place = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

/**
 * The sink of a head is one more logit of each of its rows, without a value: it takes its share of the softmax. Moves the
 * base-2 lse of all the row's keys to include it, and returns what the keys' output is to be multiplied with. Once a row,
 * after its splits are merged.
 */
template <class Variant, class Params>
__device__ __forceinline__ float join_sink(const Params& params, int qo_head, float& lse) {
  if (!Variant::kUsesSoftmax || params.sinks == nullptr) return 1.0f;
  const float sink = static_cast<const float*>(params.sinks)[qo_head] * kLog2e;
  const float top = max_nan(lse, sink);
  if (top == negative_infinity()) return 1.0f;
  const float keys = exp2_approx(lse - top), all = keys + exp2_approx(sink - top);
  lse = top + log2f(all);
  return keys / all;
}

/** Element offset of a row's output. */
template <class Params>
__device__ __forceinline__ int64_t output_offset(const Params& params, const PackedRow& at) {
  return at.qo_idx * params.o_stride_n + at.qo_head * params.o_stride_h;
}

/** Writes one row's log-sum-exp where the caller asked for it. */
template <class Params>
__device__ __forceinline__ void store_lse(const Params& params, const PackedRow& at, float lse) {
  if (params.lse == nullptr) return;
  static_cast<float*>(params.lse)[static_cast<int64_t>(at.qo_idx) * params.num_qo_heads + at.qo_head] =
      lse * params.lse_factor;
}

/** A kernel launched with less dynamic shared memory than it was compiled for stops instead of corrupting memory. */
__device__ __forceinline__ void require_shared_bytes(uint32_t needed) {
  uint32_t given;
  asm("mov.u32 %0, %%dynamic_smem_size;\n" : "=r"(given));
  if (given < needed) asm volatile("trap;\n" ::);
}

}  // namespace flashinfer
