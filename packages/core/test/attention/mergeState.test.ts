// SPDX-License-Identifier: Apache-2.0
// Merging attention states, against the float64 reference, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import {
  mergeState,
  mergeStateInPlace,
  mergeStates,
  singlePrefillWithKVCache,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { testDevice } from '../device.ts';
import { describeOnEachIsa } from '../isas.ts';
import { type AttentionReference, mergeReference } from '../reference/attention.ts';
import { attentionTolerance, expectClose } from '../reference/compare.ts';
import { gridCases } from '../reference/pairwise.ts';
import { uniformSource } from '../reference/random.ts';
import { expectRounded } from '../reference/rounding.ts';
import { expectPaddingKept, expectSameValues, held, randomRows } from '../rows.ts';
import { expectThrows } from '../thrownBy.ts';

const floats = ['float16', 'bfloat16', 'float32'] as const;

/** float32 `[...shape]`, between -30 and 30, with some empty states. */
function randomLse(shape: readonly number[], stream: number, empty = 0.15): Tensor {
  const uniform = uniformSource(stream);
  const size = shape.reduce((a, b) => a * b, 1);
  const values = Float32Array.from({ length: size }, () => (uniform() < empty ? -Infinity : uniform() * 60 - 30));
  return tensor(values, { shape, dtype: 'float32', device: testDevice });
}

const stateOf = (v: Tensor, s: Tensor, factor = 1): AttentionReference => ({
  out: held(v),
  lse: held(s).map((lse) => lse * factor),
});

/** `cancelling`: the largest magnitude that may have cancelled out in a value, in float32. */
function expectState(v: Tensor, s: Tensor, reference: AttentionReference, label: string, factor = 1): void {
  expectRounded(held(v), reference.out, v.dtype, { absolute: () => 1e-5 }, `${label} v`);
  held(s).forEach((lse, i) => {
    const expected = reference.lse[i]! / factor;
    const close = Number.isFinite(expected)
      ? Math.abs(lse - expected) <= 1e-5 * Math.max(1, Math.abs(expected))
      : lse === expected;
    expect(close, `${label} s: ${lse} at ${i}; expected ${expected}`).toBe(true);
  });
}

/** What a state without keys holds as values must not matter. */
function poisonEmpty(v: Tensor, s: Tensor): void {
  const dim = v.shape.at(-1)!;
  const lse = held(s);
  const values = Float32Array.from(held(v), (x, i) => (lse[Math.floor(i / dim)] === -Infinity ? Number.NaN : x));
  v.copy_(tensor(values, { shape: v.shape, dtype: v.dtype, device: testDevice }));
}

const clean = (state: AttentionReference): AttentionReference => ({
  ...state,
  out: state.out.map((x) => (Number.isNaN(x) ? 0 : x)),
});

/** Head counts and dimensions at and past 1024 threads a row of the batch, and odd ones. */
const shapes = [
  [5, 8, 64],
  [3, 130, 128],
  [2, 3, 80],
  [1, 1, 1],
  [7, 5, 33],
  [2, 4, 512],
  [2, 2, 1100],
  [257, 1, 256],
] as const;

describeOnEachIsa('mergeState', () => {
  const cases = gridCases({
    shape: shapes,
    dtype: floats,
    padding: [0, 1, 8],
    lseBase: [undefined, '2', 'e'] as const,
  });
  for (const { shape, dtype, padding, lseBase } of cases) {
    it(JSON.stringify({ shape, dtype, padding, lseBase }), () => {
      const factor = lseBase === 'e' ? Math.LOG2E : 1;
      const rows = [shape[0], shape[1]];
      const [a, b] = [0, 1].map((stream) => randomRows(shape, dtype, stream, { padding }));
      const [sA, sB] = [randomLse(rows, 2), randomLse(rows, 3)];
      poisonEmpty(a!.tensor, sA);
      poisonEmpty(b!.tensor, sB);
      const reference = mergeReference(clean(stateOf(a!.tensor, sA, factor)), clean(stateOf(b!.tensor, sB, factor)));
      const [v, s] = mergeState(a!.tensor, sA, b!.tensor, sB, { lseBase });
      expect([v.dtype, v.device, [...v.shape], s.dtype, [...s.shape]]).toEqual([
        dtype,
        testDevice,
        [...shape],
        'float32',
        rows,
      ]);
      expectState(v, s, reference, 'merged', factor);

      const before = held(b!.tensor);
      expect(mergeStateInPlace(a!.tensor, sA, b!.tensor, sB, { lseBase })).toBeUndefined();
      expectSameValues(a!.tensor, held(v));
      expectSameValues(sA, held(s));
      expectSameValues(b!.tensor, before);
      expectPaddingKept(a!);
    });
  }

  it('takes heads in any order, and lse of any strides', () => {
    const [a, b] = [0, 1].map((stream) => randomRows([6, 9, 64], 'float16', stream).tensor.transpose(0, 1));
    const [sA, sB] = [2, 3].map((stream) => randomLse([6, 9], stream).transpose(0, 1));
    const reference = mergeReference(stateOf(a!, sA!), stateOf(b!, sB!));
    const [v, s] = mergeState(a!, sA!, b!, sB!);
    expectState(v, s, reference, 'merged');
  });

  it('is attention over both sets of keys', () => {
    const [q, k, v] = [0, 1, 2].map((stream) => randomRows([19, 8, 64], 'float16', stream).tensor) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const part = (begin: number, end: number) =>
      singlePrefillWithKVCache(q, k.slice(0, begin, end), v.slice(0, begin, end), { returnLse: true });
    const [whole, wholeLse] = singlePrefillWithKVCache(q, k, v, { returnLse: true });
    const [o, lse] = mergeState(...part(0, 7), ...part(7, 19));
    expectClose(held(o), held(whole), 64, attentionTolerance('float16'));
    expectClose(held(lse), held(wholeLse), 8, attentionTolerance('float16'));
  });

  it('keeps what dominates, and NaN where it is', () => {
    const v = (x: number) => tensor([x, x], { shape: [1, 1, 2], dtype: 'float32', device: testDevice });
    const s = (x: number) => tensor([x], { shape: [1, 1], dtype: 'float32', device: testDevice });
    expect([...held(mergeState(v(3), s(1e30), v(5), s(-1e30))[0])]).toEqual([3, 3]);
    for (const [a, b] of [
      [Number.NaN, 1],
      [1, Number.NaN],
    ] as const) {
      expect([...held(mergeState(v(3), s(a), v(5), s(b))[0])]).toEqual([Number.NaN, Number.NaN]);
      expect([...held(mergeState(v(a), s(1), v(b), s(1))[0])]).toEqual([Number.NaN, Number.NaN]);
    }
  });

  it('does nothing for no rows', () => {
    const make = (dims: number[], dtype: DType) => zeros(dims, { dtype, device: testDevice });
    const [v, s] = mergeState(
      make([0, 4, 64], 'float16'),
      make([0, 4], 'float32'),
      make([0, 4, 64], 'float16'),
      make([0, 4], 'float32'),
    );
    expect([v.shape, s.shape]).toEqual([
      [0, 4, 64],
      [0, 4],
    ]);
  });
});

describeOnEachIsa('mergeStateInPlace', () => {
  it.each(floats)('merges the rows of the mask only (%s)', (dtype) => {
    const shape = [50, 6, 128];
    for (const density of [0, 0.5, 1]) {
      const [a, b] = [0, 1].map((stream) => randomRows(shape, dtype, stream).tensor) as [Tensor, Tensor];
      const [sA, sB] = [randomLse([50, 6], 2), randomLse([50, 6], 3)];
      const uniform = uniformSource(4);
      const bits = Uint8Array.from({ length: 50 }, () => (uniform() < density ? 1 : 0));
      const [untouched, untouchedLse] = [held(a), held(sA)];
      const merged = mergeReference(stateOf(a, sA), stateOf(b, sB));
      const pick = (all: Float64Array, kept: Float64Array, width: number) =>
        all.map((x, i) => (bits[Math.floor(i / width)] === 1 ? x : kept[i]!));
      const mask = tensor([...bits], { dtype: 'bool', device: testDevice });
      mergeStateInPlace(a, sA, b, sB, { mask });
      expectState(
        a,
        sA,
        { out: pick(merged.out, untouched, 6 * 128), lse: pick(merged.lse, untouchedLse, 6) },
        `density ${density}`,
      );
    }
  });
});

describeOnEachIsa('mergeStates', () => {
  const cases = gridCases({
    shape: shapes,
    numStates: [1, 2, 7, 100],
    dtype: floats,
    padding: [0, 1, 8],
    lseBase: [undefined, 'e'] as const,
  });
  for (const { shape, numStates, dtype, padding, lseBase } of cases) {
    it(JSON.stringify({ shape, numStates, dtype, padding, lseBase }), () => {
      const [n, heads, dim] = shape;
      const factor = lseBase === 'e' ? Math.LOG2E : 1;
      const { tensor: v } = randomRows([n, numStates, heads, dim], dtype, 0, { padding });
      const s = randomLse([n, numStates, heads], 1, 0.3);
      poisonEmpty(v, s);
      let reference: AttentionReference | undefined;
      for (let i = 0; i < numStates; ++i) {
        const state = clean(stateOf(v.select(1, i), s.select(1, i), factor));
        const empty = { out: new Float64Array(n * heads * dim), lse: new Float64Array(n * heads).fill(-Infinity) };
        reference = mergeReference(reference ?? empty, state);
      }
      const [out, lse] = mergeStates(v, s, { lseBase });
      expectState(out, lse, reference!, 'merged', factor);
      const [again, lseAgain] = mergeStates(v, s, { lseBase });
      expectSameValues(again, held(out));
      expectSameValues(lseAgain, held(lse));
    });
  }

  it('gives zeros and -inf of no states', () => {
    const [v, s] = mergeStates(
      zeros([2, 0, 3, 64], { dtype: 'float16', device: testDevice }),
      zeros([2, 0, 3], { device: testDevice }),
    );
    expect(held(v).every((x) => x === 0)).toBe(true);
    expect(held(s).every((x) => x === -Infinity)).toBe(true);
  });

  it('takes states in any order of dimensions', () => {
    const v = randomRows([4, 6, 3, 64], 'bfloat16', 0).tensor.transpose(0, 1);
    const s = randomLse([4, 6, 3], 1).transpose(0, 1);
    const [out, lse] = mergeStates(v, s);
    const [expected, expectedLse] = mergeStates(v.contiguous(), s.contiguous());
    expectSameValues(out, held(expected));
    expectSameValues(lse, held(expectedLse));
  });
});

describe('merging refuses', () => {
  const make = (shape: number[], dtype: DType = 'float16') => zeros(shape, { dtype, device: testDevice });
  const [v, s] = [make([3, 4, 64]), make([3, 4], 'float32')];
  const shape = 'ERR_FLASHINFER_INVALID_SHAPE';
  it.each([
    ['values of another shape', () => mergeState(v, s, make([3, 5, 64]), s), shape, ['vB', 'heads=5', 'heads=4']],
    ['an lse of another shape', () => mergeState(v, s, v, make([2, 4], 'float32')), shape, ['sB', 'n=2', 'n=3']],
    ['values of rank 2', () => mergeState(s, s, s, s), 'ERR_FLASHINFER_INVALID_RANK', ['vA', 'rank 2']],
    ['fp8 values', () => mergeState(make([3, 4, 64], 'float8_e5m2'), s, v, s), 'ERR_FLASHINFER_INVALID_DTYPE', ['vA']],
    ['two dtypes', () => mergeState(v, s, make([3, 4, 64], 'bfloat16'), s), 'ERR_FLASHINFER_INVALID_DTYPE', ['vB']],
    ['an lse of float16', () => mergeState(v, make([3, 4]), v, s), 'ERR_FLASHINFER_INVALID_DTYPE', ['sA', 'float32']],
    [
      'a strided last dimension',
      () => mergeState(make([3, 64, 4]).transpose(1, 2), s, v, s),
      'ERR_FLASHINFER_NON_CONTIGUOUS',
      ['vA'],
    ],
    ['no elements', () => mergeState(make([3, 4, 0]), s, make([3, 4, 0]), s), shape, ['vA', 'dim of 1']],
    [
      'another base',
      () => mergeState(v, s, v, s, { lseBase: '10' as never }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      ['lseBase', "'10'"],
    ],
    [
      'an unknown option',
      () => mergeStates(make([3, 2, 4, 64]), make([3, 2, 4], 'float32'), { mask: s } as never),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      ['mask', 'lseBase'],
    ],
    [
      'a state merged with itself',
      () => mergeStateInPlace(v, s, v, make([3, 4], 'float32')),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      ['v', 'vOther', 'overlap'],
    ],
    [
      'a mask of another length',
      () => mergeStateInPlace(v, s, make([3, 4, 64]), make([3, 4], 'float32'), { mask: make([4], 'bool') }),
      shape,
      ['mask', 'n=4', 'n=3'],
    ],
    [
      'a mask of numbers',
      () => mergeStateInPlace(v, s, make([3, 4, 64]), make([3, 4], 'float32'), { mask: make([3], 'uint8') }),
      'ERR_FLASHINFER_INVALID_DTYPE',
      ['mask', 'bool'],
    ],
    [
      'states with too few lse',
      () => mergeStates(make([3, 2, 4, 64]), make([3, 1, 4], 'float32')),
      shape,
      ['s', 'numStates=1', 'numStates=2'],
    ],
  ] as const)('%s', (_name, call, code, words) => expectThrows(call, code, ...words));
});
