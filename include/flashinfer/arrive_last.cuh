// SPDX-License-Identifier: Apache-2.0
// Which of several blocks is the last to finish: it goes on with what all of them wrote.
#pragma once

namespace flashinfer {

/**
 * True in exactly one block of `count`: the one that arrives last; the counter is left at zero for the next launch. What
 * the threads of each block wrote before, those of the last one may read after: the barriers carry the one thread's
 * release and acquire to all (PTX ISA 8, causality order). Fences in all threads took 0.4 us more on H200.
 */
__device__ __forceinline__ bool arrive_last(unsigned* counter, unsigned count, unsigned* flag) {
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;\n" : "=r"(before) : "l"(counter) : "memory");
    const bool last = before == count - 1;
    if (last) *counter = 0;
    *flag = last;
  }
  __syncthreads();
  return *flag != 0;
}

}  // namespace flashinfer
