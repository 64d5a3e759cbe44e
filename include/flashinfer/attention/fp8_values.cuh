// SPDX-License-Identifier: Apache-2.0
// What hopper_fp8.cuh reads instead of values, and instead of keys in pages: wgmma reads 8-bit operands K-major only, and the
// K of the product with weights are keys. Inside the attention kernel every query tile would transpose all values again;
// docs/fa3.md has the figures of both.
//
// values: [heads, D, columns] bytes, a row a dimension, a column a key. Of 32 keys column 16 * h + 4 * t + e is key
// 16 * h + 8 * (e >> 1) + 2 * t + (e & 1): those whose weights a thread holds after the first product, so that accumulators
// are the second product's operand as they are. Of 16 dimensions row n is dimension 2 * (n & 7) + (n >> 3), as ldmatrix
// leaves them, so that a thread ends with four neighbouring dimensions of its rows.
// keys, of pages only: [heads, columns, D].
#pragma once
#include <flashinfer/attention/hopper.cuh>
#include <flashinfer/mma.cuh>

namespace flashinfer {

/** Keys a block moves at a time. */
constexpr int kFp8Step = 64;
/** A request's columns are filled up to a multiple of it: no tile has more keys. */
constexpr int kFp8Fill = 256;

/** The first column of a request; fp8Columns in TypeScript says how many there are. */
template <bool BATCH, bool PAGED, class Params>
__device__ __forceinline__ int fp8_first_column(const Params& batch, int request, int kv_start) {
  if constexpr (!BATCH) return 0;
  int first = kv_start;
  if constexpr (PAGED) first *= batch.page_size;
  return first / kFp8Step * kFp8Step + request * (kFp8Fill + kFp8Step);
}

template <int D_, bool BATCH_, bool PAGED_>
struct Fp8ValuesConfig {
  static constexpr int D = D_, kThreads = 128, kChunks = D / 16;
  static constexpr bool BATCH = BATCH_, PAGED = PAGED_;
};

/** One block's work on 64 keys of a head. */
template <class C, class Params>
struct Fp8Values {
  const Params& batch;
  const int head, kv_start, kv_len, first_column;
  char *raw, *transposed;

  /** Elements from the tensor's start to a key's row. */
  __device__ __forceinline__ int64_t row(int key, int64_t stride_page, int64_t stride_n, int64_t stride_h) const {
    if constexpr (C::PAGED) {
      int slot;
      const int entry = PagedKv::page_of(batch, key, slot);
      const int page = __ldg(static_cast<const int32_t*>(batch.kv_indices) + kv_start + entry);
      return page * stride_page + slot * stride_n + head * stride_h;
    } else {
      return (kv_start + key) * stride_n + head * stride_h;
    }
  }

  __device__ __forceinline__ void copy_keys(int first) const {
    if constexpr (C::PAGED) {
      char* to = static_cast<char*>(batch.arranged_keys) +
                 (static_cast<int64_t>(head) * batch.columns + first_column + first) * C::D;
      const int keys = min(kFp8Step, kv_len - first);
      for (int i = threadIdx.x; i < keys * C::kChunks; i += C::kThreads) {
        const int key = i / C::kChunks, chunk = i % C::kChunks;
        const char* from = static_cast<const char*>(batch.k) +
                           row(first + key, batch.k_stride_page, batch.k_stride_n, batch.k_stride_h);
        *reinterpret_cast<uint4*>(to + key * C::D + chunk * 16) = __ldg(reinterpret_cast<const uint4*>(from) + chunk);
      }
    }
  }

  /** Place of 16 bytes of a key in shared memory: neighbours in a column of chunks lie in different banks. */
  static __device__ __forceinline__ int raw_place(int key, int chunk) {
    return (chunk >> 3) * kFp8Step * 128 + key * 128 + (((chunk & 7) ^ (key & 7)) << 4);
  }
  /** The same for 16 keys of a row of the result. */
  static __device__ __forceinline__ int place(int row, int piece) {
    return row * kFp8Step + ((piece ^ ((row >> 1) & 3)) << 4);
  }

  /** Zeros behind the last key: a weight of zero does not silence a NaN. */
  __device__ __forceinline__ void read_values(int first) const {
    for (int i = threadIdx.x; i < kFp8Step * C::kChunks; i += C::kThreads) {
      const int key = i / C::kChunks, chunk = i % C::kChunks;
      uint4 x = make_uint4(0, 0, 0, 0);
      if (first + key < kv_len) {
        const char* from =
            static_cast<const char*>(batch.v) + row(first + key, v_stride_page(), batch.v_stride_n, batch.v_stride_h);
        x = __ldg(reinterpret_cast<const uint4*>(from) + chunk);
      }
      *reinterpret_cast<uint4*>(raw + raw_place(key, chunk)) = x;
    }
  }

  __device__ __forceinline__ int64_t v_stride_page() const {
    if constexpr (C::PAGED) return batch.v_stride_page;
    else return 0;
  }

  /** Pairs of bytes move together (ldmatrix): even and odd dimensions part on the way. */
  __device__ __forceinline__ void transpose() const {
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, matrix = lane >> 3;
    const uint32_t from = shared_address(raw), to = shared_address(transposed);
    for (int block = warp; block < C::kChunks * (kFp8Step / 32); block += C::kThreads / 32) {
      const int chunk = block % C::kChunks, half = block / C::kChunks;
      uint32_t x[4];
      ldmatrix_x4_trans(from + raw_place(half * 32 + lane, chunk), x[0], x[1], x[2], x[3]);
      stmatrix_x4(to + place(chunk * 16 + (matrix & 1) * 8 + (lane & 7), half * 2 + (matrix >> 1)),
                  __byte_perm(x[0], x[1], 0x6420), __byte_perm(x[0], x[1], 0x7531), __byte_perm(x[2], x[3], 0x6420),
                  __byte_perm(x[2], x[3], 0x7531));
    }
  }

  __device__ __forceinline__ void write_values(int first) const {
    char* to = static_cast<char*>(batch.arranged_values) + static_cast<int64_t>(head) * C::D * batch.columns +
               first_column + first;
    for (int i = threadIdx.x; i < C::D * (kFp8Step / 16); i += C::kThreads) {
      const int row = i / (kFp8Step / 16), piece = i % (kFp8Step / 16);
      *reinterpret_cast<uint4*>(to + row * static_cast<int64_t>(batch.columns) + piece * 16) =
          *reinterpret_cast<const uint4*>(transposed + place(row, piece));
    }
  }

  __device__ __forceinline__ void move(int first) const {
    copy_keys(first);
    read_values(first);
    __syncthreads();
    transpose();
    __syncthreads();
    write_values(first);
    __syncthreads();
  }
};

/** Grid: (items, KV heads, parts): the items of a request share its keys, and the parts of an item its share. */
template <class C, class Params>
__device__ __forceinline__ void fp8_values(const Params& batch) {
  __shared__ __align__(128) char raw[kFp8Step * C::D], transposed[kFp8Step * C::D];
  const int num_items = hopper_num_items<C>(batch), index = blockIdx.x, head = blockIdx.y;
  if (index >= num_items) return;
  int kv_start;
  const HopperItem item = hopper_work<C>(batch, num_items, index, head, kv_start);
  const int first_column = fp8_first_column<C::BATCH, C::PAGED>(batch, item.request, kv_start);
  const Fp8Values<C, Params> values{batch, head, kv_start, item.kv_len, first_column, raw, transposed};
  const int tiles = ceil_div(item.qo_len * batch.group_size, 2 * batch.warpgroup_rows);
  const int end = ceil_div(item.kv_len, kFp8Fill) * kFp8Fill, stride = tiles * gridDim.z * kFp8Step;
  for (int first = (item.tile * gridDim.z + blockIdx.z) * kFp8Step; first < end; first += stride) values.move(first);
}

}  // namespace flashinfer
