// SPDX-License-Identifier: Apache-2.0
// Attention sinks: a logit a head that joins every row's softmax without a value.
import { describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { testDevice } from '../device.ts';
import { attentionReference } from '../reference/attention.ts';
import { attentionTolerance, expectClose, expectLseClose } from '../reference/compare.ts';
import { gridCases } from '../reference/pairwise.ts';
import { normalArray } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';
import {
  callAttention,
  caseLabel,
  deviceDtypes,
  deviceTensor,
  heldValues,
  hostValues,
  poisoned,
  prepareCase,
  referenceOf,
} from './attentionCase.ts';
import { type BatchCase, kept, runPaged, runRagged } from './batchCase.ts';

const base = { numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16', sinks: true, pageSize: 16 } as const;
const heavyTail = [1, 5, 3000, 0, 64, 1, 130, 17];

describe('batch decode with sinks', () => {
  const cases: (Omit<BatchCase, 'qoLens'> & { name: string })[] = [
    { name: 'plain, some split, some empty', ...base, kvLens: heavyTail },
    { name: 'no splits', ...base, kvLens: heavyTail, plan: { disableSplitKv: true } },
    { name: 'many splits', ...base, kvLens: [5000, 3], plan: { fixedSplitSize: 128 } },
    {
      name: 'window, bf16, d64',
      ...base,
      dtype: 'bfloat16',
      headDim: 64,
      kvLens: heavyTail,
      options: { windowLeft: 127 },
    },
    { name: 'soft cap, group 24', ...base, numQoHeads: 48, kvLens: [54, 600], options: { logitsSoftCap: 30 } },
    { name: 'fp8, MHA', ...base, numKvHeads: 8, kvDtype: 'float8_e4m3fn', kvLens: [54, 700] },
  ];
  it.each(cases)('$name', (c) => runPaged({ ...c, qoLens: c.kvLens.map(() => 1) }, 'decode'));
});

describe('batch prefill with sinks', () => {
  const lengths = { qoLens: [37, 1, 0, 17, 130, 9], kvLens: [54, 97, 5, 17, 300, 0] };
  const causal = { causal: true };
  const cases: (BatchCase & { name: string })[] = [
    { name: 'causal, some empty', ...base, ...lengths, options: causal },
    { name: 'full, bf16', ...base, ...lengths, dtype: 'bfloat16' },
    { name: 'more queries than keys', ...base, qoLens: [50, 70], kvLens: [20, 1], options: causal },
    { name: 'few rows', ...base, qoLens: [2, 4, 1], kvLens: [2700, 33, 1], options: causal },
    { name: 'long keys, split', ...base, qoLens: [40, 8], kvLens: [2500, 64], options: causal },
    { name: 'masks, rows that see nothing', ...base, ...lengths, maskDensity: 0.02 },
    { name: 'window, cap', ...base, ...lengths, options: { causal: true, windowLeft: 20, logitsSoftCap: 30 } },
    { name: '192/128', ...base, ...lengths, headDim: 192, headDimVo: 128, tuple: true, options: causal },
  ];
  it.each(cases)('paged, $name', (c) => runPaged(c, 'prefill'));
  it.each(cases)('ragged, $name', runRagged);
});

describe('single attention with sinks', () => {
  const grid = gridCases({
    qoLen: [undefined, 1, 3, 17, 130],
    kvLen: [0, 1, 64, 501, 5000],
    heads: [
      [4, 4],
      [8, 2],
    ] as [number, number][],
    headDim: [64, 128],
    dtype: deviceDtypes,
    sinkMean: [0, 3, -20],
    causal: [false, true],
  });
  const cases = grid.map(({ heads: [numQoHeads, numKvHeads], qoLen, causal, ...c }) => ({
    ...c,
    ...(qoLen !== undefined && { qoLen, options: { causal } }),
    numQoHeads,
    numKvHeads,
  }));
  it.each(cases.map((c) => [`${caseLabel(c)} sinks of ${c.sinkMean}`, c] as const))('%s', (label, c) => {
    const prepared = prepareCase(c);
    const values = normalArray(c.numQoHeads, 5).map((x) => x + c.sinkMean);
    const sinks = deviceTensor(values, [c.numQoHeads], 'float32');
    const reference = referenceOf({ ...prepared, reference: { ...prepared.reference, sinks: heldValues(sinks) } });
    const out = poisoned(prepared.q.shape, c.dtype);
    const { lse } = callAttention(prepared, { ...prepared.options, sinks, out, returnLse: true });
    const rows = (x: Float32Array, width: number) =>
      reference.rows.flatMap((i) => [...x.slice(i * width, (i + 1) * width)]);
    const tolerance = attentionTolerance(c.dtype);
    const width = c.numQoHeads * c.headDim;
    expectClose(Float64Array.from(rows(hostValues(out), width)), reference.out, c.headDim, tolerance, `${label} out`);
    expectLseClose(Float64Array.from(rows(hostValues(lse!), c.numQoHeads)), reference.lse, tolerance, `${label} lse`);
    expect(hostValues(out).every(Number.isFinite)).toBe(true);
  });

  const c = { qoLen: 20, kvLen: 70, numQoHeads: 4, numKvHeads: 2, headDim: 64, dtype: 'float16' } as const;
  const sinksOf = (values: number[]) => deviceTensor(Float32Array.from(values), [values.length], 'float32');

  it('changes no bit with sinks of -Infinity, and leaves nothing of the keys with huge ones', () => {
    const prepared = prepareCase({ ...c, options: { causal: true } });
    const plain = callAttention(prepared, { causal: true, returnLse: true });
    const none = callAttention(prepared, { causal: true, returnLse: true, sinks: sinksOf(Array(4).fill(-Infinity)) });
    expect(none.out.toArraySync()).toEqual(plain.out.toArraySync());
    expect(none.lse!.toArraySync()).toEqual(plain.lse!.toArraySync());
    const all = callAttention(prepared, { causal: true, returnLse: true, sinks: sinksOf(Array(4).fill(1e30)) });
    expect(new Set(hostValues(all.out).map(Math.abs))).toEqual(new Set([0]));
    expect(hostValues(all.lse!).every((x) => x > 1e30)).toBe(true);
  });

  it("gives rows without keys output 0 and the sink as lse, in base 'e' as it is", () => {
    const prepared = prepareCase({ ...c, maskDensity: 0 });
    const sinks = [0.5, -3, 0, 20];
    const options = { ...prepared.options, returnLse: true, lseBase: 'e', sinks: sinksOf(sinks) };
    const { out, lse } = callAttention(prepared, options);
    expect(new Set(hostValues(out).map(Math.abs))).toEqual(new Set([0]));
    hostValues(lse!).forEach((x, i) => {
      expect(x).toBeCloseTo(sinks[i % 4]!, 5);
    });
  });

  it('is what a key of that logit with a value of 0 would be', () => {
    const prepared = prepareCase(c);
    const { q, k, v } = prepared.inputs;
    const options = { sinks: [1, 1, 1, 1] };
    const withSink = attentionReference(prepared.shape, prepared.inputs, options);
    // One dimension more carries the sink's logit: 1 in the query, and in an extra key what smScale makes 1 of.
    const wide = (x: Float64Array, rows: number, extra: number): Float64Array =>
      Float64Array.from({ length: rows * 65 }, (_, n) =>
        n % 65 === 64 ? extra : x[Math.floor(n / 65) * 64 + (n % 65)]!,
      );
    const sinkKey = Float64Array.from({ length: 2 * 65 }, (_, n) => (n % 65 === 64 ? 8 : 0));
    const shape = { ...prepared.shape, kvLen: 71, headDimQk: 65 };
    const inputs = {
      q: wide(q, 20 * 4, 1),
      k: Float64Array.from([...wide(k, 70 * 2, 0), ...sinkKey]),
      v: Float64Array.from([...v, ...new Float64Array(2 * 64)]),
    };
    const asKey = attentionReference(shape, inputs, { smScale: 1 / 8 });
    asKey.out.forEach((x, n) => {
      expect(withSink.out[n]).toBeCloseTo(x, 10);
    });
  });

  it('refuses sinks of another shape, dtype or device', () => {
    const { q, k, v } = prepareCase(c);
    const call = (sinks: flashinfer.Tensor) => () => flashinfer.singlePrefillWithKVCache(q, k, v, { sinks });
    expectThrows(call(sinksOf([1, 2])), 'ERR_FLASHINFER_INVALID_SHAPE', 'sinks', '2', '4');
    const half = flashinfer.zeros([4], { dtype: 'float16', device: testDevice });
    expectThrows(call(half), 'ERR_FLASHINFER_INVALID_DTYPE', 'sinks', 'float16', 'float32');
  });
});

describe('workspace', () => {
  const c: BatchCase = { ...base, qoLens: [1, 1], kvLens: [4000, 3], plan: { fixedSplitSize: 256 } };
  const pages = { pagedKvIndptr: [0, 250, 251], pagedKvIndices: Array.from({ length: 251 }, (_, i) => i) };
  const plan = { ...pages, pagedKvLastPageLen: [16, 3], pageSize: 16, numQoHeads: 8, numKvHeads: 2, headDimQk: 128 };
  const make = (workspace?: flashinfer.Tensor) =>
    kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice, ...(workspace && { workspace }) }));

  it("may be the caller's, of the size that workspaceSize() gives", () => {
    const own = make();
    own.plan({ ...plan, fixedSplitSize: c.plan!.fixedSplitSize! });
    const bytes = own.workspaceSize();
    expect(bytes > 0).toBe(testDevice !== 'cpu');
    const q = flashinfer.randn([2, 8, 128], { dtype: 'float16', device: testDevice });
    const cache = flashinfer.randn([251, 2, 16, 2, 128], { dtype: 'float16', device: testDevice });
    const expected = own.run(q, cache).toArraySync();
    const workspace = flashinfer.full([bytes + 64], 0xff, { dtype: 'uint8', device: testDevice });
    const given = make(workspace.slice(0, 0, bytes));
    given.plan({ ...plan, fixedSplitSize: 256 });
    expect(given.run(q, cache).toArraySync()).toEqual(expected);
    const after = workspace.toArraySync() as Uint8Array;
    expect(after.subarray(bytes).every((x) => x === 0xff)).toBe(true);
    expect(after.subarray(0, bytes).some((x) => x !== 0xff)).toBe(bytes > 0);
  });

  it('is refused where it is too small, disposed or not aligned', () => {
    const small = flashinfer.zeros([64], { dtype: 'uint8', device: testDevice });
    expectThrows(() => make(small.slice(0, 1, 64)), 'ERR_FLASHINFER_INVALID_LAYOUT', 'workspace', '16');
    const wrapper = make(small);
    if (testDevice !== 'cpu') {
      const code = 'ERR_FLASHINFER_INVALID_SHAPE';
      expectThrows(() => wrapper.plan({ ...plan, fixedSplitSize: 256 }), code, 'workspace', '64', 'at least');
    }
    small.dispose();
    expectThrows(() => wrapper.plan(plan), 'ERR_FLASHINFER_DISPOSED', 'workspace');
  });
});
