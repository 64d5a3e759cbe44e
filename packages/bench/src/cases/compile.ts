// SPDX-License-Identifier: Apache-2.0
// Time to the first result of an operator in a new process: with an empty kernel cache, and with a filled one.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HostCase } from './benchCase.ts';
import { runChild } from './childProcess.ts';

/** Prints the microseconds of one call and its synchronisation, the device and its context being up already. */
const firstCall = (setup: string, call: string, device: string): string => `
const { randn, cuda, singleDecodeWithKVCache, singlePrefillWithKVCache } = await import('@flashinfer/core');
const options = { dtype: 'bfloat16', device: '${device}', seed: 1 };
${setup}
cuda.synchronizeSync();
const start = process.hrtime.bigint();
${call}
cuda.synchronizeSync();
console.log(Number(process.hrtime.bigint() - start) / 1000);
`;

const operators = {
  decode: {
    setup: 'const q = randn([32, 128], options), k = randn([64, 8, 128], options);',
    call: 'singleDecodeWithKVCache(q, k, k);',
  },
  prefill: {
    setup: 'const q = randn([64, 32, 128], options), k = randn([64, 8, 128], options);',
    call: 'singlePrefillWithKVCache(q, k, k, { causal: true });',
  },
} as const;

export const compileCases: HostCase[] = (['decode', 'prefill'] as const).map((operator) => ({
  kind: 'host',
  name: `compile/${operator}_bf16_d128`,
  params: { operator, dtype: 'bfloat16', headDim: 128 },
  devices: ['cuda'],
  async measure({ device, quick }) {
    const cold: number[] = [];
    const cached: number[] = [];
    const { setup, call } = operators[operator];
    const script = firstCall(setup, call, device);
    for (let n = 0; n < (quick ? 1 : 3); ++n) {
      const cache = await mkdtemp(join(tmpdir(), 'flashinfer-bench-'));
      try {
        const env = { FLASHINFER_WORKSPACE_BASE: cache };
        cold.push(Number(await runChild(script, env)));
        cached.push(Number(await runChild(script, env)));
      } finally {
        await rm(cache, { recursive: true, force: true });
      }
    }
    return [
      { variant: 'first call, empty cache', samplesUs: cold },
      { variant: 'first call, from cache', samplesUs: cached },
    ];
  },
}));
