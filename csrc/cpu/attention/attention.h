// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cpu/attention/params.h"

namespace flashinfer::cpu {

/**
 * Computes one request on the thread pool with the kernels of CurrentIsa(). `ropeScale` and `ropeTheta` matter for
 * kRopeLlama only; params.ropeTable is made here. The result does not depend on the number of threads.
 */
void RunAttention(AttentionParams params, double ropeScale, double ropeTheta);

}  // namespace flashinfer::cpu
