// SPDX-License-Identifier: Apache-2.0
import { randomInt } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { planCopy } from '../../src/tensor/copyPlan.ts';

const aligned = { elementBytes: 2, maxUnitBytes: 16, srcPtr: 4096, dstPtr: 8192 };

function plan(shape: number[], srcStrides: number[], dstStrides: number[], options: Partial<typeof aligned> = {}) {
  return planCopy(shape, srcStrides, dstStrides, { ...aligned, ...options });
}

function contiguousStrides(shape: readonly number[]): number[] {
  return shape.map((_, d) => shape.slice(d + 1).reduce((product, size) => product * size, 1));
}

/** Every (src, dst) byte that the plan copies, as `src:dst` from the bases. */
function copiedBytes(result: ReturnType<typeof planCopy>): Set<string> {
  let offsets = [{ src: 0, dst: 0 }];
  result.shape.forEach((size, d) => {
    const [src, dst] = [result.srcStrides[d] as number, result.dstStrides[d] as number];
    offsets = offsets.flatMap((at) =>
      Array.from({ length: size }, (_, i) => ({ src: at.src + i * src, dst: at.dst + i * dst })),
    );
  });
  const bytes = new Set<string>();
  for (const { src, dst } of offsets) {
    for (let b = 0; b < result.unitBytes; b++) bytes.add(`${src * result.unitBytes + b}:${dst * result.unitBytes + b}`);
  }
  return bytes;
}

describe('planCopy', () => {
  it('sees one block where both sides are contiguous in the same order', () => {
    expect(plan([2, 1, 3, 8], [24, 7, 8, 1], [24, 9, 8, 1])).toMatchObject({
      kind: 'contiguous',
      unitBytes: 16,
      count: 6,
      shape: [6],
    });
    // The same permutation on both sides is still one block.
    expect(plan([3, 4], [1, 3], [1, 3]).kind).toBe('contiguous');
    expect(plan([], [], [])).toMatchObject({ kind: 'contiguous', count: 1, shape: [1], unitBytes: 2 });
  });

  it('keeps rows of a slice and moves them in the widest unit that sizes, strides and addresses allow', () => {
    const rows = (inner: number, stride: number, options = {}) =>
      plan([5, inner], [stride, 1], [inner, 1], options).unitBytes;
    expect(rows(16, 32)).toBe(16);
    expect(rows(12, 32)).toBe(8);
    expect(rows(16, 20)).toBe(8);
    expect(rows(16, 33)).toBe(2);
    expect(rows(16, 32, { srcPtr: 4096 + 4 })).toBe(4);
    expect(rows(16, 32, { dstPtr: 8192 + 2 })).toBe(2);
    expect(rows(16, 32, { maxUnitBytes: 8 })).toBe(8);
    expect(plan([5, 16], [32, 1], [16, 1])).toMatchObject({
      kind: 'rows',
      shape: [5, 2],
      srcStrides: [4, 1],
      count: 10,
    });
  });

  it('never widens over a broadcast or strided inner dimension', () => {
    expect(plan([4, 16], [16, 0], [16, 1])).toMatchObject({ kind: 'rows', unitBytes: 2 });
    expect(plan([4, 16], [32, 2], [16, 1])).toMatchObject({ kind: 'rows', unitBytes: 2 });
  });

  it('puts the fastest dimension of src beside the fastest of dst for a transposition', () => {
    expect(plan([3, 64, 40], [2560, 1, 64], [2560, 40, 1])).toMatchObject({
      kind: 'transposed',
      shape: [3, 64, 40],
      srcStrides: [2560, 1, 64],
    });
    expect(plan([64, 3, 40], [1, 5120, 64], [120, 40, 1])).toMatchObject({ kind: 'transposed', shape: [3, 64, 40] });
    expect(plan([64, 4], [1, 64], [4, 1]).kind).toBe('rows');
  });

  it('copies exactly the given elements, whatever the layout', () => {
    for (let round = 0; round < 300; round++) {
      const rank = randomInt(0, 5);
      const shape = Array.from({ length: rank }, () => randomInt(1, 5) * (randomInt(0, 3) === 0 ? 4 : 1));
      const order = shape.map((_, d) => d).sort(() => randomInt(0, 2) * 2 - 1);
      const permuted = contiguousStrides(order.map((d) => shape[d] as number));
      const srcStrides = shape.map((_, d) => (randomInt(0, 8) === 0 ? 0 : (permuted[order.indexOf(d)] as number)));
      const dstStrides = contiguousStrides(shape).map((stride) => stride * (round % 3 === 0 ? 2 : 1));
      const result = plan(shape, srcStrides, dstStrides);
      const naive = { ...result, unitBytes: 2, shape, srcStrides, dstStrides };
      expect(copiedBytes(result), JSON.stringify({ shape, srcStrides, dstStrides })).toEqual(copiedBytes(naive));
      expect(result.count).toBe(result.shape.reduce((product, size) => product * size, 1));
    }
  });
});
