// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { normReference } from './norm.ts';

it('gives known values', () => {
  // mean square (9 + 16) / 2 = 12.5
  expect([...normReference([3, 4], [1, 2], { eps: 0 })]).toEqual([3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5)]);
  expect([...normReference([3, 4], [0, 1], { eps: 0, weightOffset: 1 })]).toEqual([
    3 / Math.sqrt(12.5),
    8 / Math.sqrt(12.5),
  ]);
  expect([...normReference([0, 0], [1, 1], { eps: 1 })]).toEqual([0, 0]);
  // mean 2, variance 1
  expect([...normReference([1, 3], [2, 2], { eps: 0, centered: true, bias: [10, 20] })]).toEqual([8, 22]);
});
