// SPDX-License-Identifier: Apache-2.0
// How much freed memory is kept, and for whom: numbers stand for streams and addresses. cuda.test.ts has the rest.
import { beforeEach, describe, expect, it, vi } from 'vitest';

const gib = 2 ** 30;
const mib = 2 ** 20;
/** Addresses, in the order in which they are given back to the driver. */
let freed: number[] = [];

vi.mock('../../src/runtime/device.ts', () => ({ deviceProperties: () => ({ totalMemory: 16 * gib }) }));
vi.mock('../../src/native/load.ts', () => ({
  native: () => ({ cuda: { memFree: (_device: number, address: number) => freed.push(address) } }),
}));

const { blockBytes, keepBlock, releaseDeviceBlocks, releaseStreamBlocks, takeKept } = await import(
  '../../src/runtime/keptBlocks.ts'
);

let device = 0;
let streams = 1000;

describe('kept blocks of a GPU of 16 GiB', () => {
  beforeEach(() => {
    freed = [];
    device += 2;
  });

  it('go to tensors of their size and stream, the last first', () => {
    const [a, b] = [++streams, ++streams];
    for (const address of [1, 2]) expect(keepBlock(device, a, 1000, address)).toBe(true);
    expect(takeKept(b, 1000)).toBeUndefined();
    expect(takeKept(a, 1025)).toBeUndefined();
    expect([takeKept(a, 1024), takeKept(a, 513), takeKept(a, 1000)]).toEqual([2, 1, undefined]);
    expect(freed).toEqual([]);
  });

  it('are at most 16 MiB each and 64 MiB in all: the first sizes make room', () => {
    const [a, b] = [++streams, ++streams];
    expect(keepBlock(device, a, 16 * mib + 1, 1)).toBe(false);
    for (const address of [1, 2]) expect(keepBlock(device, a, 15 * mib, address)).toBe(true);
    for (const address of [3, 4]) expect(keepBlock(device, a, 16 * mib, address)).toBe(true);
    expect(freed).toEqual([]);
    expect(keepBlock(device, b, 3 * mib, 5)).toBe(true);
    expect(freed).toEqual([1, 2]);
    // A size that was in use when room was made comes back behind the others.
    expect(takeKept(a, 16 * mib)).toBe(4);
    for (const address of [6, 7]) expect(keepBlock(device, a, 14 * mib, address)).toBe(true);
    expect(keepBlock(device, a, 16 * mib, 4)).toBe(true);
    expect(freed).toEqual([1, 2]);
    expect(keepBlock(device, a, 15 * mib, 8)).toBe(true);
    expect(freed).toEqual([1, 2, 3, 4]);
    expect([takeKept(a, 14 * mib), takeKept(a, 16 * mib), takeKept(b, 3 * mib)]).toEqual([7, undefined, 5]);
  });

  it('make room on their own device alone', () => {
    const [a, b] = [++streams, ++streams];
    expect(keepBlock(device, a, mib, 1)).toBe(true);
    for (const address of [2, 3, 4, 5, 6]) expect(keepBlock(device + 1, b, 16 * mib, address)).toBe(true);
    expect(takeKept(a, mib)).toBe(1);
    expect(freed).toEqual([2, 3, 4, 5]);
  });

  it('go back to the driver with their stream, and with their device', () => {
    const [a, b] = [++streams, ++streams];
    for (const [stream, address] of [
      [a, 1],
      [a, 2],
      [b, 3],
    ] as const) {
      expect(keepBlock(device, stream, 512 * address, address)).toBe(true);
    }
    releaseStreamBlocks(a);
    expect(freed).toEqual([1, 2]);
    expect([releaseDeviceBlocks(device), releaseDeviceBlocks(device)]).toEqual([true, false]);
    expect(freed).toEqual([1, 2, 3]);
    expect(takeKept(b, 512 * 3)).toBeUndefined();
  });

  it('are as large as all tensors they serve', () => {
    expect([1, 512, 513, 16 * mib + 1].map(blockBytes)).toEqual([512, 512, 1024, 16 * mib + 512]);
  });
});
