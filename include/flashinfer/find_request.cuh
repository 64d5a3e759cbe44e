// SPDX-License-Identifier: Apache-2.0
// Which request of a batch a token belongs to.
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

/**
 * The last of the requests, at least one, whose first token is not behind `token`; the first request takes what is
 * before all. indptr: first token of each request.
 */
template <class Index>
__device__ __forceinline__ int find_request(const Index* indptr, int batch_size, uint32_t token) {
  int low = 0, high = batch_size;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (static_cast<int64_t>(indptr[middle]) <= static_cast<int64_t>(token)) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

/**
 * Of a grid's token, which request it may belong to: so many requests a token as there are on average. Right for requests of
 * one length, as in decode.
 */
__device__ __forceinline__ int guess_request(uint32_t token, float requests_per_token, int batch_size) {
  const int guess = static_cast<int>((static_cast<float>(token) + 0.5f) * requests_per_token);
  return guess < batch_size ? guess : batch_size - 1;
}

}  // namespace flashinfer
