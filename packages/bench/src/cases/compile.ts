// SPDX-License-Identifier: Apache-2.0
// Time to a kernel in a new process, with an empty kernel cache and with a filled one: to the first result of an operator
// on a GPU, and of one module with nvcc, which needs no GPU.
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

/** Prints the microseconds that a module takes whose name begins so: from an empty cache, then from memory-cold disk. */
const oneModule = (begin: string): string => `
const { attentionSpecs, findNvcc, jitEnvironment, nvccCompiler, resolveModule, runSync } = await import('@flashinfer/core/internal');
const nvcc = findNvcc();
if (nvcc.path === undefined) throw new Error('compile/nvcc: no nvcc');
const compiler = nvccCompiler(nvcc.path, nvcc.release);
const jit = { ...jitEnvironment(), findCompiler: () => compiler, compilerRelease: () => compiler.release };
const spec = attentionSpecs().find((each) => each.name.startsWith('${begin}'));
const start = process.hrtime.bigint();
const { origin } = runSync(resolveModule(jit, spec, 'sm_90a', { blocking: true }));
console.log(origin, Number(process.hrtime.bigint() - start) / 1000);
`;

const nvccModules = {
  prefill_f16_d128: { begin: 'single_prefill_f16_hd128_causal', dtype: 'float16' },
  prefill_fa3_bf16_d128: { begin: 'batch_prefill_fa3_rows_bf16_hd128_causal', dtype: 'bfloat16' },
} as const;

const nvccCases: HostCase[] = Object.entries(nvccModules).map(([name, { begin, dtype }]) => ({
  kind: 'host',
  name: `compile/nvcc_${name}`,
  params: { compiler: 'nvcc', target: 'sm_90a', dtype, headDim: 128 },
  devices: ['cpu', 'cuda'],
  async measure({ quick }) {
    const samples = { compiled: [] as number[], cache: [] as number[] };
    for (let n = 0; n < (quick ? 1 : 5); ++n) {
      const cache = await mkdtemp(join(tmpdir(), 'flashinfer-bench-'));
      try {
        for (const expected of ['compiled', 'cache'] as const) {
          const [origin, us] = (await runChild(oneModule(begin), { FLASHINFER_WORKSPACE_BASE: cache })).split(' ');
          if (origin !== expected) throw new Error(`compile/nvcc: the module came from ${origin}, not ${expected}`);
          samples[expected].push(Number(us));
        }
      } finally {
        await rm(cache, { recursive: true, force: true });
      }
    }
    return [
      { variant: 'nvcc, empty cache', samplesUs: samples.compiled },
      { variant: 'key, checksum and cubin from cache', samplesUs: samples.cache },
    ];
  },
}));

const firstCallCases: HostCase[] = (['decode', 'prefill'] as const).map((operator) => ({
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

export const compileCases: HostCase[] = [...firstCallCases, ...nvccCases];
