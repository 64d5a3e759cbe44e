// SPDX-License-Identifier: Apache-2.0
// Ranges instead of single indices: elementwise loops are cut into chunks that are worth a thread.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cpu/thread_pool.h"

namespace flashinfer::cpu {

/** body(begin, end) over [0, count) in chunks of `grain`; runs in the caller alone when there is only one. */
template <class Body>
void ParallelChunks(int64_t count, int64_t grain, const Body& body) {
  if (count <= grain) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  ThreadPool::Get().ParallelFor((count + grain - 1) / grain,
                                [&](int64_t chunk) { body(chunk * grain, std::min(count, (chunk + 1) * grain)); });
}

}  // namespace flashinfer::cpu
