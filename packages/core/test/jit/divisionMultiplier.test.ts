// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { divisionMultiplier } from '../../src/jit/divisionMultiplier.ts';

/** `divide` of include/flashinfer/divide.cuh. */
function divide(x: number, divisor: number): number {
  const multiplier = divisionMultiplier(divisor);
  if (multiplier === 0) return x;
  const quotient = Number((BigInt(x) * BigInt(multiplier)) >> 32n);
  return quotient * divisor > x ? quotient - 1 : quotient;
}

it('divides exactly what 31 bits hold, and fits 32', () => {
  const largest = 2 ** 31 - 1;
  for (const divisor of [1, 2, 3, 5, 7, 8, 10, 640, 65535, 65537, 2 ** 30 + 1, largest - 1, largest]) {
    expect(divisionMultiplier(divisor)).toBeLessThan(2 ** 32);
    for (const quotient of [0, 1, 2, Math.floor(largest / divisor)]) {
      for (const offset of [-1, 0, 1, divisor - 1]) {
        const x = quotient * divisor + offset;
        if (x >= 0 && x <= largest) expect(divide(x, divisor), `${x} / ${divisor}`).toBe(Math.floor(x / divisor));
      }
    }
  }
});
