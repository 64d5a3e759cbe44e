// SPDX-License-Identifier: Apache-2.0
// The fa3 template gives the same bits whichever block takes which item of its queue: pages by box, gathered rows, float8.
// Single requests of 16 bits: hopper.test.ts.
import { describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { testDevice } from '../device.ts';
import { hostValues, onHopper, poisoned } from './attentionCase.ts';
import { type BatchCase, expectBatch, indptr, kept, pagedInputs, planOptions } from './batchCase.ts';

if (!onHopper) console.warn('200 equal runs of the fa3 template are skipped: no Hopper GPU');

/** `run` writes to poisoned tensors, so that a run that writes nothing cannot repeat the one before. */
function expectEqualRuns(run: () => readonly flashinfer.Tensor[], times: number): readonly flashinfer.Tensor[] {
  const bytes = (x: flashinfer.Tensor): Buffer => Buffer.from(hostValues(x).buffer);
  const first = run();
  const wanted = first.map(bytes);
  expect(first.every((x) => hostValues(x).every(Number.isFinite))).toBe(true);
  for (let n = 1; n < times; ++n) {
    const got = run();
    got.forEach((x, i) => {
      expect(bytes(x).equals(wanted[i]!), `run ${n}`).toBe(true);
      x.dispose();
    });
  }
  return first;
}

describe.skipIf(!onHopper)('200 runs of the fa3 template have the same bits', () => {
  // More items than multiprocessors, of different lengths.
  const lengths = { qoLens: [700, 333, 1, 900], kvLens: [700, 500, 300, 900] };
  const base = { ...lengths, numQoHeads: 16, numKvHeads: 4, headDim: 128, options: { causal: true } } as const;

  it.each<[string, BatchCase, RegExp]>([
    ['boxes of 16', { ...base, dtype: 'bfloat16', pageSize: 16 }, /fa3_pages/],
    ['boxes of 256, d64', { ...base, dtype: 'float16', headDim: 64, pageSize: 256 }, /fa3_pages/],
    ['gather', { ...base, dtype: 'bfloat16', pageSize: 5 }, /fa3_gather/],
    ['gather, page 1, d256', { ...base, dtype: 'float16', headDim: 256, pageSize: 1 }, /fa3_tokens/],
    ['float8', { ...base, dtype: 'float8_e4m3fn', pageSize: 16, outDtype: 'bfloat16' }, /fa3_paged_e4m3/],
  ])('pages: %s', (_, c, kernel) => {
    const { inputs, table, cache } = pagedInputs(c);
    const { numPages: __, ...pages } = table;
    const wrapper = kept(new flashinfer.BatchPrefillWithPagedKVCacheWrapper({ backend: 'fa3', device: testDevice }));
    wrapper.plan({ ...planOptions(c), ...pages, pageSize: c.pageSize!, qoIndptr: indptr(c.qoLens) });
    expect(wrapper.kernelSpecs()[0]!.name).toMatch(kernel);
    const [out, lse] = expectEqualRuns(
      () =>
        wrapper.run(inputs.q, cache, {
          out: poisoned(inputs.q.shape, c.outDtype ?? c.dtype),
          lse: poisoned(inputs.q.shape.slice(0, 2), 'float32'),
          returnLse: true,
        }),
      200,
    );
    expectBatch(c, inputs, hostValues(out!), hostValues(lse!));
  });

  it.each([128, 256])('one request of float8, d%i', (headDim) => {
    const [q, k, v] = [16, 4, 4].map((heads, seed) =>
      kept(flashinfer.randn([1500, heads, headDim], { dtype: 'float8_e4m3fn', device: testDevice, seed })),
    ) as [flashinfer.Tensor, flashinfer.Tensor, flashinfer.Tensor];
    expectEqualRuns(() => {
      const out = poisoned(q.shape, 'bfloat16');
      const lse = flashinfer.singlePrefillWithKVCache(q, k, v, { causal: true, out, returnLse: true })[1];
      return [out, lse];
    }, 200);
  });
});
