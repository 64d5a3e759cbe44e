// SPDX-License-Identifier: Apache-2.0
#include "cpu/activation/activation.h"

#include <algorithm>

#include "cpu/elementwise/parallel.h"
#include "cpu/isa/select.h"

namespace flashinfer::cpu {
namespace {

/** Elements a thread takes at least: below this, waking another thread costs more than it saves. */
constexpr int64_t kGrain = 1 << 14;

constexpr KernelTables<ActivationKernels> kTables = {ActivationKernelsGeneric, ActivationKernelsNeon,
                                                     ActivationKernelsAvx2, ActivationKernelsAvx512};

}  // namespace

void RunActivation(const ActivationParams& params) {
  const ActivationKernels& kernels = SelectKernels(kTables);
  // Long rows are cut, so that a single token still fills all threads.
  const int64_t pieces = (params.length + kGrain - 1) / kGrain;
  ParallelChunks(params.rows * pieces, std::max<int64_t>(1, kGrain / params.length), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t first = item % pieces * kGrain;
      kernels.Columns(params, item / pieces, first, std::min(params.length, first + kGrain));
    }
  });
}

}  // namespace flashinfer::cpu
