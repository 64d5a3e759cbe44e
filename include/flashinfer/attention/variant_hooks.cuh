// SPDX-License-Identifier: Apache-2.0
// What the hooks of a custom attention variant are told. For kernels and for host compilers: the same hooks run on both.
#pragma once
#include <flashinfer/dtype.cuh>

#ifdef __CUDACC__
#define FLASHINFER_HOOK __device__ __forceinline__
#else
#define FLASHINFER_HOOK inline
#endif

namespace flashinfer {

/** The request a hook is called for; a single request is number 0, and without a window window_left is -1. */
struct VariantRequest {
  int batch_idx, qo_len, kv_len, num_qo_heads, num_kv_heads, window_left;
  float sm_scale;
};

/** Where a logit stands: query row and head, key row and head. */
struct LogitPosition {
  int qo_idx, kv_idx, qo_head, kv_head;
};

/** Where an element of the query or of the output stands. */
struct ElementPosition {
  int qo_idx, qo_head, kv_head, dim;
};

}  // namespace flashinfer
