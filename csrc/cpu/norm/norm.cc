// SPDX-License-Identifier: Apache-2.0
#include "cpu/norm/norm.h"

#include "cpu/elementwise/parallel.h"
#include "cpu/isa/select.h"

namespace flashinfer::cpu {
namespace {

/** Elements a thread takes at least: below this, waking another thread costs more than it saves. */
constexpr int64_t kGrain = 1 << 15;

constexpr KernelTables<NormKernels> kTables = {NormKernelsGeneric, NormKernelsNeon, NormKernelsAvx2, NormKernelsAvx512};

}  // namespace

void RunNorm(const NormParams& params) {
  const NormKernels& kernels = SelectKernels(kTables);
  const int64_t grain = (kGrain + params.length - 1) / params.length;
  ParallelChunks(params.tokens * params.heads, grain,
                 [&](int64_t begin, int64_t end) { kernels.Rows(params, begin, end); });
}

}  // namespace flashinfer::cpu
