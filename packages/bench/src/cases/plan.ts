// SPDX-License-Identifier: Apache-2.0
// Host cost of a decode step's plan() and run().
import { BatchDecodeWithPagedKVCacheWrapper, empty } from '@flashinfer/core';
import { currentStream, deviceIndex, native } from '@flashinfer/core/internal';
import { hostSamples } from '../timing/host.ts';
import { type BatchParams, pageTable, planShape } from './batchCase.ts';
import type { BenchContext, HostCase, HostSamples } from './benchCase.ts';

function planSamples({ device, quick }: BenchContext, batchSize: number, kvLen: number): HostSamples[] {
  // Lengths that differ, as in a server: equal ones would spare the plan its sort.
  const kvLens = Array.from({ length: batchSize }, (_, r) => kvLen - ((r * 7) % 64));
  const params: BatchParams = {
    qoLens: kvLens.map(() => 1),
    kvLens,
    numQoHeads: 32,
    numKvHeads: 8,
    headDim: 128,
    pageSize: 16,
  };
  const options = { ...pageTable(params), ...planShape(params) };
  const wrapper = new BatchDecodeWithPagedKVCacheWrapper({ device });
  wrapper.plan(options);
  const q = empty([batchSize, 32, 128], { dtype: 'bfloat16', device });
  const out = empty([batchSize, 32, 128], { dtype: 'bfloat16', device });
  const cache = empty([options.pagedKvIndices.length, 2, 16, 8, 128], { dtype: 'bfloat16', device });
  const runOptions = { out };
  const stream = currentStream(deviceIndex(device));
  // Few calls between synchronisations: the copies and launches must not fill the driver's queue.
  const burst = 16;
  const samples = hostSamples(
    [
      ['plan', () => wrapper.plan(options)],
      ['run', () => wrapper.run(q, cache, runOptions)],
    ],
    { burst, rounds: quick ? 5 : 200, synchronize: () => native().cuda.streamSynchronize(stream) },
  );
  for (const x of [wrapper, q, out, cache]) x.dispose();
  return samples;
}

export const planCases: HostCase[] = (
  [
    [1, 1024],
    [64, 4096],
    [256, 1024],
  ] as const
).map(([batchSize, kvLen]) => ({
  kind: 'host',
  name: `plan/decode_b${batchSize}_kv${kvLen}`,
  params: { batchSize, kvLen },
  devices: ['cuda'],
  ...(batchSize > 1 && { anchor: `plan_decode_B${batchSize}` }),
  measure: async (context) => planSamples(context, batchSize, kvLen),
}));
