// SPDX-License-Identifier: Apache-2.0
// Which of several blocks is the last to finish: it goes on with what all of them wrote.
#pragma once

namespace flashinfer {

/** True in exactly one block of `count`: the one that arrives last; the counter is left at zero for the next launch. */
__device__ __forceinline__ bool arrive_last(unsigned* counter, unsigned count, unsigned* flag) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const bool last = atomicAdd(counter, 1u) == count - 1;
    if (last) *counter = 0;
    *flag = last;
  }
  __syncthreads();
  const bool last = *flag != 0;
  if (last) __threadfence();
  return last;
}

}  // namespace flashinfer
