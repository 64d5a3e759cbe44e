// SPDX-License-Identifier: Apache-2.0
// When memory is given back: at the end of a `using` scope, by the garbage collector, and with a worker.
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { memoryStats } from '../../src/runtime/memory.ts';
import { empty, zeros } from '../../src/tensor/create.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { testDevice as device } from '../device.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Finalisers run in tasks after a collection. */
async function collectedUntil(condition: () => boolean): Promise<boolean> {
  for (let attempt = 0; attempt < 50; attempt++) {
    collectGarbage();
    await setImmediate();
    if (condition()) return true;
  }
  return false;
}

const blocks = () => memoryStats(device).blocks;

describe('memory', () => {
  it('is freed at the end of a using scope, also on a throw', () => {
    const before = blocks();
    expect(() => {
      using a = empty(10, { device });
      using b = a.slice(0, 2, 4);
      expect([b.size, blocks()]).toEqual([2, before + 1]);
      throw new Error('stop');
    }).toThrow('stop');
    expect(blocks()).toBe(before);
  });

  it('is freed when making the contents fails', () => {
    const before = blocks();
    expect(() => zeros(3, { dtype: 'no' as never, device })).toThrow();
    expect(blocks()).toBe(before);
  });

  it('is freed by the garbage collector when nobody refers to it', async () => {
    const before = blocks();
    for (let i = 0; i < 100; i++) empty(1000, { device }).view(10, 100);
    expect(blocks()).toBeGreaterThan(before);
    expect(await collectedUntil(() => blocks() === before)).toBe(true);
  });

  it('is kept by a view that outlives its base, disposed of or collected', async () => {
    const before = blocks();
    // In functions of their own: a frame's temporaries keep what they held last.
    const makeViews = () =>
      Array.from({ length: 20 }, (_, i) => {
        const base = zeros([4, 4], { device });
        const view = base.slice(0, 1, 2);
        if (i % 2) base.dispose();
        return view;
      });
    const readAll = (views: Tensor[]) => views.map((view) => [...(view.toArraySync() as Float32Array)]);
    const views = makeViews();
    expect(await collectedUntil(() => blocks() < before + 20)).toBe(false);
    expect(readAll(views)).toEqual(new Array(20).fill([0, 0, 0, 0]));
    views.length = 0;
    expect(await collectedUntil(() => blocks() === before)).toBe(true);
  });

  it('is freed once when a tensor is disposed of and collected', async () => {
    const before = memoryStats(device);
    const makeAndDispose = () => {
      for (let i = 0; i < 50; i++) empty(100, { device }).dispose();
    };
    makeAndDispose();
    await collectedUntil(() => false);
    expect(memoryStats(device)).toMatchObject({ blocks: before.blocks, allocatedBytes: before.allocatedBytes });
  });
});
