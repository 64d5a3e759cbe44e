// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { rowStride } from '../../src/tensor/rowStride.ts';

it.each([
  [[8], [1], 0],
  [[3, 8], [8, 1], 8],
  [[3, 8], [20, 1], 20],
  [[1, 8], [999, 1], 0],
  [[2, 3, 8], [24, 8, 1], 8],
  [[2, 3, 8], [60, 20, 1], 20],
  [[2, 1, 8], [60, 7, 1], 60],
  [[2, 3, 8], [24, 20, 1], undefined],
  [[3, 2, 8], [8, 24, 1], undefined],
  [[0, 3, 8], [24, 8, 1], 0],
  [[2, 0, 8], [8, 8, 1], 0],
] as const)('of shape %j and strides %j is %s', (shape, strides, expected) => {
  expect(rowStride(shape, strides)).toBe(expected);
});
