// SPDX-License-Identifier: Apache-2.0
// Custom masks in the batch prefill wrappers.
import { describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { testDevice } from '../device.ts';
import { maskArray, uniformSource } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';
import { packMask, poisoned } from './attentionCase.ts';
import {
  type BatchCase,
  expectBatch,
  indptr,
  kept,
  makeInputs,
  pagedInputs,
  planOptions,
  runPaged,
  runRagged,
} from './batchCase.ts';

const base = { numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16', maskDensity: 0.5 } as const;
const lengths = { qoLens: [37, 1, 0, 17, 130], kvLens: [54, 97, 5, 0, 300] } as const;

describe('custom masks of batches', () => {
  const cases: (BatchCase & { name: string })[] = [
    { name: 'bool', ...base, ...lengths, pageSize: 16 },
    { name: 'packed', ...base, ...lengths, maskForm: 'packed', pageSize: 5, kvLayout: 'HND' },
    { name: 'host', ...base, ...lengths, maskForm: 'host', pageSize: 1 },
    { name: 'packed on the host', ...base, ...lengths, maskForm: 'packedHost', pageSize: 16 },
    { name: 'replace causal', ...base, ...lengths, options: { causal: true }, pageSize: 16 },
    { name: 'with a window', ...base, ...lengths, options: { windowLeft: 33 }, pageSize: 16 },
    { name: 'see nothing', ...base, ...lengths, maskDensity: 0, pageSize: 16 },
    { name: 'sparse, so that rows see nothing', ...base, ...lengths, maskDensity: 0.01, pageSize: 16 },
    { name: 'of few rows', ...base, qoLens: [1, 3, 2], kvLens: [701, 33, 1], pageSize: 16 },
    { name: 'of long keys, split', ...base, qoLens: [40, 9], kvLens: [2503, 3], pageSize: 16 },
    { name: 'fp8, d64', ...base, ...lengths, headDim: 64, kvDtype: 'float8_e4m3fn', maskForm: 'packed', pageSize: 16 },
    {
      name: 'bf16, d256, rope',
      ...base,
      ...lengths,
      dtype: 'bfloat16',
      headDim: 256,
      options: { posEncodingMode: 'ROPE_LLAMA' },
      pageSize: 16,
    },
  ];
  it.each(cases)('paged, $name', (c) => runPaged(c, 'prefill'));
  it.each(cases)('ragged, $name', runRagged);

  it('give a batch of one the bits of a single request', () => {
    const c: BatchCase = { ...base, qoLens: [40], kvLens: [120] };
    const { q, k, v, masks } = makeInputs(c);
    const packedCustomMask = packMask(masks![0]!);
    const ragged = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice }));
    ragged.plan({ ...planOptions(c), qoIndptr: [0, 40], kvIndptr: [0, 120], packedCustomMask });
    const mask = flashinfer.tensor(masks![0]!, { shape: [40, 120], dtype: 'bool', device: testDevice });
    const single = flashinfer.singlePrefillWithKVCache(q, k, v, { customMask: mask, causal: true });
    expect(ragged.run(q, k, v).toArraySync()).toEqual(single.toArraySync());
  });

  it('belong to their plan: the caller may dispose of the tensor, and the next plan has none', () => {
    const c: BatchCase = { ...base, qoLens: [9, 20], kvLens: [20, 40] };
    const inputs = makeInputs(c);
    const wrapper = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice }));
    const plan = { ...planOptions(c), qoIndptr: indptr(c.qoLens), kvIndptr: indptr(c.kvLens) };
    const flat = inputs.masks!.flatMap((mask) => [...mask].map((bit) => bit !== 0));
    const mask = flashinfer.tensor(flat.map(Number), { dtype: 'bool', device: testDevice });
    wrapper.plan({ ...plan, customMask: mask });
    mask.dispose();
    const masked = kept(wrapper.run(inputs.q, inputs.k, inputs.v)).toArraySync();
    wrapper.plan({ ...plan, customMask: flat });
    expect(kept(wrapper.run(inputs.q, inputs.k, inputs.v)).toArraySync()).toEqual(masked);
    wrapper.plan(plan);
    const [out, lse] = wrapper.run(inputs.q, inputs.k, inputs.v, { returnLse: true });
    const { masks: _, ...unmasked } = inputs;
    expectBatch(
      c,
      { ...unmasked, masks: undefined },
      out.toArraySync() as Float32Array,
      lse.toArraySync() as Float32Array,
    );
  });

  it.skipIf(testDevice === 'cpu')('replay in a graph after every new plan within the maxima', () => {
    const [maxBatchSize, maxQo, maxKv] = [5, 60, 400];
    const wrapper = kept(
      new flashinfer.BatchPrefillWithPagedKVCacheWrapper({
        useCudaGraph: true,
        maxBatchSize,
        maxNumPages: maxBatchSize * Math.ceil(maxKv / 16),
        maxNumTokens: maxBatchSize * maxQo,
        maxCustomMaskBytes: (maxBatchSize * maxQo * maxKv) / 8 + maxBatchSize,
        device: testDevice,
      }),
    );
    const uniform = uniformSource(31);
    const numTokens = 100;
    const draw = (round: number): BatchCase => {
      const first = 1 + Math.floor(uniform() * 55);
      const qoLens = [first, 0, 45 - Math.floor(first / 2)];
      return {
        ...base,
        pageSize: 16,
        qoLens: [...qoLens, numTokens - qoLens.reduce((a, b) => a + b, 0)],
        kvLens: Array.from({ length: 4 }, () => Math.floor(uniform() * maxKv)),
        maskForm: round % 2 === 0 ? 'bool' : 'packedHost',
      };
    };
    const zeros = (shape: number[]) => kept(flashinfer.zeros(shape, { dtype: 'float16', device: testDevice }));
    const cache = zeros([maxBatchSize * Math.ceil(maxKv / 16) + 3, 2, 16, 2, 128]);
    const q = zeros([numTokens, 8, 128]);
    const out = kept(poisoned(q.shape, 'float16'));
    const lse = kept(flashinfer.zeros([numTokens, 8], { dtype: 'float32', device: testDevice }));
    const prepare = (round: number) => {
      const c = draw(round);
      const { inputs, table, cache: filled } = pagedInputs(c);
      const { numPages, ...pages } = table;
      const bits = inputs.masks!;
      const packedCustomMask = Uint8Array.from(bits.flatMap((mask) => [...packMask(mask)]));
      const customMask = flashinfer.tensor(
        bits.flatMap((mask) => [...mask]),
        { dtype: 'bool', device: testDevice },
      );
      const mask = c.maskForm === 'bool' ? { customMask } : { packedCustomMask };
      wrapper.plan({ ...planOptions(c), ...pages, ...mask, pageSize: 16, qoIndptr: indptr(c.qoLens) });
      cache.slice(0, 0, numPages).copy_(filled as flashinfer.Tensor);
      q.copy_(inputs.q);
      return { c, inputs };
    };
    prepare(0);
    wrapper.run(q, cache, { out, lse, returnLse: true });
    flashinfer.cuda.synchronizeSync();
    const stream = kept(new flashinfer.cuda.Stream());
    const graph = kept(
      flashinfer.cuda.capture(stream, () => void wrapper.run(q, cache, { out, lse, returnLse: true })),
    );
    for (let round = 0; round < 8; ++round) {
      const { c, inputs } = prepare(round);
      out.copy_(poisoned(q.shape, 'float16'));
      graph.launch();
      expectBatch(c, inputs, out.toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
    }
  });
});

describe('plan refuses', () => {
  const plan = { qoIndptr: [0, 3, 5], kvIndptr: [0, 9, 18], numQoHeads: 4, numKvHeads: 2, headDimQk: 64 };
  const make = (options: object = {}) =>
    kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice, ...options }));
  const bits = (length: number, dtype: 'bool' | 'uint8') => flashinfer.zeros([length], { dtype, device: testDevice });
  const argument = 'ERR_FLASHINFER_INVALID_ARGUMENT';
  const shape = 'ERR_FLASHINFER_INVALID_SHAPE';
  it.each([
    ['two masks', () => ({ customMask: bits(45, 'bool'), packedCustomMask: bits(7, 'uint8') }), argument, ['both']],
    ['a mask of another size', () => ({ customMask: bits(44, 'bool') }), shape, ['customMask', '44', '45']],
    [
      'packed bits of another size',
      () => ({ packedCustomMask: bits(6, 'uint8') }),
      shape,
      ['packedCustomMask', '6', '7'],
    ],
    ['a host mask of another size', () => ({ customMask: new Uint8Array(3) }), shape, ['customMask', '3', '45']],
    ['packed host bits of another size', () => ({ packedCustomMask: new Uint8Array(8) }), shape, ['8', '7', 'ceil']],
    [
      'a packed mask as customMask',
      () => ({ customMask: bits(45, 'uint8') }),
      'ERR_FLASHINFER_INVALID_DTYPE',
      ['bool'],
    ],
    ['a mask that is neither', () => ({ packedCustomMask: 'x' }), argument, ['packedCustomMask', "'x'", 'Uint8Array']],
  ] as const)('%s', (_name, mask, code, words) => {
    expectThrows(() => make().plan({ ...plan, ...mask() } as never), code, ...words);
  });

  it('masks beyond the maximum of a graph', () => {
    const graph = { useCudaGraph: true, maxBatchSize: 2, maxNumTokens: 5 };
    const packedCustomMask = packMask(maskArray(7 * 8, 3, 0.5));
    expectThrows(() => make(graph).plan({ ...plan, packedCustomMask }), argument, '7 bytes', 'maxCustomMaskBytes=0');
    make({ ...graph, maxCustomMaskBytes: 7 }).plan({ ...plan, packedCustomMask });
  });

  it('a mask for decode', () => {
    const wrapper = kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice }));
    const pages = { pagedKvIndptr: [0, 1], pagedKvIndices: [0], pagedKvLastPageLen: [1], pageSize: 1 };
    const decode = { ...pages, numQoHeads: 4, numKvHeads: 2, headDimQk: 64, customMask: bits(1, 'bool') };
    expectThrows(() => wrapper.plan(decode as never), argument, 'customMask', 'unknown');
  });
});
