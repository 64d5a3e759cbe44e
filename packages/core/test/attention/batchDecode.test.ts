// SPDX-License-Identifier: Apache-2.0
// What the decode wrapper has of its own: several query tokens a request, the choice of template, caches of any strides,
// batches of any size.
import { describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { onCuda, testDevice } from '../device.ts';
import { expectThrows } from '../thrownBy.ts';
import { poisoned } from './attentionCase.ts';
import { type BatchCase, expectBatch, kept, pagedInputs, planOptions } from './batchCase.ts';

const base = { numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16', pageSize: 16 } as const;
type DecodeCase = Omit<BatchCase, 'qoLens'> & { readonly qLenPerReq?: number; readonly useTensorCores?: boolean };

/** `reshape` gives another view of the same cache. */
function runDecode(
  { qLenPerReq = 1, useTensorCores, ...rest }: DecodeCase,
  reshape = (cache: flashinfer.PagedKVCache): flashinfer.PagedKVCache => cache,
): void {
  const c: BatchCase = { ...rest, qoLens: rest.kvLens.map(() => qLenPerReq) };
  const { inputs, table, cache } = pagedInputs(c);
  const { numPages: _, ...pages } = table;
  const wrapper = kept(
    new flashinfer.BatchDecodeWithPagedKVCacheWrapper({
      device: testDevice,
      kvLayout: c.kvLayout ?? 'NHD',
      ...(useTensorCores !== undefined && { useTensorCores }),
    }),
  );
  wrapper.plan({ ...planOptions(c), ...pages, pageSize: c.pageSize!, qLenPerReq });
  const out = poisoned(inputs.q.shape, c.dtype);
  const [, lse] = wrapper.run(inputs.q, reshape(cache), { out, returnLse: true });
  const reference = qLenPerReq > 1 ? { ...c, options: { ...c.options, causal: true } } : c;
  expectBatch(reference, inputs, out.toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
}

describe('qLenPerReq', () => {
  const kvLens = [3, 700, 5, 64, 2048];
  const cases: (DecodeCase & { name: string })[] = [
    { name: '2 tokens', ...base, kvLens, qLenPerReq: 2 },
    { name: '4 tokens: a whole tile of packed rows', ...base, kvLens, qLenPerReq: 4 },
    { name: '5 tokens, more rows than the decode tile', ...base, kvLens: [5, 700, 64], qLenPerReq: 5 },
    { name: '7 tokens, decode template', ...base, kvLens: [7, 700, 64], qLenPerReq: 7, useTensorCores: false },
    { name: '3 tokens, prefill template', ...base, kvLens, qLenPerReq: 3, useTensorCores: true },
    { name: 'fewer keys than tokens', ...base, kvLens: [0, 1, 3, 900], qLenPerReq: 4 },
    {
      name: 'window, rope, bf16, page 5 HND',
      ...base,
      dtype: 'bfloat16',
      kvLayout: 'HND',
      pageSize: 5,
      kvLens,
      qLenPerReq: 3,
      options: { windowLeft: 50, posEncodingMode: 'ROPE_LLAMA' },
    },
    { name: 'fp8 KV', ...base, kvDtype: 'float8_e4m3fn', kvLens, qLenPerReq: 2 },
  ];
  it.each(cases)('$name', (c) => runDecode(c));

  it.skipIf(!onCuda)('replays in a CUDA graph, with the wrapper made for its tokens', () => {
    const c: BatchCase = { ...base, qoLens: [3, 3], kvLens: [40, 2000] };
    const maxima = { useCudaGraph: true, maxBatchSize: 2, maxNumPages: 300 };
    const make = (maxNumTokens?: number) =>
      kept(
        new flashinfer.BatchDecodeWithPagedKVCacheWrapper({
          device: testDevice,
          ...maxima,
          ...(maxNumTokens && { maxNumTokens }),
        }),
      );
    const prepare = (kvLens: number[]) => {
      const inputs = pagedInputs({ ...c, kvLens });
      const { numPages: _, ...pages } = inputs.table;
      return { ...inputs, plan: { ...planOptions(c), ...pages, pageSize: 16, qLenPerReq: 3 } };
    };
    const first = prepare([40, 2000]);
    expectThrows(() => make().plan(first.plan), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'numTokens=6', 'maxNumTokens');
    const wrapper = make(6);
    wrapper.plan(first.plan);
    const cache = kept(flashinfer.zeros([300, 2, 16, 2, 128], { dtype: 'float16', device: testDevice }));
    const { q } = first.inputs;
    const out = poisoned(q.shape, 'float16');
    const lse = flashinfer.zeros([6, 8], { dtype: 'float32', device: testDevice });
    wrapper.run(q, cache, { out, lse, returnLse: true });
    flashinfer.cuda.synchronizeSync();
    const stream = kept(new flashinfer.cuda.Stream());
    const graph = kept(
      flashinfer.cuda.capture(stream, () => void wrapper.run(q, cache, { out, lse, returnLse: true })),
    );
    for (const kvLens of [
      [40, 2000],
      [1500, 3],
      [7, 8],
    ]) {
      const { inputs, plan, table, cache: filled } = prepare(kvLens);
      wrapper.plan(plan);
      cache.slice(0, 0, table.numPages).copy_(filled as flashinfer.Tensor);
      q.copy_(inputs.q);
      graph.launch();
      const expected = { ...c, kvLens, options: { causal: true } };
      expectBatch(expected, inputs, out.toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
    }
  });

  it.each([0, -1, 1.5, 2 ** 31, null, '2'])('refuses %s', (qLenPerReq) => {
    const wrapper = kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice }));
    const plan = { ...planOptions({ ...base, qoLens: [1], kvLens: [1] }), pageSize: 16 };
    const pages = { pagedKvIndptr: [0, 1], pagedKvIndices: [0], pagedKvLastPageLen: [1] };
    expectThrows(
      () => wrapper.plan({ ...plan, ...pages, qLenPerReq: qLenPerReq as number }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'qLenPerReq',
    );
  });
});

describe('useTensorCores', () => {
  for (const useTensorCores of [true, false]) {
    it.each([1, 7, 24])(`${useTensorCores}, group %i`, (group) => {
      const kvLens = [54, 0, 97, 2048];
      runDecode({ ...base, numQoHeads: group * 2, kvLens, useTensorCores });
    });
  }

  it.skipIf(!onCuda)('chooses the template', () => {
    const name = (useTensorCores?: boolean, numQoHeads: number = base.numQoHeads) => {
      const options = { device: testDevice, ...(useTensorCores !== undefined && { useTensorCores }) };
      const wrapper = kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper(options));
      const pages = { pagedKvIndptr: [0, 1], pagedKvIndices: [0], pagedKvLastPageLen: [1], pageSize: 16 };
      wrapper.plan({ ...planOptions({ ...base, numQoHeads, qoLens: [1], kvLens: [1] }), ...pages });
      return wrapper.kernelSpecs()[0]!.name;
    };
    expect(name()).toMatch(/^batch_decode_paged/);
    expect(name(false)).toMatch(/^batch_decode_paged/);
    expect(name(true)).toMatch(/^batch_prefill_paged/);
    expect(name(undefined, 16 * base.numKvHeads)).toMatch(/^batch_decode_paged/);
    expect(name(undefined, 17 * base.numKvHeads)).toMatch(/^batch_prefill_paged/);
    expect(name(false, 17 * base.numKvHeads)).toMatch(/^batch_decode_paged/);
  });

  it('refuses what is no boolean', () => {
    expectThrows(
      () => new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice, useTensorCores: 1 as never }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'useTensorCores',
      '1',
    );
  });
});

describe('strided caches', () => {
  const kvLens = [54, 0, 97, 700];
  /** NaN where the cache is not. */
  const storage = (shape: number[]): flashinfer.Tensor => poisoned(shape, 'float16');

  it.each(['NHD', 'HND'] as const)('one tensor, in a larger one: %s', (kvLayout) => {
    runDecode({ ...base, pageSize: 3, kvLayout, kvLens }, (cache) => {
      const [numPages, , a, b, dim] = (cache as flashinfer.Tensor).shape as [number, number, number, number, number];
      const large = storage([numPages, 4, a + 1, b + 2, dim + 8]);
      const view = large
        .slice(1, 1, 3)
        .slice(2, 1, a + 1)
        .slice(3, 0, b)
        .slice(4, 8, dim + 8);
      view.copy_(cache as flashinfer.Tensor);
      expect(view.isContiguous).toBe(false);
      return view;
    });
  });

  it.each(['NHD', 'HND'] as const)('k and v of different strides: %s', (kvLayout) => {
    runDecode({ ...base, pageSize: 5, kvLayout, kvLens, tuple: true }, (cache) => {
      const [k, v] = cache as readonly [flashinfer.Tensor, flashinfer.Tensor];
      const [numPages, a, b, dim] = k.shape as [number, number, number, number];
      // Heads and slots of k the other way round, every other page; pages of v between its slots.
      const kView = storage([numPages * 2, b, a, dim])
        .view(numPages, 2, b, a, dim)
        .select(1, 1)
        .transpose(1, 2);
      const vView = storage([a, numPages, b + 1, dim])
        .transpose(0, 1)
        .slice(2, 0, b);
      kView.copy_(k);
      vView.copy_(v);
      expect(kView.strides).not.toEqual(vView.strides);
      return [kView, vView];
    });
  });
});

describe('batches of more requests than a grid has rows', () => {
  const batchSize = 66_000;

  // One key a request: the output is its value.
  it('decode', () => {
    const wrapper = kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice }));
    const pagedKvIndptr = Int32Array.from({ length: batchSize + 1 }, (_, i) => i);
    const pagedKvIndices = Int32Array.from({ length: batchSize }, (_, i) => (i * 7) % batchSize);
    const pagedKvLastPageLen = new Int32Array(batchSize).fill(1);
    const shape = { pageSize: 1, numQoHeads: 1, numKvHeads: 1, headDimQk: 64 };
    wrapper.plan({ pagedKvIndptr, pagedKvIndices, pagedKvLastPageLen, ...shape });
    const cache = kept(flashinfer.randn([batchSize, 2, 1, 1, 64], { dtype: 'float16', device: testDevice }));
    const q = kept(flashinfer.zeros([batchSize, 1, 64], { dtype: 'float16', device: testDevice }));
    const got = kept(wrapper.run(q, cache)).toArraySync() as Float32Array;
    const values = cache.select(1, 1).contiguous().toArraySync() as Float32Array;
    for (let r = 0; r < batchSize; r += r < 65_500 ? 97 : 1) {
      const page = pagedKvIndices[r]!;
      expect(got.subarray(r * 64, r * 64 + 64)).toEqual(values.subarray(page * 64, page * 64 + 64));
    }
  });

  it('ragged prefill, with more rows than the decode tile', () => {
    const fa2 = onCuda ? ({ backend: 'fa2' } as const) : {};
    const wrapper = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice, ...fa2 }));
    const indptr = Int32Array.from({ length: batchSize + 1 }, (_, i) => i);
    wrapper.plan({ qoIndptr: indptr, kvIndptr: indptr, numQoHeads: 17, numKvHeads: 1, headDimQk: 64 });
    const make = (heads: number) =>
      kept(flashinfer.randn([batchSize, heads, 64], { dtype: 'float16', device: testDevice }));
    const [q, k, v] = [make(17), make(1), make(1)];
    const out = kept(wrapper.run(q, k, v));
    const first = 65_400;
    const got = out.slice(0, first, batchSize).contiguous().toArraySync() as Float32Array;
    const values = v.slice(0, first, batchSize).contiguous().toArraySync() as Float32Array;
    for (let row = 0; row < (batchSize - first) * 17; ++row) {
      const value = Math.floor(row / 17) * 64;
      expect(got.subarray(row * 64, row * 64 + 64)).toEqual(values.subarray(value, value + 64));
    }
  });
});
