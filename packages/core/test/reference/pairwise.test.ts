// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { coverPairs } from './pairwise.ts';

it('meets every allowed pair with far fewer cases than the product', () => {
  const values = [0, 1, 2, 3];
  const all = values.flatMap((a) => values.flatMap((b) => values.map((c) => ({ a, b, c }))));
  const allowed = all.filter(({ a, b }) => a + b !== 6);
  const chosen = coverPairs(allowed);
  expect(chosen.length).toBeLessThan(24);
  const meets = (x: Record<string, number>, first: string, i: number, second: string, j: number): boolean =>
    x[first] === i && x[second] === j;
  for (const [first, second] of [
    ['a', 'b'],
    ['a', 'c'],
    ['b', 'c'],
  ] as const) {
    for (const i of values) {
      for (const j of values) {
        const possible = allowed.some((x) => meets(x, first, i, second, j));
        expect(chosen.some((x) => meets(x, first, i, second, j))).toBe(possible);
      }
    }
  }
});
