// SPDX-License-Identifier: Apache-2.0
import { randomInt } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { contiguousStrides, sizeOf, stridesAreContiguous, viewStrides } from '../../src/tensor/strides.ts';

/** Offsets of all elements, row-major: what strides mean. */
function offsets(shape: readonly number[], strides: readonly number[]): number[] {
  let result = [0];
  for (const [d, extent] of shape.entries()) {
    result = result.flatMap((base) => Array.from({ length: extent }, (_, i) => base + i * strides[d]!));
  }
  return result;
}

/** Whether any strides give `wanted` under `shape`: each dim's stride can be read off the wanted offsets. */
function bestStrides(shape: readonly number[], wanted: readonly number[]): number[] | undefined {
  const steps = contiguousStrides(shape);
  const strides = shape.map((extent, d) => (extent > 1 ? wanted[steps[d]!]! - wanted[0]! : 1));
  const same = offsets(shape, strides).every((offset, i) => offset === wanted[i]! - wanted[0]!);
  return same ? strides : undefined;
}

function factorisations(size: number, rank: number): number[][] {
  if (rank === 0) return size === 1 ? [[]] : [];
  const divisors = Array.from({ length: size }, (_, i) => i + 1).filter((divisor) => size % divisor === 0);
  return divisors.flatMap((first) => factorisations(size / first, rank - 1).map((rest) => [first, ...rest]));
}

describe('strides', () => {
  it('are row-major by default', () => {
    expect(contiguousStrides([2, 3, 4])).toEqual([12, 4, 1]);
    expect(contiguousStrides([])).toEqual([]);
    expect(sizeOf([])).toBe(1);
    expect(sizeOf([3, 0])).toBe(0);
  });

  it('are contiguous when the offsets are 0, 1, 2, …', () => {
    for (let round = 0; round < 2000; round++) {
      const shape = Array.from({ length: randomInt(4) }, () => randomInt(1, 4));
      const strides = shape.map(() => randomInt(7));
      const expected = offsets(shape, strides).every((offset, i) => offset === i);
      expect(stridesAreContiguous(shape, strides), `${shape} ${strides}`).toBe(expected);
    }
    expect(stridesAreContiguous([3, 0, 2], [7, 7, 7])).toBe(true);
  });

  it('of a view exist exactly where some strides address the same elements in the same order', () => {
    let possible = 0;
    for (let round = 0; round < 300; round++) {
      const shape = Array.from({ length: randomInt(1, 4) }, () => [1, 2, 3, 4][randomInt(4)]!);
      const padded = shape.map((extent) => extent + randomInt(2));
      const order = shape.map((_, d) => d).sort(() => randomInt(3) - 1);
      const base = contiguousStrides(order.map((d) => padded[d]!));
      const strides = shape.map((_, d) => base[order.indexOf(d)]!);
      const wanted = offsets(shape, strides);
      for (const target of [1, 2, 3].flatMap((rank) => factorisations(sizeOf(shape), rank))) {
        const result = viewStrides(shape, strides, target);
        const label = `${shape} ${strides} as ${target}: ${result}`;
        expect(result !== undefined, label).toBe(bestStrides(target, wanted) !== undefined);
        if (result === undefined) continue;
        possible++;
        expect(offsets(target, result), label).toEqual(wanted);
      }
    }
    expect(possible).toBeGreaterThan(500);
  });

  it('of an empty view always exist', () => {
    expect(viewStrides([2, 0, 3], [1, 5, 7], [0, 6])).toEqual([6, 1]);
  });
});
