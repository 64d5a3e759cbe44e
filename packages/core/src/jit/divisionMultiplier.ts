// SPDX-License-Identifier: Apache-2.0

/** What `divide` of include/flashinfer/divide.cuh multiplies with: ceil(2^32 / divisor), or 0, which stands for 1. */
export function divisionMultiplier(divisor: number): number {
  return divisor === 1 ? 0 : Math.ceil(2 ** 32 / divisor);
}
