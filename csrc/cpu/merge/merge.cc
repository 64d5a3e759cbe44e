// SPDX-License-Identifier: Apache-2.0
#include "cpu/merge/merge.h"

#include <algorithm>

#include "cpu/elementwise/parallel.h"
#include "cpu/isa/select.h"

namespace flashinfer::cpu {
namespace {

/** Elements read that are worth waking a thread for. */
constexpr int64_t kGrain = 1 << 14;

constexpr KernelTables<MergeKernels> kTables = {MergeKernelsGeneric, MergeKernelsNeon, MergeKernelsAvx2,
                                                MergeKernelsAvx512};

}  // namespace

void RunMerge(const MergeParams& params) {
  const MergeKernels& kernels = SelectKernels(kTables);
  const int64_t read = std::max<int64_t>(1, params.length * params.numStates);
  ParallelChunks(params.rows * params.heads, std::max<int64_t>(1, kGrain / read),
                 [&](int64_t begin, int64_t end) { kernels.Heads(params, begin, end); });
}

}  // namespace flashinfer::cpu
