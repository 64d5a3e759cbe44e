// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { quantile, summarize } from '../src/timing/statistics.ts';

it('takes quantiles between ranks', () => {
  expect(quantile([1, 2, 4], 0.5)).toBe(2);
  expect(quantile([1, 2, 4, 8], 0.5)).toBe(3);
  expect(quantile([10, 20], 0.1)).toBe(11);
  expect(quantile([7], 0.9)).toBe(7);
});

it('summarises in any order, without touching the samples', () => {
  const samples = [9, 1, 5, 3, 7, 10, 0, 2, 4, 6, 8];
  const copy = [...samples];
  expect(summarize(samples)).toEqual({ samples: 11, minUs: 0, p10Us: 1, medianUs: 5, p90Us: 9 });
  expect(samples).toEqual(copy);
});

it('is not moved by one outlier', () => {
  expect(summarize([5, 5, 5, 5, 1e6]).medianUs).toBe(5);
});

it.each([[[]], [[1, Number.NaN]], [[-1]], [[Infinity]]])('refuses %j', (samples) => {
  expect(() => summarize(samples)).toThrow(RangeError);
});
