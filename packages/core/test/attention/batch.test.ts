// SPDX-License-Identifier: Apache-2.0
// The batch wrappers against the float64 reference, request by request.
import { describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { testDevice } from '../device.ts';
import { uniformSource } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';
import { poisoned } from './attentionCase.ts';
import {
  type BatchCase,
  expectBatch,
  kept,
  type makeInputs,
  pagedInputs,
  planOptions,
  runPaged,
  runRagged,
} from './batchCase.ts';

const heavyTail = [1, 5, 3000, 2, 64, 1, 130, 17];

describe('BatchDecodeWithPagedKVCacheWrapper', () => {
  const base = { numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16' } as const;
  const ones = (n: number): number[] => Array(n).fill(1);
  const cases: (Omit<BatchCase, 'qoLens'> & { name: string })[] = [
    { name: 'page 1', ...base, kvLens: heavyTail, pageSize: 1 },
    { name: 'page 5 HND', ...base, kvLens: heavyTail, pageSize: 5, kvLayout: 'HND' },
    { name: 'page 16, pair', ...base, kvLens: heavyTail, pageSize: 16, tuple: true },
    { name: 'page 64, bf16, d64', ...base, dtype: 'bfloat16', headDim: 64, kvLens: [54, 97, 512], pageSize: 64 },
    { name: 'd256, MHA', ...base, headDim: 256, numKvHeads: 8, kvLens: [700, 33], pageSize: 16 },
    { name: 'group 7', ...base, numQoHeads: 7, numKvHeads: 1, kvLens: [54, 0, 97, 2048], pageSize: 16 },
    { name: 'group 24', ...base, numQoHeads: 48, kvLens: [54, 600], pageSize: 3 },
    { name: 'empty requests', ...base, kvLens: [0, 7, 0, 0, 19], pageSize: 16 },
    { name: 'fp8 KV', ...base, kvDtype: 'float8_e4m3fn', kvLens: [54, 97, 512], pageSize: 16 },
    { name: 'rope', ...base, kvLens: [54, 97, 1200], pageSize: 16, options: { posEncodingMode: 'ROPE_LLAMA' } },
    { name: 'window', ...base, kvLens: [54, 97, 3000], pageSize: 16, options: { windowLeft: 40 } },
    {
      name: 'soft cap, alibi',
      ...base,
      kvLens: [54, 97],
      pageSize: 5,
      options: { logitsSoftCap: 30, posEncodingMode: 'ALIBI' },
    },
    { name: 'fixed splits', ...base, kvLens: heavyTail, pageSize: 16, plan: { fixedSplitSize: 256 } },
    { name: 'no splits', ...base, kvLens: heavyTail, pageSize: 16, plan: { disableSplitKv: true } },
  ];
  it.each(cases)('$name', (c) => runPaged({ ...c, qoLens: ones(c.kvLens.length) }, 'decode'));

  it('gives a request the same bits in every batch with fixedSplitSize or disableSplitKv', () => {
    for (const plan of [{ fixedSplitSize: 512 }, { disableSplitKv: true }]) {
      const bits = [4, 9].map((batchSize) => {
        const kvLens = Array(batchSize).fill(1500);
        const c: BatchCase = { ...base, qoLens: ones(batchSize), kvLens, pageSize: 16, plan };
        const { inputs, table, cache } = pagedInputs(c);
        const wrapper = kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice }));
        const { numPages: _, ...pages } = table;
        wrapper.plan({ ...planOptions(c), ...pages, pageSize: 16 });
        return wrapper.run(inputs.q, cache).slice(0, 0, 4).contiguous().toArraySync();
      });
      expect(bits[1]).toEqual(bits[0]);
    }
  });
});

describe('BatchPrefillWithPagedKVCacheWrapper', () => {
  const base = { numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16', options: { causal: true } } as const;
  const cases: (BatchCase & { name: string })[] = [
    { name: 'page 1', ...base, qoLens: [37, 1, 17, 130], kvLens: [54, 97, 17, 300], pageSize: 1 },
    { name: 'page 5 HND', ...base, qoLens: [37, 1, 17, 130], kvLens: [54, 97, 17, 300], pageSize: 5, kvLayout: 'HND' },
    {
      name: 'page 16 bf16 d64',
      ...base,
      headDim: 64,
      dtype: 'bfloat16',
      qoLens: [65, 3],
      kvLens: [513, 3],
      pageSize: 16,
    },
    { name: 'd256', ...base, headDim: 256, qoLens: [33, 20], kvLens: [40, 400], pageSize: 16 },
    { name: 'long keys are split', ...base, qoLens: [40, 8], kvLens: [2500, 64], pageSize: 16 },
    { name: 'empty requests', ...base, qoLens: [0, 20, 5, 0], kvLens: [9, 30, 0, 0], pageSize: 16 },
    { name: 'more queries than keys', ...base, qoLens: [50, 70], kvLens: [20, 1], pageSize: 16 },
    { name: 'few rows', ...base, qoLens: [2, 4, 1], kvLens: [700, 33, 1], pageSize: 16 },
    { name: 'not causal', ...base, options: {}, qoLens: [30, 40], kvLens: [50, 64], pageSize: 8 },
    {
      name: 'window, cap',
      ...base,
      options: { causal: true, windowLeft: 20, logitsSoftCap: 30 },
      qoLens: [30, 60],
      kvLens: [90, 300],
      pageSize: 16,
    },
    {
      name: 'fp8, rope',
      ...base,
      kvDtype: 'float8_e4m3fn',
      options: { causal: true, posEncodingMode: 'ROPE_LLAMA' },
      qoLens: [30, 60],
      kvLens: [90, 100],
      pageSize: 16,
    },
  ];
  it.each(cases)('$name', (c) => runPaged(c, 'prefill'));
});

describe('BatchPrefillWithRaggedKVCacheWrapper', () => {
  const base = { numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16', options: { causal: true } } as const;
  const cases: (BatchCase & { name: string })[] = [
    { name: 'causal', ...base, qoLens: [37, 1, 17, 130], kvLens: [54, 97, 17, 300] },
    { name: 'HND', ...base, qoLens: [37, 1, 17, 130], kvLens: [54, 97, 17, 300], kvLayout: 'HND' },
    {
      name: 'full bf16 d64 group 7',
      ...base,
      options: {},
      headDim: 64,
      numQoHeads: 7,
      numKvHeads: 1,
      dtype: 'bfloat16',
      qoLens: [65, 3],
      kvLens: [513, 3],
    },
    { name: 'empty requests', ...base, qoLens: [0, 20, 5], kvLens: [9, 30, 0] },
    { name: 'split', ...base, qoLens: [40], kvLens: [3000] },
  ];
  it.each(cases)('$name', runRagged);
});

describe('CUDA graphs', () => {
  const base = { numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16', pageSize: 16 } as const;
  const onCuda = testDevice !== 'cpu';

  it.skipIf(!onCuda)('replay correctly after every new plan within the maxima', () => {
    const [maxBatchSize, maxLength] = [6, 3000];
    const maxNumPages = maxBatchSize * Math.ceil(maxLength / 16);
    const wrapper = kept(
      new flashinfer.BatchDecodeWithPagedKVCacheWrapper({
        useCudaGraph: true,
        maxBatchSize,
        maxNumPages,
        device: testDevice,
      }),
    );
    const uniform = uniformSource(21);
    const draw = (): BatchCase => ({
      ...base,
      qoLens: Array(maxBatchSize).fill(1),
      kvLens: Array.from({ length: maxBatchSize }, () => Math.floor(uniform() ** 3 * maxLength)),
    });
    const cacheShape = [maxNumPages + 3, 2, 16, base.numKvHeads, base.headDim];
    const cache = flashinfer.zeros(cacheShape, { dtype: 'float16', device: testDevice });
    const q = flashinfer.zeros([maxBatchSize, base.numQoHeads, base.headDim], { dtype: 'float16', device: testDevice });
    const out = poisoned(q.shape, 'float16');
    const lse = flashinfer.zeros([maxBatchSize, base.numQoHeads], { dtype: 'float32', device: testDevice });
    const prepare = (): { c: BatchCase; inputs: ReturnType<typeof makeInputs> } => {
      const c = draw();
      const { inputs, table, cache: filled } = pagedInputs(c);
      const { numPages, ...pages } = table;
      wrapper.plan({ ...planOptions(c), ...pages, pageSize: 16 });
      cache.slice(0, 0, numPages).copy_(filled as flashinfer.Tensor);
      q.copy_(inputs.q);
      return { c, inputs };
    };
    prepare();
    wrapper.run(q, cache, { out, lse, returnLse: true }); // compiles, which a capture cannot
    flashinfer.cuda.synchronizeSync();
    const stream = kept(new flashinfer.cuda.Stream());
    const graph = kept(
      flashinfer.cuda.capture(stream, () => void wrapper.run(q, cache, { out, lse, returnLse: true })),
    );
    for (let round = 0; round < 12; ++round) {
      const { c, inputs } = prepare();
      out.copy_(poisoned(q.shape, 'float16'));
      graph.launch();
      expectBatch(c, inputs, out.toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
    }
  });

  it('refuses to go beyond a maximum, and a graph wrapper without maxima', () => {
    const make = (options: object) =>
      new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice, ...options });
    expectThrows(
      () => make({ useCudaGraph: true, maxBatchSize: 2 }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'useCudaGraph',
      'maxNumPages',
    );
    const wrapper = kept(make({ useCudaGraph: true, maxBatchSize: 2, maxNumPages: 4 }));
    const plan = { numQoHeads: 8, numKvHeads: 2, headDimQk: 128, pageSize: 16 };
    expectThrows(
      () =>
        wrapper.plan({
          ...plan,
          pagedKvIndptr: [0, 1, 2, 3],
          pagedKvIndices: [0, 1, 2],
          pagedKvLastPageLen: [1, 1, 1],
        }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'batchSize=3',
      'at most 2',
    );
  });
});

describe('plan', () => {
  it('leaves the caller its arrays: changing them, or planning another wrapper, does not change a run', () => {
    const wrapper = () => kept(new flashinfer.BatchPrefillWithPagedKVCacheWrapper({ device: testDevice }));
    const plan = {
      qoIndptr: Int32Array.of(0, 3, 5),
      pagedKvIndptr: Int32Array.of(0, 2, 3),
      pagedKvIndices: Int32Array.of(2, 0, 1),
      pagedKvLastPageLen: Int32Array.of(3, 4),
      numQoHeads: 4,
      numKvHeads: 2,
      headDimQk: 64,
      pageSize: 4,
    };
    const q = kept(flashinfer.randn([5, 4, 64], { dtype: 'float16', device: testDevice }));
    const cache = kept(flashinfer.randn([3, 2, 4, 2, 64], { dtype: 'float16', device: testDevice }));
    const prefill = wrapper();
    prefill.plan(plan);
    const before = kept(prefill.run(q, cache)).toArraySync();
    for (const array of [plan.qoIndptr, plan.pagedKvIndptr, plan.pagedKvIndices, plan.pagedKvLastPageLen])
      array.fill(1);
    wrapper().plan({
      ...plan,
      qoIndptr: [0, 1],
      pagedKvIndptr: [0, 2],
      pagedKvIndices: [0, 0],
      pagedKvLastPageLen: [1],
    });
    expect(kept(prefill.run(q, cache)).toArraySync()).toEqual(before);
  });
});

describe('plan and run refuse', () => {
  const plan = {
    numQoHeads: 8,
    numKvHeads: 2,
    headDimQk: 64,
    pageSize: 4,
    pagedKvIndptr: [0, 2, 3],
    pagedKvIndices: [0, 2, 1],
    pagedKvLastPageLen: [3, 4],
  };
  const wrapper = () => kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice }));
  const argument = 'ERR_FLASHINFER_INVALID_ARGUMENT';
  const shape = 'ERR_FLASHINFER_INVALID_SHAPE';
  it.each([
    ['an indptr that falls', { pagedKvIndptr: [0, 3, 2] }, argument, ['pagedKvIndptr', '3', '2']],
    ['an indptr that does not start at 0', { pagedKvIndptr: [1, 2, 3] }, argument, ['pagedKvIndptr', '0']],
    ['too few indices', { pagedKvIndices: [0] }, argument, ['pagedKvIndices', '3']],
    ['a negative page', { pagedKvIndices: [0, -1, 2] }, argument, ['pagedKvIndices', '-1']],
    [
      'a last page longer than a page',
      { pagedKvLastPageLen: [5, 4] },
      argument,
      ['pagedKvLastPageLen', '5', 'pageSize=4'],
    ],
    ['an empty last page', { pagedKvLastPageLen: [0, 4] }, argument, ['pagedKvLastPageLen', '1 to pageSize']],
    ['fractions', { pagedKvIndptr: [0, 1.5, 3] }, argument, ['pagedKvIndptr', '1.5', 'int32']],
    ['heads that do not divide', { numKvHeads: 3 }, 'ERR_FLASHINFER_HEADS_MISMATCH', ['8', '3']],
    [
      'another head dimension',
      { headDimQk: 80 },
      'ERR_FLASHINFER_UNSUPPORTED_HEAD_DIM',
      ['80', '64, 128, 192 (with headDimVo 128), 256'],
    ],
    ['a misspelt option', { pageSizes: 4 }, argument, ['pageSizes', 'pageSize']],
    ['page size 0', { pageSize: 0 }, argument, ['pageSize', '0']],
    ['a bad window', { windowLeft: -2 }, 'ERR_FLASHINFER_INVALID_WINDOW', ['windowLeft', '-2']],
    ['a bad dtype', { kvDtype: 'int8' }, 'ERR_FLASHINFER_INVALID_DTYPE', ['kvDtype', 'int8']],
  ] as const)('%s', (_name, change, code, words) => {
    expectThrows(() => wrapper().plan({ ...plan, ...change } as never), code, ...words);
  });

  it('a page table on the device, saying why', () => {
    const pagedKvIndices = flashinfer.tensor([0, 2, 1], { dtype: 'int32', device: testDevice });
    expectThrows(
      () => wrapper().plan({ ...plan, pagedKvIndices: pagedKvIndices as never }),
      argument,
      'pagedKvIndices',
      testDevice,
      'host',
    );
  });

  it('a run without a plan, with another shape or dtype, and with too few pages', () => {
    const w = wrapper();
    const zeros = (dims: number[], dtype: DType = 'float16') => flashinfer.zeros(dims, { dtype, device: testDevice });
    const q = zeros([2, 8, 64]);
    const cache = zeros([3, 2, 4, 2, 64]);
    expectThrows(() => w.run(q, cache), 'ERR_FLASHINFER_NOT_PLANNED', 'plan()');
    w.plan(plan);
    expectThrows(() => w.run(zeros([3, 8, 64]), cache), shape, 'q', '3', '2');
    expectThrows(() => w.run(q, zeros([2, 2, 4, 2, 64])), shape, '2 pages', '3');
    const kScale = zeros([2], 'float32') as never;
    const words = ['kScale is a tensor; expected a number'];
    expectThrows(() => w.run(q, cache, { kScale }), 'ERR_FLASHINFER_INVALID_SCALE', ...words);
    expectThrows(() => w.run(q, zeros([3, 2, 5, 2, 64])), shape, 'pagedKVCache', '5', '4');
    expectThrows(
      () => w.run(zeros([2, 8, 64], 'bfloat16'), cache),
      'ERR_FLASHINFER_INVALID_DTYPE',
      'q',
      'bfloat16',
      'float16',
    );
    w.dispose();
    expectThrows(() => w.run(q, cache), 'ERR_FLASHINFER_DISPOSED', 'disposed');
  });
});
