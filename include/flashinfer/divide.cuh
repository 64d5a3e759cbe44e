// SPDX-License-Identifier: Apache-2.0
// Division by numbers that the host knows.
#pragma once
#include <flashinfer/dtype.cuh>

namespace flashinfer {

/**
 * x / divisor for x below 2^31, in a tenth of a division's instructions. multiplier = ceil(2^32 / divisor), or 0 where
 * the divisor is 1; rounded up, it may give a quotient that is one too high.
 */
__device__ __forceinline__ uint32_t divide(uint32_t x, uint32_t divisor, uint32_t multiplier) {
  const uint32_t quotient = __umulhi(x, multiplier);
  return multiplier == 0 ? x : quotient - (quotient * divisor > x);
}

}  // namespace flashinfer
