// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { log, logCall, logLevel, notice, resetLogging } from '../src/logging.ts';
import { empty, tensor } from '../src/tensor/create.ts';

const folder = mkdtempSync(join(tmpdir(), 'flashinfer-log-'));
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(() => resetLogging());
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  resetLogging();
});

function configure(level: string, destination: string): void {
  vi.stubEnv('FLASHINFER_LOGLEVEL', level);
  vi.stubEnv('FLASHINFER_LOGDEST', destination);
}

describe('logging', () => {
  it('writes calls to a file whose %i is the process id', () => {
    configure('3', join(folder, 'calls-%i.log'));
    using q = empty([2, 4], { dtype: 'float16', device: 'cpu' });
    logCall('rmsnorm', {
      q,
      eps: 1e-6,
      lists: [1, 'a'],
      window: undefined,
      indptr: new Int32Array(3),
      options: { a: 1 },
    });
    log(5, () => expect.unreachable());
    expect(readFileSync(join(folder, `calls-${process.pid}.log`), 'utf8')).toBe(
      'flashinfer: rmsnorm(q=float16[2, 4]@cpu, eps=0.000001, lists=[1, a], window=undefined, ' +
        'indptr=Int32Array(12 bytes), options={a=1})\n',
    );
  });

  it('adds statistics of the values at level 5', () => {
    configure('5', 'stderr');
    const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    using x = tensor([1, -2.5, Number.NaN, 4], { dtype: 'bfloat16', device: 'cpu' });
    const gone = tensor([1n], { device: 'cpu' });
    using none = tensor([], { device: 'cpu' });
    logCall('f', { x, none });
    gone.dispose();
    logCall('g', { gone });
    const [[first], [second]] = write.mock.calls as [[string], [string]];
    expect(first).toBe(
      `flashinfer: f(x=bfloat16[4]@cpu (min=-2.5, max=4, mean=${2.5 / 3}, nan=1), none=float32[0]@cpu (nan=0))\n`,
    );
    expect(second).toContain('gone=int64[1]@cpu (no statistics: Tensor.toArraySync: int64[1]@cpu was disposed');
  });

  it.each(['stdout', 'stderr'] as const)('writes names only at level 1, to %s', (stream) => {
    configure('1', stream);
    const write = vi.spyOn(process[stream], 'write').mockReturnValue(true);
    logCall('topK', { k: 3 });
    log(3, () => expect.unreachable());
    expect(write.mock.calls).toEqual([['flashinfer: topK\n']]);
  });

  it('logs no calls at level 0, and builds no text, but gives notices', () => {
    configure('0', '');
    const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    logCall('topK', {
      get k(): number {
        throw new Error('read');
      },
    });
    log(1, () => expect.unreachable());
    expect(logLevel()).toBe(0);
    notice('compiling x');
    expect(write.mock.calls).toEqual([['flashinfer: compiling x\n']]);
  });
});
