// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { singlePrefillWithKVCache } from '../../src/index.ts';
import { testDevice } from '../device.ts';
import { attentionReference } from '../reference/attention.ts';
import { attentionTolerance, expectClose, expectLseClose } from '../reference/compare.ts';
import { fullGrid, gridCases } from '../reference/pairwise.ts';
import {
  type AttentionCase,
  callAttention,
  caseLabel,
  deviceDtypes,
  deviceTensor,
  expectMatches,
  heldValues,
  hostValues,
  poisoned,
  prepareCase,
  referenceOf,
  runCase,
} from './attentionCase.ts';

/** Multiply-adds a thinned case may cost, so that the grid stays short on two cpu cores. */
const workLimit = fullGrid ? Infinity : 4e8;

interface GridPoint {
  qoLen: number;
  kvLen: number;
  heads: readonly [number, number];
  headDim: number;
}

const fits = ({ qoLen, kvLen, heads: [numQoHeads, numKvHeads], headDim }: GridPoint): boolean =>
  2 * qoLen * kvLen * numQoHeads * headDim <= workLimit && (fullGrid || kvLen * numKvHeads * headDim <= 2e6);

function runCases(cases: AttentionCase[]): void {
  expect(cases.length).toBeGreaterThan(0);
  for (const c of cases) it(caseLabel(c), () => runCase(c));
}

describe('singlePrefillWithKVCache, plain', () => {
  const grid = gridCases(
    {
      qoLen: [1, 17, 37, 127, 128, 577],
      kvLen: [1, 64, 129, 501, 2042, 4932],
      heads: [
        [4, 4],
        [3, 1],
        [8, 2],
        [7, 1],
        [16, 2],
        [16, 1],
      ] as [number, number][],
      headDim: [64, 128, 256],
      dtype: deviceDtypes,
      kvLayout: ['NHD', 'HND'] as const,
      causal: [false, true],
    },
    fits,
  );
  runCases(
    grid.map(({ heads: [numQoHeads, numKvHeads], causal, ...c }) => ({
      ...c,
      numQoHeads,
      numKvHeads,
      options: { causal },
    })),
  );
});

describe('singlePrefillWithKVCache, logits and positions', () => {
  const grid = gridCases(
    {
      qoLen: [1, 17, 81, 200],
      kvLen: [1, 17, 97, 397, 987],
      heads: [
        [4, 4],
        [12, 4],
        [8, 1],
      ] as [number, number][],
      headDim: [64, 128, 256],
      dtype: deviceDtypes,
      causal: [false, true],
      posEncodingMode: ['NONE', 'ROPE_LLAMA', 'ALIBI'] as const,
      logitsSoftCap: [0, 30],
      windowLeft: [-1, 0, 13, 111],
    },
    fits,
  );
  runCases(
    grid.map(({ heads: [numQoHeads, numKvHeads], causal, posEncodingMode, logitsSoftCap, windowLeft, ...c }) => ({
      ...c,
      numQoHeads,
      numKvHeads,
      options: { causal, posEncodingMode, logitsSoftCap, windowLeft },
    })),
  );
});

// Kernels hold a row against a maximum of some keys and look for another where later ones are far above it.
describe('singlePrefillWithKVCache, maxima that move from tile to tile', () => {
  const gains: Record<string, (x: number) => number> = {
    rising: (x) => 1 + 60 * x,
    falling: (x) => 61 - 60 * x,
    'a peak': (x) => (Math.abs(x - 0.4) < 0.004 ? 60 : 0.5),
    waves: (x) => 1 + 40 * Math.sin(20 * x) ** 2,
    // Far below what the row is held against before.
    'almost nothing, then much': (x) => (x < 0.5 ? 80 : 0.001),
  };
  const grid = gridCases(
    { gain: Object.keys(gains), headDim: [64, 128, 256], causal: [false, true], dtype: deviceDtypes },
    () => true,
  );
  it.each(grid)('$gain d$headDim causal $causal $dtype', ({ gain, ...c }) => {
    const prepare: AttentionCase['prepare'] = ({ k }) => {
      for (let n = 0; n < k.length; ++n) k[n]! *= gains[gain]!(n / k.length);
    };
    const { causal, ...rest } = c;
    runCase({ qoLen: 150, kvLen: 700, numQoHeads: 4, numKvHeads: 2, ...rest, prepare, options: { causal } });
  });

  it('spreads an infinite logit of a late tile, and no other', () => {
    const prepared = prepareCase({ qoLen: 3, kvLen: 700, numQoHeads: 1, numKvHeads: 1, headDim: 64, dtype: 'float16' });
    const k = prepared.k.toArraySync() as Float32Array;
    k.fill(Infinity, 64 * 5, 64 * 5 + 1);
    const infinite = deviceTensor(k, prepared.k.shape, 'float16');
    const { out } = callAttention({ ...prepared, k: infinite }, prepared.options);
    const values = hostValues(out);
    const q = prepared.inputs.q;
    for (let row = 0; row < 3; ++row) {
      // +Infinity has no weight that is a number, -Infinity has none at all.
      const nan = q[row * 64]! > 0;
      expect(values.slice(row * 64, row * 64 + 64).every((x) => Number.isNaN(x) === nan)).toBe(true);
    }
  });
});

describe('singlePrefillWithKVCache, custom masks', () => {
  const grid = gridCases(
    {
      qoLen: [1, 17, 127],
      kvLen: [3, 54, 397],
      heads: [
        [4, 4],
        [8, 2],
      ] as [number, number][],
      headDim: [64, 128],
      dtype: deviceDtypes,
      packedMask: [false, true],
      maskDensity: [0, 0.02, 0.5, 1],
      posEncodingMode: ['NONE', 'ROPE_LLAMA', 'ALIBI'] as const,
      windowLeft: [-1, 33],
    },
    fits,
  );
  runCases(
    grid.map(({ heads: [numQoHeads, numKvHeads], posEncodingMode, windowLeft, ...c }) => ({
      ...c,
      numQoHeads,
      numKvHeads,
      options: { posEncodingMode, windowLeft },
    })),
  );

  it('agrees bit for bit between bool and packed masks', () => {
    const c = { qoLen: 33, kvLen: 75, numQoHeads: 4, numKvHeads: 2, headDim: 64, dtype: 'float16' } as const;
    const [plain, packed] = [false, true].map((packedMask) => {
      const prepared = prepareCase({ ...c, maskDensity: 0.4, packedMask });
      return callAttention(prepared, { ...prepared.options, returnLse: true });
    });
    expect(packed!.out.toArraySync()).toEqual(plain!.out.toArraySync());
    expect(packed!.lse!.toArraySync()).toEqual(plain!.lse!.toArraySync());
  });
});

describe('singlePrefillWithKVCache, 8-bit keys and values', () => {
  const grid = gridCases(
    {
      qoLen: [1, 7, 53],
      kvLen: [54, 397],
      heads: [
        [4, 4],
        [8, 2],
      ] as [number, number][],
      headDim: [64, 128, 256],
      dtype: deviceDtypes,
      kvDtype: ['float8_e4m3fn', 'float8_e5m2'] as const,
      causal: [false, true],
      scales: [{}, { kScale: 1.75, vScale: 0.25 }],
    },
    fits,
  );
  runCases(
    grid.map(({ heads: [numQoHeads, numKvHeads], causal, scales, ...c }) => ({
      ...c,
      numQoHeads,
      numKvHeads,
      options: { causal, ...scales },
    })),
  );
});

describe('singlePrefillWithKVCache, options', () => {
  const base = { qoLen: 70, kvLen: 513, numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16' } as const;
  runCases([
    { ...base, options: { smScale: 0.3, causal: true } },
    { ...base, options: { posEncodingMode: 'ROPE_LLAMA', ropeScale: 4, ropeTheta: 5e5, causal: true } },
    { ...base, options: { logitsSoftCap: 1, causal: true } },
    { ...base, options: { windowLeft: 100_000, causal: true } },
    { ...base, operatorOptions: { backend: 'auto' } },
    { ...base, operatorOptions: { backend: testDevice === 'cpu' ? 'cpu' : 'fa2' } },
    // more rows than keys: the first rows see nothing
    { ...base, qoLen: 130, kvLen: 65, options: { causal: true } },
    { ...base, qoLen: 200, kvLen: 1, options: { causal: true, posEncodingMode: 'ALIBI' } },
    { ...base, qoLen: 130, kvLen: 65, options: { causal: true, windowLeft: 3, posEncodingMode: 'ROPE_LLAMA' } },
  ]);

  it("gives a natural-log lse with lseBase 'e', and the same out", () => {
    const prepared = prepareCase(base);
    const two = callAttention(prepared, { returnLse: true, lseBase: '2' });
    const natural = callAttention(prepared, { returnLse: true, lseBase: 'e' });
    expect(natural.out.toArraySync()).toEqual(two.out.toArraySync());
    const { lse } = attentionReference(prepared.shape, prepared.inputs);
    expectLseClose(
      hostValues(natural.lse!),
      lse.map((value) => value * Math.LN2),
      attentionTolerance('float16'),
    );
  });

  it("keeps -Infinity in base 'e'", () => {
    const prepared = prepareCase({ ...base, maskDensity: 0 });
    const { lse } = callAttention(prepared, { ...prepared.options, returnLse: true, lseBase: 'e' });
    expect(new Set(hostValues(lse!))).toEqual(new Set([-Infinity]));
  });

  it('returns one new tensor without returnLse', () => {
    const prepared = prepareCase(base);
    const out = singlePrefillWithKVCache(prepared.q, prepared.k, prepared.v, { causal: true });
    expect(Array.isArray(out)).toBe(false);
    expect([out.dtype, out.device, [...out.shape]]).toEqual(['float16', testDevice, [70, 8, 128]]);
    const reference = attentionReference(prepared.shape, prepared.inputs, { causal: true });
    expectClose(hostValues(out), reference.out, 128, attentionTolerance('float16'));
  });

  it('gives bit-equal results on every call', () => {
    for (const [qoLen, kvLen] of [
      [3, 5003],
      [130, 300],
    ] as const) {
      const prepared = prepareCase({ ...base, qoLen, kvLen });
      const [first, second] = [0, 1].map(() => callAttention(prepared, { causal: true, returnLse: true }));
      expect(second!.out.toArraySync()).toEqual(first!.out.toArraySync());
      expect(second!.lse!.toArraySync()).toEqual(first!.lse!.toArraySync());
    }
  });
});

describe('singlePrefillWithKVCache, edges', () => {
  it('takes no query rows', () => {
    const prepared = prepareCase({ qoLen: 0, kvLen: 9, numQoHeads: 4, numKvHeads: 2, headDim: 64, dtype: 'float16' });
    const { out, lse } = callAttention(prepared, { causal: true, returnLse: true });
    expect([[...out.shape], [...lse!.shape]]).toEqual([
      [0, 4, 64],
      [0, 4],
    ]);
  });

  it('gives 0 and -Infinity for an empty cache', () => {
    const prepared = prepareCase({ qoLen: 5, kvLen: 0, numQoHeads: 4, numKvHeads: 2, headDim: 64, dtype: 'float16' });
    const out = poisoned([5, 4, 64], 'float16');
    const { lse } = callAttention(prepared, { out, returnLse: true });
    expect(new Set(hostValues(out))).toEqual(new Set([0]));
    expect(new Set(hostValues(lse!))).toEqual(new Set([-Infinity]));
  });

  it.each([-2.45e5, -1e4, 1e4, 2.45e5])('survives logits of %d', (target) => {
    runCase({
      qoLen: 64,
      kvLen: 256,
      numQoHeads: 2,
      numKvHeads: 1,
      headDim: 64,
      dtype: 'bfloat16',
      options: { smScale: Math.abs(target) / 64, causal: true },
      prepare: ({ q, k }) => {
        q.fill(1);
        k.fill(Math.sign(target));
      },
    });
  });

  it('follows a maximum that grows and falls from tile to tile', () => {
    runCase({
      qoLen: 32,
      kvLen: 900,
      numQoHeads: 2,
      numKvHeads: 1,
      headDim: 64,
      dtype: 'float16',
      options: { smScale: 1 / 8 },
      prepare: ({ q, k }) => {
        q.fill(1);
        for (let j = 0; j < 900; ++j) k.fill(Math.round(40 * Math.sin(j / 60)), j * 64, (j + 1) * 64);
      },
    });
  });

  it.each(['q', 'k', 'v'] as const)('spreads a NaN in %s to the rows that read it', (name) => {
    const prepared = prepareCase({
      qoLen: 33,
      kvLen: 70,
      numQoHeads: 4,
      numKvHeads: 2,
      headDim: 64,
      dtype: 'float16',
      // row 20, head 1 of q; key 0 of head 1 of k and v
      prepare: (inputs) => {
        inputs[name][name === 'q' ? (20 * 4 + 1) * 64 + 3 : 64 + 3] = Number.NaN;
      },
    });
    const { out } = callAttention(prepared, { causal: true });
    const values = hostValues(out);
    const expected = attentionReference(prepared.shape, prepared.inputs, { causal: true }).out;
    expect(expected.some(Number.isNaN) && expected.some(Number.isFinite)).toBe(true);
    expected.forEach((value, n) => {
      expect(Number.isNaN(values[n]!), `element ${n}`).toBe(Number.isNaN(value));
    });
  });

  it('keeps masked keys out of the result, however large they are', () => {
    runCase({
      qoLen: 40,
      kvLen: 170,
      numQoHeads: 4,
      numKvHeads: 4,
      headDim: 64,
      dtype: 'bfloat16',
      options: { windowLeft: 20, causal: true },
      prepare: ({ k, v }) => {
        // row 0 sees keys from 110 on
        k.fill(1e4, 0, 110 * 256);
        v.fill(1e4, 0, 110 * 256);
      },
    });
  });
});

describe('singlePrefillWithKVCache, views', () => {
  const c = { qoLen: 21, kvLen: 75, numQoHeads: 4, numKvHeads: 2, headDim: 64, dtype: 'float16' } as const;

  it('takes transposed keys and values without a copy', () => {
    const prepared = prepareCase(c);
    const hnd = prepareCase({ ...c, kvLayout: 'HND' });
    const views = { q: prepared.q, k: hnd.k.transpose(0, 1), v: hnd.v.transpose(0, 1) };
    const { out, lse } = callAttention(views, { kvLayout: 'NHD', returnLse: true });
    expectMatches(prepared, referenceOf(prepared), hostValues(out), hostValues(lse!), c);
  });

  it('takes slices of one packed qkv tensor', () => {
    const prepared = prepareCase({ ...c, kvLen: 21 });
    const packed = prepareCase({ ...c, numQoHeads: 8 }).q; // q heads 0-3, k heads 4-5, v heads 6-7
    const views = { q: packed.slice(1, 0, 4), k: packed.slice(1, 4, 6), v: packed.slice(1, 6, 8) };
    const { out, lse } = callAttention(views, { returnLse: true });
    const inputs = {
      q: heldValues(views.q.contiguous()),
      k: heldValues(views.k.contiguous()),
      v: heldValues(views.v.contiguous()),
    };
    const rows = Array.from({ length: 21 }, (_, i) => i);
    const reference = { rows, ...attentionReference(prepared.shape, inputs) };
    expectMatches(prepared, reference, hostValues(out), hostValues(lse!), c);
  });

  it('writes a strided out and nothing beside it', () => {
    const prepared = prepareCase(c);
    const outer = deviceTensor(new Float32Array(21 * 6 * 64).fill(7), [21, 6, 64], 'float16');
    const out = outer.slice(1, 1, 5);
    expect(callAttention(prepared, { out }).out).toBe(out);
    expectClose(hostValues(out.contiguous()), referenceOf(prepared).out, 64, attentionTolerance('float16'));
    const beside = [outer.slice(1, 0, 1), outer.slice(1, 5, 6)].flatMap((x) => [...hostValues(x.contiguous())]);
    expect(beside).toEqual(new Array(21 * 128).fill(7));
  });
});
