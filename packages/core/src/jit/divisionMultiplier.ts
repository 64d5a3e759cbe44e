// SPDX-License-Identifier: Apache-2.0

/**
 * What `divide` of include/flashinfer/divide.cuh and `PagedKv::page_of` multiply with: ceil(2^32 / divisor), or 0 for 1,
 * whose multiplier would not fit.
 */
export function divisionMultiplier(divisor: number): number {
  return divisor === 1 ? 0 : Math.ceil(2 ** 32 / divisor);
}
