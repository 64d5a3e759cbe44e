// SPDX-License-Identifier: Apache-2.0
// Custom variants against the float64 reference: the documented ones and some of every hook, single and in batches.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { defineAttentionVariant } from '../../src/attention/variant.ts';
import * as flashinfer from '../../src/index.ts';
import { native } from '../../src/native/load.ts';
import { onCuda, testDevice } from '../device.ts';
import { attentionReference } from '../reference/attention.ts';
import { attentionTolerance, expectClose, expectLseClose } from '../reference/compare.ts';
import { normalArray, testSeed, uniformSource } from '../reference/random.ts';
import { variantReference } from '../reference/variantAttention.ts';
import { deviceTensor, heldValues, hostValues, poisoned } from './attentionCase.ts';
import { indptr } from './batchCase.ts';
import {
  checkPaged,
  checkRagged,
  checkSingle,
  compiles,
  examples,
  makeInputs,
  onDevice,
  type VariantCase,
} from './variantCase.ts';
import { documentedBlocks, documentedVariant, importBlock } from './variantExamples.ts';

const base = { numQoHeads: 4, numKvHeads: 2, headDim: 64, dtype: 'float16' } as const;
const uniform = uniformSource(21);
const length = (most: number): number => 1 + Math.floor(uniform() * most);

describe.runIf(compiles).each(examples)('$name', (example) => {
  const singles: [string, VariantCase][] = [
    ['one query row', { ...base, qoLens: [1], kvLens: [length(200)] }],
    ['one query row, split keys', { ...base, headDim: 128, qoLens: [1], kvLens: [2500] }],
    ['few rows, bf16', { ...base, dtype: 'bfloat16', qoLens: [5], kvLens: [length(300)] }],
    ['many rows, causal', { ...base, qoLens: [70], kvLens: [70 + length(100)], options: { causal: true } }],
    ['split keys', { ...base, numQoHeads: 6, qoLens: [20], kvLens: [1500], options: { vScale: 0.5 } }],
    [
      'more rows than keys, d128',
      { ...base, headDim: 128, numKvHeads: 4, qoLens: [90], kvLens: [33], options: { causal: true, smScale: 0.2 } },
    ],
    ['window', { ...base, dtype: 'bfloat16', qoLens: [40], kvLens: [150], options: { windowLeft: 30 } }],
  ];
  it.each(singles)('single: %s', async (_, c) => checkSingle(example, c));

  const ones = [1, 1, 1, 1, 1];
  it('batch decode, paged', async () =>
    checkPaged(
      example,
      { ...base, headDim: 128, qoLens: ones, kvLens: [length(50), 1400, 1, 0, length(200)] },
      'decode',
    ));
  it('batch prefill, paged', async () =>
    checkPaged(
      example,
      {
        ...base,
        dtype: 'bfloat16',
        qoLens: [3, 40, 0, 9],
        kvLens: [30, length(90), 5, 700],
        options: { causal: true },
      },
      'prefill',
    ));
  it('batch prefill, ragged', async () =>
    checkRagged(example, { ...base, qoLens: [50, 1, 17], kvLens: [20 + length(90), 64, 1100] }));
});

describe.runIf(compiles)('the example of docs/attention-variants.md', () => {
  it.each([...documentedBlocks])('%s runs', async (name, code) => {
    const defaultDevice = flashinfer.defaultDevice();
    flashinfer.setDefaultDevice(testDevice);
    try {
      await importBlock(name, code);
      await flashinfer.cuda.synchronize();
    } finally {
      flashinfer.setDefaultDevice(defaultDevice);
    }
  });
});

describe.runIf(compiles)('a variant that writes', () => {
  it('dumps the logits of visible keys and nothing else', async () => {
    const c: VariantCase = { ...base, qoLens: [33], kvLens: [50] };
    const { q, k, v } = makeInputs(c);
    const dump = poisoned([4, 33, 50], 'float32');
    const variant = await documentedVariant('dumpLogits');
    flashinfer.singlePrefillWithKVCache(q, k, v, { causal: true, variant, variantParams: { dump } });
    const logits: number[] = new Array(4 * 33 * 50).fill(Number.NaN);
    variantReference(
      { qoLen: 33, kvLen: 50, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 },
      { q: heldValues(q), k: heldValues(k), v: heldValues(v) },
      {
        logits: (x, { qoHeadIdx, qoIdx, kvIdx }) => {
          logits[(qoHeadIdx * 33 + qoIdx) * 50 + kvIdx] = x;
          return x;
        },
      },
      { causal: true },
    );
    const written = hostValues(dump);
    logits.forEach((logit, n) => {
      if (Number.isNaN(logit)) expect(written[n]).toBeNaN();
      else expect(Math.abs(written[n]! - logit)).toBeLessThan(1e-4 * Math.max(1, Math.abs(logit)));
    });
  });
});

const logits = (x: number) => 3 * Math.tanh(x / 3);

describe.runIf(compiles)('a variant together with other options', () => {
  it('obeys custom masks and rotary embedding', async () => {
    const variant = await documentedVariant('softCap');
    const shape = { qoLen: 19, kvLen: 70, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 };
    const { q, k, v } = makeInputs({ ...base, qoLens: [19], kvLens: [70] });
    const mask = Uint8Array.from({ length: 19 * 70 }, () => Math.round(uniform()));
    const options = { logitsSoftCap: 3, posEncodingMode: 'ROPE_LLAMA', customMask: mask } as const;
    const inputs = { q: heldValues(q), k: heldValues(k), v: heldValues(v) };
    const expected = attentionReference(shape, inputs, options);
    const got = flashinfer.singlePrefillWithKVCache(q, k, v, {
      posEncodingMode: 'ROPE_LLAMA',
      customMask: flashinfer.tensor(mask, { shape: [19, 70], dtype: 'bool', device: testDevice }),
      variant,
      variantParams: { cap: 3 },
    });
    const tolerance = attentionTolerance('float16', { maxRopePosition: 70 });
    expectClose(Float64Array.from(hostValues(got)), expected.out, 64, tolerance, `[seed ${testSeed}]`);
  });

  it('reads float8 keys', async () => {
    const variant = await documentedVariant('softCap');
    const { q, k, v } = makeInputs({ ...base, qoLens: [40], kvLens: [90] });
    const [k8, v8] = [k, v].map((x) => x.to('float8_e4m3fn'));
    const shape = { qoLen: 40, kvLen: 90, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 };
    const inputs = { q: heldValues(q), k: heldValues(k8!), v: heldValues(v8!) };
    const expected = variantReference(shape, inputs, { logits });
    const got = flashinfer.singlePrefillWithKVCache(q, k8!, v8!, { variant, variantParams: { cap: 3 } });
    expectClose(Float64Array.from(hostValues(got)), expected.out, 64, attentionTolerance('float16'), 'float8');
  });

  it.skipIf(onCuda)('takes float32 on the cpu', async () => {
    const example = examples.find(({ name }) => name === 'every hook')!;
    await checkSingle(example, { ...base, dtype: 'float32', qoLens: [1], kvLens: [77] });
    await checkSingle(example, { ...base, dtype: 'float32', headDim: 128, qoLens: [30], kvLens: [77] });
  });
});

describe.runIf(compiles)('the functions of hooks', () => {
  const inputs = [
    -Infinity,
    -300,
    -140,
    -125.5,
    -20.3,
    -1,
    -0.25,
    0,
    0.5,
    1.75,
    33.3,
    127.9,
    200,
    Infinity,
    Number.NaN,
  ];
  it.each([
    ['exp2_approx', (x: number) => 2 ** x],
    ['tanh_precise', Math.tanh],
    ['reciprocal_approx', (x: number) => 1 / x],
    ['log2_approx', Math.log2],
  ])('%s', (name, expected) => {
    const variant = defineAttentionVariant({
      name: 'functions',
      params: { x: 'float32[]', y: 'float32[]' },
      logitsTransform: `y[kvIdx] = ${name}(x[kvIdx]), logits`,
    });
    const x = Float32Array.from(inputs);
    const y = poisoned([x.length], 'float32');
    const { q, k, v } = makeInputs({ ...base, numQoHeads: 2, qoLens: [1], kvLens: [x.length] });
    flashinfer.singlePrefillWithKVCache(q, k, v, { variant, variantParams: { x: onDevice(x), y } });
    hostValues(y).forEach((value, n) => {
      const exact = Math.fround(expected(x[n]!));
      const label = `${name}(${x[n]})`;
      if (!Number.isFinite(exact)) expect(value, label).toBe(exact);
      // Subnormal results may be flushed.
      else expect(Math.abs(value - exact), label).toBeLessThanOrEqual(1e-6 * Math.abs(exact) + 2 ** -23);
    });
  });
});

describe.runIf(compiles)('a variant in batches', () => {
  const indptrs = { qoIndptr: indptr([9, 30]), kvIndptr: indptr([40, 55]) };
  const plan = { ...indptrs, numQoHeads: 4, numKvHeads: 2, qDtype: 'float16', kvDtype: 'float16' } as const;
  const part = (x: Float64Array, first: number, count: number, width: number): Float64Array =>
    x.subarray(first * width, (first + count) * width);

  it('obeys a custom mask and joins sinks', async () => {
    const variant = await documentedVariant('softCap');
    const { q, k, v } = makeInputs({ ...base, qoLens: [9, 30], kvLens: [40, 55] });
    const mask = Uint8Array.from({ length: 9 * 40 + 30 * 55 }, () => (uniform() < 0.6 ? 1 : 0));
    const sinks = Float32Array.from([0.5, -1, 2, 0]);
    const wrapper = new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice });
    const customMask = flashinfer.tensor(mask, { shape: [mask.length], dtype: 'bool', device: testDevice });
    wrapper.plan({ ...plan, headDimQk: 64, variant, customMask });
    const variantParams = { cap: 3 };
    const got = hostValues(wrapper.run(q, k, v, { variantParams, sinks: onDevice(sinks) }));
    const held = [q, k, v].map(heldValues);
    let [row, key, bit] = [0, 0, 0];
    for (const [qoLen, kvLen] of [
      [9, 40],
      [30, 55],
    ] as const) {
      const inputs = {
        q: part(held[0]!, row, qoLen, 256),
        k: part(held[1]!, key, kvLen, 128),
        v: part(held[2]!, key, kvLen, 128),
      };
      const first = bit;
      const expected = variantReference({ qoLen, kvLen, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 }, inputs, {
        mask: ({ qoIdx, kvIdx }) => mask[first + qoIdx * kvLen + kvIdx] === 1,
        logits,
        output: (o, lse, _, { qoHeadIdx }) => o / (1 + Math.exp(sinks[qoHeadIdx]! - lse * Math.LN2)),
      });
      const rows = Float64Array.from({ length: qoLen * 256 }, (_, i) => got[row * 256 + i]!);
      expectClose(rows, expected.out, 64, attentionTolerance('float16'), `[seed ${testSeed}] mask and sinks`);
      row += qoLen;
      key += kvLen;
      bit += qoLen * kvLen;
    }
  });

  it('serves head dimensions 192 and 128, with every hook', async () => {
    const example = examples.find(({ name }) => name === 'every hook')!;
    const variant = await example.variant();
    const { params, reference } = example.make({ ...base, qoLens: [9, 30], kvLens: [40, 55] });
    const make = (rows: number, heads: number, dim: number, stream: number) =>
      deviceTensor(normalArray(rows * heads * dim, stream), [rows, heads, dim], 'float16');
    const [q, k, v] = [make(39, 4, 192, 0), make(95, 2, 192, 1), make(95, 2, 128, 2)];
    const wrapper = new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice });
    wrapper.plan({ ...plan, headDimQk: 192, headDimVo: 128, causal: true, variant });
    const got = hostValues(wrapper.run(q, k, v, { variantParams: params! }));
    const held = [q, k, v].map(heldValues);
    const inputs = {
      q: part(held[0]!, 9, 30, 4 * 192),
      k: part(held[1]!, 40, 55, 2 * 192),
      v: part(held[2]!, 40, 55, 2 * 128),
    };
    const shape = { qoLen: 30, kvLen: 55, numQoHeads: 4, numKvHeads: 2, headDimQk: 192, headDimVo: 128 };
    const expected = variantReference(shape, inputs, reference, { causal: true, batchIdx: 1 });
    const rows = Float64Array.from({ length: 30 * 512 }, (_, i) => got[9 * 512 + i]!);
    expectClose(rows, expected.out, 128, attentionTolerance('float16'), `[seed ${testSeed}] 192/128`);
  });

  it.skipIf(!onCuda)('replays in a CUDA graph after new plans', async () => {
    const variant = await documentedVariant('alibi');
    const slopes = Float32Array.from([0.5, 0.1, 0.02, 0.3]);
    const wrapper = new flashinfer.BatchDecodeWithPagedKVCacheWrapper({
      useCudaGraph: true,
      maxBatchSize: 3,
      maxNumPages: 300,
      device: testDevice,
    });
    const numPages = 300;
    const cache = deviceTensor(normalArray(numPages * 2 * 16 * 2 * 64, 3), [numPages, 2, 16, 2, 64], 'float16');
    const q = deviceTensor(normalArray(3 * 4 * 64, 0), [3, 4, 64], 'float16');
    const out = poisoned(q.shape, 'float16');
    const options = { out, variantParams: { slopes: onDevice(slopes) } };
    const planFor = (kvLens: readonly number[]): Int32Array => {
      const pagedKvIndptr = indptr(kvLens.map((kvLen) => Math.ceil(kvLen / 16)));
      const pagedKvIndices = Int32Array.from({ length: pagedKvIndptr[3]! }, (_, i) => numPages - 1 - i);
      const pagedKvLastPageLen = kvLens.map((kvLen) => ((kvLen - 1) % 16) + 1);
      const table = { pagedKvIndptr, pagedKvIndices, pagedKvLastPageLen, pageSize: 16 };
      wrapper.plan({ ...table, numQoHeads: 4, numKvHeads: 2, headDimQk: 64, variant });
      return pagedKvIndptr;
    };
    planFor([5, 9, 100]);
    wrapper.run(q, cache, options); // compiles, which a capture cannot
    flashinfer.cuda.synchronizeSync();
    const stream = new flashinfer.cuda.Stream();
    const graph = flashinfer.cuda.capture(stream, () => void wrapper.run(q, cache, options));
    const held = heldValues(cache);
    for (const kvLens of [
      [30, 1, 2100],
      [700, 650, 64],
    ]) {
      const starts = planFor(kvLens);
      out.copy_(poisoned(q.shape, 'float16'));
      graph.launch();
      const got = hostValues(out);
      kvLens.forEach((kvLen, r) => {
        const rows = (half: number): Float64Array => {
          const values = new Float64Array(kvLen * 128);
          for (let j = 0; j < kvLen; ++j) {
            const page = numPages - 1 - (starts[r]! + Math.floor(j / 16));
            const from = ((page * 2 + half) * 16 + (j % 16)) * 128;
            values.set(held.subarray(from, from + 128), j * 128);
          }
          return values;
        };
        const expected = variantReference(
          { qoLen: 1, kvLen, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 },
          { q: heldValues(q).subarray(r * 256, (r + 1) * 256), k: rows(0), v: rows(1) },
          { logits: (x, { qoHeadIdx, kvIdx }) => x + slopes[qoHeadIdx]! * (kvIdx - (kvLen - 1)) },
        );
        const row = Float64Array.from(got.subarray(r * 256, (r + 1) * 256));
        expectClose(row, expected.out, 64, attentionTolerance('float16'), `[seed ${testSeed}] graph, kv ${kvLen}`);
      });
    }
    for (const each of [graph, stream, wrapper]) each.dispose();
  });
});

describe.runIf(compiles && !onCuda)('on each instruction set', () => {
  const some = ['FlashSigmoid', 'every hook', 'a struct with every macro'];
  describe.each(native().cpu.info().availableIsas)('%s', (isa) => {
    beforeAll(() => native().cpu.setIsa(isa));
    afterAll(() => native().cpu.setIsa('auto'));
    it.each(examples.filter(({ name }) => some.includes(name)))('$name', async (example) => {
      const lengths = { qoLens: [1, 3, 60], kvLens: [700, 50, 130] };
      await checkRagged(example, { ...base, ...lengths, options: { causal: true } });
      await checkRagged(example, { ...base, ...lengths, dtype: 'bfloat16', numKvHeads: 4 });
    });
  });
});

describe('the reference', () => {
  it('without hooks is plain attention', () => {
    const shape = { qoLen: 7, kvLen: 23, numQoHeads: 4, numKvHeads: 2, headDimQk: 16 };
    const random = (n: number, stream: number) => Float64Array.from(normalArray(n, stream));
    const inputs = { q: random(7 * 4 * 16, 0), k: random(23 * 2 * 16, 1), v: random(23 * 2 * 16, 2) };
    const options = { causal: true, windowLeft: 6, vScale: 2 };
    const plain = attentionReference(shape, inputs, options);
    const hooked = variantReference(shape, inputs, {}, options);
    expectClose(hooked.out, plain.out, 16, attentionTolerance('float32'), 'out');
    expectLseClose(hooked.lse, plain.lse, attentionTolerance('float32'), 'lse');
  });
});
