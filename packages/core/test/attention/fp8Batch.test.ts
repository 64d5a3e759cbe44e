// SPDX-License-Identifier: Apache-2.0
// Batches of float8_e4m3fn queries, keys and values: ragged, paged, and in graphs. Equal runs: hopperRepeats.test.ts.
import { describe, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { onCuda, testDevice } from '../device.ts';
import { poisoned, servesFloat8Queries } from './attentionCase.ts';
import {
  type BatchCase,
  expectBatch,
  indptr,
  kept,
  pagedInputs,
  planOptions,
  runPaged,
  runRagged,
} from './batchCase.ts';

const e4m3 = 'float8_e4m3fn';
const heads = { numQoHeads: 8, numKvHeads: 2 };

describe.skipIf(!servesFloat8Queries)('batches of float8_e4m3fn', () => {
  const base = { ...heads, headDim: 128, dtype: e4m3, options: { causal: true } } as const;
  const lengths = { qoLens: [37, 1, 0, 200, 17, 130], kvLens: [54, 97, 30, 700, 0, 300] };

  it.each<Omit<BatchCase, 'qoLens' | 'kvLens'> & { name: string }>([
    { name: 'causal', ...base },
    {
      name: 'full, HND, bfloat16, scales',
      ...base,
      options: {},
      kvLayout: 'HND',
      outDtype: 'bfloat16',
      headScales: true,
    },
    { name: 'd256', ...base, headDim: 256, headScales: true },
    { name: 'group 7', ...base, numQoHeads: 7, numKvHeads: 1, headScales: true },
    { name: 'window, cap', ...base, options: { causal: true, windowLeft: 50, logitsSoftCap: 20 } },
    { name: 'large logits', ...base, options: { causal: true, smScale: 0.5 } },
    { name: 'ALiBi, sinks', ...base, options: { causal: true, posEncodingMode: 'ALIBI' }, sinks: true },
  ])('ragged: $name', (c) => runRagged({ ...c, ...lengths }));

  it.each([1, 5, 16, 24, 64, 256])('pages of %i', (pageSize) => {
    runPaged({ ...base, ...lengths, pageSize, headScales: true }, 'prefill');
    runPaged({ ...base, ...lengths, pageSize, kvLayout: 'HND', tuple: true, headDim: 256, options: {} }, 'prefill');
  });

  it.skipIf(!onCuda)('graphs replay correctly after new plans', () => {
    const c = (qoLens: number[], kvLens: number[]): BatchCase => ({ ...base, pageSize: 16, qoLens, kvLens });
    // The tensors of the first plan stay, as a captured run reads them; later plans use no more pages or tokens.
    const plans = [c([100, 200, 50, 250], [300, 300, 100, 500]), c([600], [1000]), c([1, 0, 599], [400, 100, 600])];
    const maxima = { maxBatchSize: 4, maxNumTokens: 600, maxNumPages: 80 };
    const wrapper = kept(
      new flashinfer.BatchPrefillWithPagedKVCacheWrapper({ useCudaGraph: true, ...maxima, device: testDevice }),
    );
    const prepare = (each: BatchCase) => {
      const { inputs, table, cache } = pagedInputs(each);
      const { numPages: _, ...pages } = table;
      wrapper.plan({ ...planOptions(each), ...pages, pageSize: 16, qoIndptr: indptr(each.qoLens) });
      return { inputs, cache: cache as flashinfer.Tensor };
    };
    const { inputs: first, cache: pool } = prepare(plans[0]!);
    const out = poisoned(first.q.shape, 'float16');
    const lse = flashinfer.zeros([600, heads.numQoHeads], { dtype: 'float32', device: testDevice });
    const run = () => void wrapper.run(first.q, pool, { out, lse, returnLse: true });
    run();
    flashinfer.cuda.synchronizeSync();
    const graph = kept(flashinfer.cuda.capture(kept(new flashinfer.cuda.Stream()), run));
    for (const each of plans) {
      const { inputs, cache } = prepare(each);
      pool.slice(0, 0, cache.shape[0]!).copy_(cache);
      first.q.copy_(inputs.q);
      out.copy_(poisoned(out.shape, 'float16'));
      graph.launch();
      expectBatch(each, inputs, out.toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
    }
  });
});
