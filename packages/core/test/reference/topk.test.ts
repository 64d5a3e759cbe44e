// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { topKReference } from './topk.ts';

it('orders by value, then index, with NaN largest', () => {
  const row = [1, Number.NaN, 3, -Infinity, 3, Infinity, -0, 0];
  const of = (k: number, sorted: boolean, tieLarge: boolean) => topKReference(row, k, { sorted, tieLarge });
  expect(of(8, true, false)).toEqual([1, 5, 2, 4, 0, 6, 7, 3]);
  expect(of(8, true, true)).toEqual([1, 5, 4, 2, 0, 7, 6, 3]);
  expect(of(3, false, false)).toEqual([1, 2, 5]);
  expect(of(3, false, true)).toEqual([1, 4, 5]);
});
