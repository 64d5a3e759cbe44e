// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { singleDecodeWithKVCache } from '../../src/index.ts';
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

/** Keys and values a thinned case may have: generating and reading them costs more than the operator. */
const elementLimit = fullGrid ? Infinity : 4.5e6;

const fits = ({
  kvLen,
  headDim,
  heads: [, numKvHeads],
}: {
  kvLen: number;
  headDim: number;
  heads: readonly [number, number];
}): boolean => kvLen * headDim * numKvHeads <= elementLimit;

function runCases(cases: AttentionCase[]): void {
  expect(cases.length).toBeGreaterThan(0);
  for (const c of cases) it(caseLabel(c), () => runCase(c));
}

describe('singleDecodeWithKVCache, plain', () => {
  const grid = gridCases(
    {
      kvLen: [1, 9, 81, 128, 729, 999, 33001],
      heads: [
        [4, 4],
        [3, 1],
        [8, 2],
        [7, 1],
        [32, 4],
        [16, 1],
      ] as [number, number][],
      headDim: [64, 128, 256],
      dtype: deviceDtypes,
      kvLayout: ['NHD', 'HND'] as const,
    },
    fits,
  );
  runCases(grid.map(({ heads: [numQoHeads, numKvHeads], ...c }) => ({ ...c, numQoHeads, numKvHeads })));
});

describe('singleDecodeWithKVCache, logits and positions', () => {
  const grid = gridCases(
    {
      kvLen: [1, 19, 199, 1177, 4097],
      heads: [
        [4, 4],
        [12, 4],
        [8, 1],
      ] as [number, number][],
      headDim: [64, 128, 256],
      dtype: deviceDtypes,
      posEncodingMode: ['NONE', 'ROPE_LLAMA', 'ALIBI'] as const,
      logitsSoftCap: [0, 1, 30],
      windowLeft: [-1, 0, 13, 43],
    },
    fits,
  );
  runCases(
    grid.map(({ heads: [numQoHeads, numKvHeads], posEncodingMode, logitsSoftCap, windowLeft, ...c }) => ({
      ...c,
      numQoHeads,
      numKvHeads,
      options: { posEncodingMode, logitsSoftCap, windowLeft },
    })),
  );
});

describe('singleDecodeWithKVCache, 8-bit keys and values', () => {
  const grid = gridCases(
    {
      kvLen: [7, 39, 1170],
      heads: [
        [4, 4],
        [32, 4],
      ] as [number, number][],
      headDim: [64, 128, 256],
      dtype: deviceDtypes,
      kvDtype: ['float8_e4m3fn', 'float8_e5m2'] as const,
      kvLayout: ['NHD', 'HND'] as const,
      scales: [{}, { qScale: 0.5, kScale: 1.75, vScale: 0.25 }],
    },
    fits,
  );
  runCases(
    grid.map(({ heads: [numQoHeads, numKvHeads], scales, ...c }) => ({
      ...c,
      numQoHeads,
      numKvHeads,
      options: scales,
    })),
  );
});

describe('singleDecodeWithKVCache, options', () => {
  const base = { kvLen: 513, numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16' } as const;
  runCases([
    { ...base, options: { smScale: 0.3 } },
    { ...base, options: { posEncodingMode: 'ROPE_LLAMA', ropeScale: 4, ropeTheta: 5e5 } },
    { ...base, options: { posEncodingMode: 'ALIBI' }, numQoHeads: 12 },
    { ...base, options: { windowLeft: 512 } },
    { ...base, options: { windowLeft: 100_000 } },
    { ...base, operatorOptions: { useTensorCores: true } },
    { ...base, operatorOptions: { useTensorCores: false } },
    { ...base, operatorOptions: { backend: 'auto' } },
    { ...base, operatorOptions: { backend: testDevice === 'cpu' ? 'cpu' : 'fa2' } },
  ]);

  it("gives a natural-log lse with lseBase 'e', and the same out", () => {
    const prepared = prepareCase(base);
    const two = callAttention(prepared, { returnLse: true, lseBase: '2' });
    const natural = callAttention(prepared, { returnLse: true, lseBase: 'e' });
    expect(natural.out.toArraySync()).toEqual(two.out.toArraySync());
    const reference = referenceOf(prepared).lse.map((value) => value * Math.LN2);
    expectLseClose(hostValues(natural.lse!), reference, attentionTolerance('float16'));
  });

  it('returns one new tensor without returnLse', () => {
    const prepared = prepareCase(base);
    const out = singleDecodeWithKVCache(prepared.q, prepared.k, prepared.v);
    expect(Array.isArray(out)).toBe(false);
    expect([out.dtype, out.device, [...out.shape]]).toEqual(['float16', testDevice, [8, 128]]);
    const reference = referenceOf(prepared);
    expectClose(hostValues(out), reference.out, 128, attentionTolerance('float16'));
  });

  it('gives bit-equal results on every call', () => {
    for (const kvLen of [97, 20_011]) {
      const prepared = prepareCase({ ...base, kvLen });
      const [first, second] = [0, 1].map(() => callAttention(prepared, { returnLse: true }));
      expect(second!.out.toArraySync()).toEqual(first!.out.toArraySync());
      expect(second!.lse!.toArraySync()).toEqual(first!.lse!.toArraySync());
    }
  });
});

describe('singleDecodeWithKVCache, edges', () => {
  it('gives 0 and -Infinity for an empty cache', () => {
    const q = deviceTensor(new Float32Array(4 * 64).fill(1), [4, 64], 'float16');
    const empty = deviceTensor(new Float32Array(0), [0, 2, 64], 'float16');
    const out = poisoned([4, 64], 'float16');
    const { lse } = callAttention({ q, k: empty, v: empty }, { out, returnLse: true });
    expect([...out.toArraySync()]).toEqual(new Array(256).fill(0));
    expect([...lse!.toArraySync()]).toEqual(new Array(4).fill(-Infinity));
  });

  it('decodes more than 131072 keys', () => {
    runCase({ kvLen: 131_073, numQoHeads: 4, numKvHeads: 1, headDim: 64, dtype: 'bfloat16' });
  });

  // All logits are `target`, so probabilities are uniform whatever float32 makes of the logits themselves.
  it.each([-2.45e5, -1e4, 1e4, 2.45e5])('survives logits of %d', (target) => {
    const c: AttentionCase = {
      kvLen: 333,
      numQoHeads: 8,
      numKvHeads: 2,
      headDim: 64,
      dtype: 'bfloat16',
      options: { smScale: Math.abs(target) / 64 },
      prepare: ({ q, k }) => {
        q.fill(1);
        k.fill(Math.sign(target));
      },
    };
    runCase(c);
  });

  it('gives the one key whose logit towers over the others', () => {
    const kvLen = 257;
    const c: AttentionCase = {
      kvLen,
      numQoHeads: 4,
      numKvHeads: 4,
      headDim: 64,
      dtype: 'float16',
      options: { smScale: 1 },
      prepare: ({ q, k }) => {
        q.fill(8);
        k.fill(-32);
        k.fill(32, 200 * 256, 201 * 256);
      },
    };
    const prepared = prepareCase(c);
    const { out } = callAttention(prepared, prepared.options);
    expect(Float64Array.from(hostValues(out))).toEqual(prepared.inputs.v.slice(200 * 256, 201 * 256));
  });

  it.each(['q', 'k', 'v'] as const)('spreads a NaN in %s to its heads alone', (name) => {
    const shape = { kvLen: 70, numQoHeads: 4, numKvHeads: 2, headDim: 64 };
    const prepared = prepareCase({
      ...shape,
      dtype: 'float16',
      // head 1 of q, or key/value head 1 at key 65: query heads 2 and 3
      prepare: (inputs) => {
        inputs[name][name === 'q' ? 64 + 3 : (65 * 2 + 1) * 64 + 3] = Number.NaN;
      },
    });
    const { out } = callAttention(prepared, { returnLse: true });
    const values = hostValues(out);
    const expected = attentionReference(prepared.shape, prepared.inputs).out;
    expected.forEach((value, n) => {
      expect(Number.isNaN(values[n]!), `element ${n}`).toBe(Number.isNaN(value));
    });
    expect(expected.some(Number.isNaN) && expected.some(Number.isFinite)).toBe(true);
  });
});

describe('singleDecodeWithKVCache, views', () => {
  const c = { kvLen: 75, numQoHeads: 4, numKvHeads: 2, headDim: 64, dtype: 'float16' } as const;

  it('takes transposed keys and values without a copy', () => {
    const prepared = prepareCase(c);
    const hnd = prepareCase({ ...c, kvLayout: 'HND' });
    const views = { q: prepared.q, k: hnd.k.transpose(0, 1), v: hnd.v.transpose(0, 1) };
    expect(views.k.isContiguous).toBe(false);
    const { out, lse } = callAttention(views, { kvLayout: 'NHD', returnLse: true });
    expectMatches(prepared, referenceOf(prepared), hostValues(out), hostValues(lse!), c);
  });

  it('takes slices of larger tensors', () => {
    const prepared = prepareCase(c);
    const outer = prepareCase({ ...c, kvLen: 90, numKvHeads: 3, headDim: 128 });
    const views = {
      q: outer.q.slice(1, 64, 128),
      k: outer.k.slice(0, 5, 80).slice(1, 1, 3).slice(2, 64, 128),
      v: outer.v.slice(0, 15, 90).slice(1, 0, 2).slice(2, 0, 64),
    };
    const { out, lse } = callAttention(views, { returnLse: true });
    const inputs = {
      q: heldValues(views.q.contiguous()),
      k: heldValues(views.k.contiguous()),
      v: heldValues(views.v.contiguous()),
    };
    const reference = { rows: [0], ...attentionReference(prepared.shape, inputs) };
    expectMatches(prepared, reference, hostValues(out), hostValues(lse!), c);
  });

  it('writes a strided out and nothing beside it', () => {
    const prepared = prepareCase(c);
    const outer = deviceTensor(new Float32Array(4 * 192).fill(7), [4, 192], 'float16');
    const out = outer.slice(1, 64, 128);
    expect(callAttention(prepared, { out }).out).toBe(out);
    const reference = referenceOf(prepared);
    expectClose(hostValues(out.contiguous()), reference.out, 64, attentionTolerance('float16'));
    const beside = [outer.slice(1, 0, 64), outer.slice(1, 128, 192)].flatMap((x) => [...hostValues(x.contiguous())]);
    expect(beside).toEqual(new Array(512).fill(7));
  });
});
