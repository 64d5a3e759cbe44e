// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import {
  type AttentionInputs,
  type AttentionReferenceOptions,
  type AttentionShape,
  alibiSlopes,
  attentionReference,
  mergeReference,
} from './attention.ts';
import { maskArray, normalArray } from './random.ts';

const tight = 12;

function randomInputs(shape: AttentionShape, stream = 0): AttentionInputs {
  const { qoLen, kvLen, numQoHeads, numKvHeads, headDimQk, headDimVo = headDimQk } = shape;
  const draw = (length: number, n: number): Float64Array => Float64Array.from(normalArray(length, 3 * stream + n));
  return {
    q: draw(qoLen * numQoHeads * headDimQk, 0),
    k: draw(kvLen * numKvHeads * headDimQk, 1),
    v: draw(kvLen * numKvHeads * headDimVo, 2),
  };
}

function expectEqual(actual: Float64Array, expected: Float64Array): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, n) => {
    if (Number.isFinite(expected[n]!)) expect(value).toBeCloseTo(expected[n]!, tight);
    else expect(value).toBe(expected[n]!);
  });
}

/** Rows `[begin, end)` of a `[length, heads, dim]` array. */
function sliceRows(x: Float64Array, begin: number, end: number, rowLength: number): Float64Array {
  return x.slice(begin * rowLength, end * rowLength);
}

describe('attentionReference, by hand', () => {
  const shape = { qoLen: 1, kvLen: 2, numQoHeads: 1, numKvHeads: 1, headDimQk: 2 };
  const inputs = {
    q: Float64Array.of(1, 2),
    k: Float64Array.of(Math.LN2, 0, 0, 0),
    v: Float64Array.of(3, 0, 0, 9),
  };

  it('weights two keys by exp of their logits', () => {
    const { out, lse } = attentionReference(shape, inputs, { smScale: 1 });
    // logits ln 2 and 0: probabilities 2/3 and 1/3, log2 of the sum is log2 3
    expectEqual(out, Float64Array.of(2, 3));
    expectEqual(lse, Float64Array.of(Math.log2(3)));
  });

  it('multiplies q, k and v scales where they belong', () => {
    const { out } = attentionReference(shape, inputs, { smScale: 0.5, qScale: 4, kScale: 0.5, vScale: 2 });
    expectEqual(out, Float64Array.of(4, 6));
  });

  it('defaults smScale to 1 / sqrt(headDim)', () => {
    const expected = attentionReference(shape, inputs, { smScale: Math.SQRT1_2 });
    expectEqual(attentionReference(shape, inputs).lse, expected.lse);
  });

  it('caps logits with tanh', () => {
    const { lse } = attentionReference(shape, inputs, { smScale: 1, logitsSoftCap: 0.5 });
    expectEqual(lse, Float64Array.of(Math.log2(Math.exp(0.5 * Math.tanh(Math.LN2 / 0.5)) + 1)));
  });

  it('adds slope * (j - i) for ALiBi, with the raw row index', () => {
    const flat = { q: new Float64Array(2), k: new Float64Array(4), v: inputs.v };
    // one head: slope 2^-8; row 0 of one: biases 0 and 2^-8
    const { lse } = attentionReference(shape, flat, { posEncodingMode: 'ALIBI' });
    expectEqual(lse, Float64Array.of(Math.log2(1 + Math.exp(2 ** -8))));
  });

  it('rotates q at kvLen - qoLen + i and k at j for RoPE', () => {
    // headDim 2 has one frequency, 1: q at position 1, keys at 0 and 1, so the angles between are 1 and 0
    const unit = { q: Float64Array.of(1, 0), k: Float64Array.of(1, 0, 1, 0), v: inputs.v };
    const { lse } = attentionReference(shape, unit, { smScale: 1, posEncodingMode: 'ROPE_LLAMA' });
    expectEqual(lse, Float64Array.of(Math.log2(Math.exp(Math.cos(1)) + Math.exp(1))));
    const halved = attentionReference(shape, unit, { smScale: 1, posEncodingMode: 'ROPE_LLAMA', ropeScale: 2 });
    expectEqual(halved.lse, Float64Array.of(Math.log2(Math.exp(Math.cos(0.5)) + Math.exp(1))));
  });

  it('uses theta^(-2d/headDim) for the second frequency', () => {
    const wide = { qoLen: 1, kvLen: 2, numQoHeads: 1, numKvHeads: 1, headDimQk: 4 };
    const second = {
      q: Float64Array.of(0, 1, 0, 0),
      k: Float64Array.of(0, 1, 0, 0, 0, 0, 0, 0),
      v: new Float64Array(8),
    };
    const { lse } = attentionReference(wide, second, { smScale: 1, posEncodingMode: 'ROPE_LLAMA', ropeTheta: 16 });
    expectEqual(lse, Float64Array.of(Math.log2(Math.exp(Math.cos(0.25)) + 1)));
  });

  it('gives 0 and -Infinity where no key is visible', () => {
    const { out, lse } = attentionReference(shape, inputs, { customMask: [0, 0] });
    expect([...out, ...lse]).toEqual([0, 0, -Infinity]);
    const empty = { ...shape, kvLen: 0 };
    const none = { q: inputs.q, k: new Float64Array(0), v: new Float64Array(0) };
    expect([...attentionReference(empty, none).lse]).toEqual([-Infinity]);
  });

  it('spreads a NaN that a row reads, and only there', () => {
    const nan = { ...inputs, k: Float64Array.of(Number.NaN, 0, 0, 0) };
    expect([...attentionReference(shape, nan).out]).toEqual([Number.NaN, Number.NaN]);
    expect([...attentionReference(shape, nan, { customMask: [0, 1] }).out]).toEqual([0, 9]);
  });
});

describe('alibiSlopes', () => {
  it('is geometric for powers of two and interleaves beyond', () => {
    expectEqual(alibiSlopes(4), Float64Array.of(2 ** -2, 2 ** -4, 2 ** -6, 2 ** -8));
    expectEqual(alibiSlopes(6), Float64Array.of(2 ** -2, 2 ** -4, 2 ** -6, 2 ** -8, 2 ** -1, 2 ** -3));
    expectEqual(alibiSlopes(1), Float64Array.of(2 ** -8));
  });
});

describe('attentionReference, properties', () => {
  const shape = { qoLen: 5, kvLen: 9, numQoHeads: 6, numKvHeads: 2, headDimQk: 8, headDimVo: 4 };
  const inputs = randomInputs(shape);

  it('does not depend on the order of keys', () => {
    const order = [3, 8, 0, 5, 1, 7, 2, 6, 4];
    const permute = (x: Float64Array, rowLength: number): Float64Array =>
      Float64Array.from(order.flatMap((j) => [...sliceRows(x, j, j + 1, rowLength)]));
    const permuted = { q: inputs.q, k: permute(inputs.k, 16), v: permute(inputs.v, 8) };
    const expected = attentionReference(shape, inputs, { logitsSoftCap: 3 });
    const actual = attentionReference(shape, permuted, { logitsSoftCap: 3 });
    expectEqual(actual.out, expected.out);
    expectEqual(actual.lse, expected.lse);
  });

  it('splits over keys and merges by lse', () => {
    const expected = attentionReference(shape, inputs);
    for (const split of [0, 1, 4, 9]) {
      const part = (begin: number, end: number): ReturnType<typeof attentionReference> =>
        attentionReference(
          { ...shape, kvLen: end - begin },
          { q: inputs.q, k: sliceRows(inputs.k, begin, end, 16), v: sliceRows(inputs.v, begin, end, 8) },
        );
      const merged = mergeReference(part(0, split), part(split, 9));
      expectEqual(merged.out, expected.out);
      expectEqual(merged.lse, expected.lse);
    }
  });

  const visibility: [string, AttentionReferenceOptions, (i: number, j: number) => boolean][] = [
    ['causal', { causal: true }, (i, j) => j <= i + 4],
    ['window', { windowLeft: 2 }, (i, j) => j >= i + 4 - 2],
    ['causal and window', { causal: true, windowLeft: 0 }, (i, j) => j === i + 4],
  ];
  for (const [name, options, isVisible] of visibility) {
    it(`${name} equals the mask that says the same`, () => {
      const customMask = Array.from({ length: 45 }, (_, n) => isVisible(Math.floor(n / 9), n % 9));
      const expected = attentionReference(shape, inputs, { customMask });
      const actual = attentionReference(shape, inputs, options);
      expectEqual(actual.out, expected.out);
      expectEqual(actual.lse, expected.lse);
    });
  }

  it('causal with more rows than keys leaves the first rows empty', () => {
    const tall = { qoLen: 4, kvLen: 2, numQoHeads: 1, numKvHeads: 1, headDimQk: 2 };
    const { lse } = attentionReference(tall, randomInputs(tall), { causal: true });
    expect([...lse].map((value) => value === -Infinity)).toEqual([true, true, false, false]);
  });

  it('groups query heads over the key heads in order', () => {
    const expected = attentionReference(shape, inputs);
    const repeated = (x: Float64Array, dim: number): Float64Array =>
      Float64Array.from(
        Array.from({ length: 9 * 6 * dim }, (_, n) => {
          const [j, head, d] = [Math.floor(n / (6 * dim)), Math.floor(n / dim) % 6, n % dim];
          return x[(j * 2 + Math.floor(head / 3)) * dim + d]!;
        }),
      );
    const full = { q: inputs.q, k: repeated(inputs.k, 8), v: repeated(inputs.v, 4) };
    expectEqual(attentionReference({ ...shape, numKvHeads: 6 }, full).out, expected.out);
  });

  it('RoPE depends on relative positions alone', () => {
    const square = { qoLen: 3, kvLen: 3, numQoHeads: 1, numKvHeads: 1, headDimQk: 8 };
    const base = randomInputs(square, 1);
    const shifted = { ...square, kvLen: 7 };
    const pad = new Float64Array(4 * 8);
    const padded = { q: base.q, k: Float64Array.of(...pad, ...base.k), v: Float64Array.of(...pad, ...base.v) };
    const customMask = Array.from({ length: 21 }, (_, n) => n % 7 >= 4);
    const expected = attentionReference(square, base, { posEncodingMode: 'ROPE_LLAMA' });
    expectEqual(attentionReference(shifted, padded, { posEncodingMode: 'ROPE_LLAMA', customMask }).out, expected.out);
  });

  it('computes only the rows and heads asked for', () => {
    const all = attentionReference(shape, inputs, { posEncodingMode: 'ALIBI', causal: true });
    const some = attentionReference(shape, inputs, {
      posEncodingMode: 'ALIBI',
      causal: true,
      rows: [4, 1],
      heads: [5, 0],
    });
    expectEqual(some.lse, Float64Array.of(all.lse[29]!, all.lse[24]!, all.lse[11]!, all.lse[6]!));
    expectEqual(some.out.slice(0, 4), all.out.slice(29 * 4, 30 * 4));
  });

  it('windows cut a custom mask too', () => {
    const customMask = maskArray(45, 9, 0.7);
    const both = Uint8Array.from(customMask, (bit, n) => (n % 9 >= Math.floor(n / 9) + 4 - 3 ? bit : 0));
    const expected = attentionReference(shape, inputs, { customMask: both });
    expectEqual(attentionReference(shape, inputs, { customMask, windowLeft: 3 }).out, expected.out);
  });

  it('refuses inputs of the wrong length', () => {
    expect(() => attentionReference(shape, { ...inputs, v: inputs.k })).toThrow(/v has 144 elements; expected 72/);
  });
});
