// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { actAndMulReference, activationReferences, erfc } from './activation.ts';

it('has the error function of the tables', () => {
  for (const [x, value] of [
    [0, 1],
    [0.5, 0.4795001221869535],
    [1, 0.15729920705028513],
    [1.999999, 0.00467775562],
    [2, 0.004677734981047266],
    [4, 1.541725790028002e-8],
    [6, 2.1519736712498913e-17],
    [-1, 1.8427007929497148],
  ] as const) {
    expect(Math.abs(erfc(x) / value - 1)).toBeLessThan(x === 1.999999 ? 1e-8 : 1e-12);
  }
});

it('gives known values', () => {
  const { silu, gelu, geluTanh } = activationReferences;
  expect(silu(1)).toBeCloseTo(0.7310585786300049, 14);
  expect(gelu(1)).toBeCloseTo(0.8413447460685429, 14);
  expect(geluTanh(1)).toBeCloseTo(0.8411919906082768, 12);
  expect([silu(0), gelu(0), geluTanh(0)]).toEqual([0, 0, 0]);
  expect([...actAndMulReference('silu', [1, 0, 2, 5, 0, 1, 3, 4], 2)]).toEqual([2 * silu(1), 0, 0, 4 * silu(1)]);
});
