// SPDX-License-Identifier: Apache-2.0
// Two wrappers on two streams, and in two worker threads, at once: each gives the bits it gives alone, which other tests
// compare with float64. On the device named by FLASHINFER_TEST_DEVICE.
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { buildBundle } from '../bundle.ts';
import { testDevice } from '../device.ts';
import { testSeed } from '../reference/random.ts';
import { runWrappers, type Work } from './concurrentWork.ts';

const work = (n: number, together: boolean): Work => ({
  device: testDevice,
  seed: (testSeed % 100_000) + 1000 * n,
  steps: 20,
  together,
});

let folder = '';
beforeAll(async () => {
  ({ folder } = await buildBundle({ worker: 'test/attention/concurrentWorker.ts' }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function expectSame(found: readonly Float32Array[], alone: readonly Float32Array[], label: string): void {
  expect(found.length).toBe(alone.length);
  for (const [step, out] of found.entries()) {
    const different = out.findIndex((value, i) => value !== alone[step]![i]);
    expect(different, `[seed ${testSeed}] ${label}, output ${step}: ${out[different]}`).toBe(-1);
    expect(out.length).toBe(alone[step]!.length);
  }
}

/** A thread that waits at the gate, and what it gives after. */
async function startWorker(work: Work, gate: Int32Array): Promise<{ outs: Promise<Float32Array[]> }> {
  const worker = new Worker(join(folder, 'worker.mjs'), { workerData: { work, gate } });
  const failed = once(worker, 'error').then(([error]) => Promise.reject(error));
  await Promise.race([once(worker, 'message'), failed]);
  const outs = Promise.race([once(worker, 'message'), failed]).then(([value]) => value as Float32Array[]);
  return { outs };
}

it('two wrappers on two streams', () => {
  expectSame(runWrappers(work(0, true)), runWrappers(work(0, false)), 'streams');
});

it('two worker threads and the main thread, each with two wrappers on two streams', async () => {
  const alone = [0, 1, 2].map((n) => runWrappers(work(n, false)));
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const workers = await Promise.all([1, 2].map((n) => startWorker(work(n, true), gate)));
  Atomics.store(gate, 0, 1);
  Atomics.notify(gate, 0);
  const here = runWrappers(work(0, true));
  const [first, second] = await Promise.all(workers.map(({ outs }) => outs));
  expectSame(here, alone[0]!, 'main thread');
  expectSame(first!, alone[1]!, 'first worker');
  expectSame(second!, alone[2]!, 'second worker');
});
