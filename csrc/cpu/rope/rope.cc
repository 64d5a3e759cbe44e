// SPDX-License-Identifier: Apache-2.0
#include "cpu/rope/rope.h"

#include <algorithm>
#include <cmath>

#include "cpu/elementwise/parallel.h"
#include "cpu/isa/select.h"

namespace flashinfer::cpu {
namespace {

/** Elements a thread takes at least: below this, waking another thread costs more than it saves. */
constexpr int64_t kGrain = 1 << 14;

constexpr KernelTables<RopeKernels> kTables = {RopeKernelsGeneric, RopeKernelsNeon, RopeKernelsAvx2, RopeKernelsAvx512};

void FillFrequencies(const RopeParams& params, const RopeFrequencyOptions& options, double* frequencies) {
  const double log2Theta = std::log2(options.theta);
  for (int64_t d = 0; d < params.rotaryDim / 2; ++d) {
    const double base = std::exp2(-2.0 * static_cast<double>(d) / static_cast<double>(params.rotaryDim) * log2Theta);
    const double smooth = std::min(std::max(base * options.smoothA + options.smoothB, 0.0), 1.0);
    frequencies[d] = base * (smooth + (1.0 - smooth) * options.rcpScale) * 0.15915494309189535;
  }
}

template <class Index>
int64_t PositionOf(const RopeParams& params, int64_t token) {
  const Index* positions = static_cast<const Index*>(params.positions);
  if (params.indptr == nullptr) return static_cast<int64_t>(positions[token]);
  // The last request whose first row is not behind the token; the first one takes what is before all.
  const Index* indptr = static_cast<const Index*>(params.indptr);
  const int64_t request =
      std::upper_bound(indptr + 1, indptr + params.batchSize, static_cast<Index>(token)) - indptr - 1;
  return token - static_cast<int64_t>(indptr[request]) + static_cast<int64_t>(positions[request]);
}

}  // namespace

void RunRope(RopeParams params, const RopeFrequencyOptions& options) {
  double frequencies[kMaxRopePairs];
  if (params.cache == nullptr) FillFrequencies(params, options, frequencies);
  params.frequencies = frequencies;
  const RopeKernels& kernels = SelectKernels(kTables);
  const int64_t elements = std::max<int64_t>(1, (params.q.heads + params.k.heads) * params.headDim);
  ParallelChunks(params.tokens, std::max<int64_t>(1, kGrain / elements), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t position =
          params.wideIndices ? PositionOf<int64_t>(params, token) : PositionOf<int32_t>(params, token);
      kernels.Token(params, token, position);
    }
  });
}

}  // namespace flashinfer::cpu
