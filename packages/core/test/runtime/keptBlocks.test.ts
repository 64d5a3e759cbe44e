// SPDX-License-Identifier: Apache-2.0
// How much freed memory is kept, and for whom: numbers stand for streams and addresses. cuda.test.ts has the rest.
import { describe, expect, it } from 'vitest';
import { blockBytes, keepBlock, takeKept } from '../../src/runtime/keptBlocks.ts';

const mib = 2 ** 20;
let streams = 1e9;

describe('kept blocks', () => {
  it('go to tensors of their size and stream, the last first', () => {
    const [a, b] = [++streams, ++streams];
    for (const address of [1, 2]) expect(keepBlock(100, a, 1000, address)).toBe(true);
    expect(takeKept(b, 1000)).toBeUndefined();
    expect(takeKept(a, 1025)).toBeUndefined();
    expect([takeKept(a, 1024), takeKept(a, 513), takeKept(a, 1000)]).toEqual([2, 1, undefined]);
  });

  it('are at most 16 MiB each and 64 MiB a device', () => {
    const [a, b] = [++streams, ++streams];
    expect(keepBlock(101, a, 16 * mib + 1, 1)).toBe(false);
    for (const address of [1, 2, 3, 4]) expect(keepBlock(101, a, 16 * mib, address)).toBe(true);
    expect(keepBlock(101, b, 1, 5)).toBe(false);
    expect(keepBlock(102, b, 1, 5)).toBe(true);
    expect(takeKept(a, 16 * mib)).toBe(4);
    expect(keepBlock(101, b, 16 * mib, 6)).toBe(true);
    expect(keepBlock(101, b, 1, 7)).toBe(false);
  });

  it('are as large as all tensors they serve', () => {
    expect([1, 512, 513, 16 * mib, 16 * mib + 1].map(blockBytes)).toEqual([512, 512, 1024, 16 * mib, 16 * mib + 1]);
  });
});
