// SPDX-License-Identifier: Apache-2.0
import { availableParallelism } from 'node:os';
import { afterEach, describe, expect, it } from 'vitest';
import { native } from '../../src/native/load.ts';
import * as cuda from '../../src/runtime/cuda.ts';
import { defaultDevice, deviceIndex, deviceOf, parseDevice, setDefaultDevice } from '../../src/runtime/device.ts';
import { drawSeed, manualSeed } from '../../src/runtime/seed.ts';
import { setNumThreads } from '../../src/runtime/threads.ts';
import { workspace, zeroedCounters } from '../../src/runtime/workspace.ts';
import { empty } from '../../src/tensor/create.ts';
import { expectThrows } from '../thrownBy.ts';

describe('device names', () => {
  it('are parsed', () => {
    expect(['cpu', 'cuda', 'cuda:0', 'cuda:12'].map(parseDevice)).toEqual(['cpu', 'cuda:0', 'cuda:0', 'cuda:12']);
    expect([deviceIndex('cpu'), deviceIndex('cuda:12')]).toEqual([-1, 12]);
    expect([deviceOf(-1), deviceOf(3)]).toEqual(['cpu', 'cuda:3']);
    for (const name of ['', 'gpu', 'cuda:', 'cuda:-1', 'cuda:1.5', 'CPU', 'cuda:00']) {
      expectThrows(() => parseDevice(name), 'ERR_FLASHINFER_INVALID_ARGUMENT', `'${name}'`, "'cpu', 'cuda'");
    }
    for (const [value, name] of [
      [0, '0'],
      [1n, '1n'],
      [{}, 'an object'],
    ]) {
      expectThrows(() => parseDevice(value as never), 'ERR_FLASHINFER_INVALID_ARGUMENT', `${name} is no device`);
    }
  });
});

describe.skipIf(cuda.isAvailable())('a machine without a GPU', () => {
  const initial = defaultDevice();
  afterEach(() => setDefaultDevice(initial));

  it('computes on the cpu', async () => {
    expect([defaultDevice(), cuda.deviceCount()]).toEqual(['cpu', 0]);
    await cuda.synchronize();
    cuda.synchronizeSync();
    expect(cuda.memoryStats()).toEqual(cuda.memoryStats('cpu'));
    expect(cuda.memoryStats().pool).toBeUndefined();
  });

  it('says from each call that needs one what is missing', () => {
    const code = 'ERR_FLASHINFER_CUDA_UNAVAILABLE';
    const library = process.platform === 'win32' ? 'nvcuda.dll' : 'libcuda';
    expectThrows(() => setDefaultDevice('cuda'), code, 'setDefaultDevice', library, "'cpu'");
    expect(defaultDevice()).toBe('cpu');
    expectThrows(() => empty(1, { device: 'cuda:1' }), code, 'empty: cuda:1');
    expectThrows(() => new cuda.Stream({ device: 'cuda' }), code, 'Stream');
    expectThrows(() => cuda.getDeviceProperties(0), code, 'getDeviceProperties');
    expectThrows(() => cuda.memoryStats('cuda'), code, 'memoryStats');
    expectThrows(() => new cuda.Stream(), 'ERR_FLASHINFER_INVALID_ARGUMENT', "'cpu'", 'CUDA device');
    expectThrows(() => new cuda.Event().record(), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'Event.record', "'cpu'");
    expectThrows(() => cuda.setStream('cpu'), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'setStream');
  });
});

describe('host memory', () => {
  it('is accounted for', () => {
    const before = cuda.memoryStats('cpu');
    const t = empty([10, 10], { dtype: 'float16', device: 'cpu' });
    const view = t.transpose(0, 1);
    const nothing = empty([0, 5], { device: 'cpu' });
    const during = cuda.memoryStats('cpu');
    expect(during).toMatchObject({ allocatedBytes: before.allocatedBytes + 200, blocks: before.blocks + 1 });
    for (const held of [nothing, t, view]) held.dispose();
    expect(cuda.memoryStats('cpu')).toMatchObject({ allocatedBytes: before.allocatedBytes, blocks: before.blocks });
    expect(cuda.memoryStats('cpu').peakBytes).toBeGreaterThanOrEqual(during.allocatedBytes);
    cuda.resetPeakMemoryStats('cpu');
    expect(cuda.memoryStats('cpu').peakBytes).toBe(before.allocatedBytes);
  });

  it('says how much was asked for when it runs out', () => {
    expectThrows(
      () => empty(2 ** 48, { device: 'cpu' }),
      'ERR_FLASHINFER_OUT_OF_MEMORY',
      'empty: no memory',
      `${2 ** 50}`,
      'dispose',
    );
  });

  it('serves as workspace', () => {
    const first = workspace(-1, 1000);
    expect(workspace(-1, 2000)).toBe(first);
    const counters = zeroedCounters(-1, 10);
    const bytes = new Uint8Array(40).fill(1);
    native().host.read(counters, bytes);
    expect(bytes).toEqual(new Uint8Array(40));
  });
});

describe('settings', () => {
  it('take a number of threads', () => {
    const { numThreads } = native().cpu.info();
    try {
      setNumThreads(1);
      expect(native().cpu.info().numThreads).toBe(1);
    } finally {
      setNumThreads(Math.min(numThreads, Math.max(1, availableParallelism())));
    }
    for (const value of [0, 1.5, -1, Number.NaN, 'two' as never]) {
      expectThrows(
        () => setNumThreads(value),
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        'numThreads is',
        String(value),
        '1 to 4096',
      );
    }
  });

  it('draw seeds that repeat after manualSeed and do not collide', () => {
    manualSeed(3n);
    const first = Array.from({ length: 1000 }, drawSeed);
    manualSeed(3);
    expect(Array.from({ length: 1000 }, drawSeed)).toEqual(first);
    expect(new Set(first).size).toBe(1000);
    expect(first.every((seed) => seed >= 0n && seed < 2n ** 64n)).toBe(true);
    // First output of the reference implementation of splitmix64 for seed 0.
    manualSeed(0);
    expect(drawSeed()).toBe(0xe220a8397b1dcdafn);
  });
});
