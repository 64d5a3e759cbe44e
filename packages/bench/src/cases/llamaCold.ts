// SPDX-License-Identifier: Apache-2.0
// Everything a Llama 3 server launches, compiled into an empty cache by one new process: the seven families of
// FlashInfer's warm-up test. Needs no GPU.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HostCase } from './benchCase.ts';
import { runChild } from './childProcess.ts';

/**
 * Names of kernels of each family. Of sampling not those that no Llama launches on this target: rows that no cluster of blocks
 * holds (_t1024, _l2: vocabularies above half a million) or whose accesses are of one element (_v1: vocabularies that are
 * no multiple of four), or of another dtype.
 */
const families: Readonly<Record<string, RegExp>> = {
  activation: /^silu_and_mul_bf16/,
  norm: /^(fused_add_)?rmsnorm_bf16_v/,
  sampling: /^(?!.*(_t1024|_l2|_v1_|_f16_))(held_)?(sample|softmax|renorm|mask_logits|chain)_/,
  quantization: /packbits/,
  page: /^append_paged_kv_b|^batch_indices|^seq_lens/,
  batchDecode: /^batch_(decode_paged|merge_splits)_bf16_hd128/,
  batchPrefill: /^batch_prefill_paged_bf16_hd128/,
};

/** Prints the compiler, its kernels and the milliseconds they took, warmup and all. */
const compileAll = `
const { aotKernels, warmup } = await import('@flashinfer/core');
const { jitEnvironment } = await import('@flashinfer/core/internal');
const all = aotKernels({ families: ['llama3'], dtypes: ['bfloat16'], arch: '9.0a' });
const families = [${Object.values(families).join(', ')}].map((name) => all.filter((kernel) => name.test(kernel.name)));
const start = process.hrtime.bigint();
const found = [];
await warmup(...families.flat(), { arch: '9.0a', onProgress: ({ name, source }) => found.push({ name, source }) });
const us = Number(process.hrtime.bigint() - start) / 1000;
const stale = found.find(({ source }) => source !== 'compiled');
if (stale !== undefined) throw new Error('compile/llama_cold: ' + stale.name + ' came from ' + stale.source);
const compiled = families.filter((family) => family.length > 0).length;
console.log(JSON.stringify({ compiler: jitEnvironment().findCompiler('sm_90a').kind, kernels: found.length, compiled, us }));
`;

interface Result {
  readonly compiler: string;
  readonly kernels: number;
  readonly compiled: number;
  readonly us: number;
}

export const llamaColdCases: HostCase[] = [
  {
    kind: 'host',
    name: 'compile/llama_cold_bf16_d128',
    params: { model: 'llama3', dtype: 'bfloat16', headDim: 128, target: 'sm_90a' },
    devices: ['cpu', 'cuda'],
    async measure({ quick }) {
      const results: Result[] = [];
      for (let n = 0; n < (quick ? 1 : 3); ++n) {
        const cache = await mkdtemp(join(tmpdir(), 'flashinfer-bench-'));
        try {
          results.push(JSON.parse(await runChild(compileAll, { FLASHINFER_WORKSPACE_BASE: cache })) as Result);
        } finally {
          await rm(cache, { recursive: true, force: true });
        }
      }
      const { compiler, kernels, compiled } = results[0]!;
      const variant = `${compiler}, ${kernels} kernels of ${compiled} families, empty cache`;
      return [{ variant, samplesUs: results.map(({ us }) => us) }];
    },
  },
];
