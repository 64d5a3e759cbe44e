// SPDX-License-Identifier: Apache-2.0
// Sampling, softmax and filters against a sort in float64, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import {
  cuda,
  manualSeed,
  minPSamplingFromProbs,
  samplingFromLogits,
  samplingFromProbs,
  softmax,
  type Tensor,
  tensor,
  topKMaskLogits,
  topKRenormProbs,
  topKSamplingFromProbs,
  topKTopPSamplingFromLogits,
  topKTopPSamplingFromProbs,
  topPRenormProbs,
  topPSamplingFromProbs,
} from '../../src/index.ts';
import { onCuda, testDevice } from '../device.ts';
import { describeOnEachIsa } from '../isas.ts';
import { normalArray } from '../reference/random.ts';
import { renormReference, softmaxReference, topKThreshold, topPThreshold } from '../reference/sampling.ts';
import { held, paddedRows } from '../rows.ts';
import { expectThrows } from '../thrownBy.ts';
import { expectDistribution } from './expectDistribution.ts';

const vocabs = [1, 7, 111, 1000, 32_001, 128_256];
const floats = ['float32', 'float16', 'bfloat16'] as const;
const device = testDevice;

function rowOf(values: Float64Array, r: number, vocab: number): Float64Array {
  return values.subarray(r * vocab, (r + 1) * vocab);
}

/** Random distributions of several spreads, a row each. */
function randomProbs(rows: number, vocab: number, padding = 0): Tensor {
  const logits = normalArray(rows * vocab, 11, 2);
  const values = new Float32Array(rows * vocab);
  for (let r = 0; r < rows; r++) {
    const row = logits.subarray(r * vocab, (r + 1) * vocab).map((x) => x * (r + 1));
    values.set(softmaxReference(row), r * vocab);
  }
  return paddedRows(values, [rows, vocab], 'float32', padding).tensor;
}

function repeated(row: readonly number[], batch: number): { x: Tensor; indices: Tensor } {
  return {
    x: tensor([...row], { shape: [1, row.length], device }),
    indices: tensor(new Int32Array(batch), { device }),
  };
}

function bytesOf(x: Tensor): Buffer {
  const values = x.toArraySync();
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
}

function tokensOf(tokens: Tensor): number[] {
  expect(tokens.dtype).toBe('int32');
  return [...(tokens.toArraySync() as Int32Array)];
}

describeOnEachIsa('softmax', () => {
  for (const vocab of vocabs) {
    for (const dtype of floats) {
      it(`${dtype} vocab ${vocab}`, () => {
        const rows = 3;
        const temperatures = [1, 0.5, 3];
        const { tensor: logits } = paddedRows(normalArray(rows * vocab, 5, 4), [rows, vocab], dtype, vocab % 2);
        const source = held(logits);
        const out = softmax(logits, { temperature: tensor(temperatures, { device, dtype: 'float32' }) });
        expect([out.dtype, out.shape]).toEqual(['float32', [rows, vocab]]);
        const found = held(out);
        for (let r = 0; r < rows; r++) {
          const expected = softmaxReference(rowOf(source, r, vocab), temperatures[r]);
          const worst = rowOf(found, r, vocab).reduce(
            (w, x, i) => Math.max(w, Math.abs(x - expected[i]!) / (expected[i]! + 1e-6)),
            0,
          );
          expect(worst).toBeLessThan(2e-5);
        }
      });
    }
  }

  // On sm_90 and up clusters hold rows in registers where four elements can be read at once.
  it.each([4, 1020, 1028, 4096, 4100, 20_000, 40_004, 131_072, 151_936, 201_088, 262_144, 262_148])(
    'rows of %i give the same bits whatever their alignment',
    (vocab) => {
      const values = normalArray(2 * vocab, 6, 4);
      const [aligned, apart, odd] = [0, 4, 1].map((padding) =>
        softmax(paddedRows(values, [2, vocab], 'float32', padding).tensor, { temperature: 0.8 }),
      ) as [Tensor, Tensor, Tensor];
      const source = Float64Array.from(values);
      const found = held(aligned);
      for (let r = 0; r < 2; r++) {
        const expected = softmaxReference(rowOf(source, r, vocab), Math.fround(0.8));
        expect(rowOf(found, r, vocab).every((x, i) => Math.abs(x - expected[i]!) <= 2e-5 * (expected[i]! + 1e-6))).toBe(
          true,
        );
      }
      expect(bytesOf(apart).equals(bytesOf(aligned))).toBe(true);
      expect(bytesOf(odd).equals(bytesOf(aligned))).toBe(true);
    },
  );

  it.each([4, 4096, 128_256])('a NaN or an infinity anywhere makes all of a row of %i NaN', (vocab) => {
    for (const [at, value] of [
      [0, Number.NaN],
      [vocab >> 1, Infinity],
      [vocab - 1, Number.NaN],
    ] as const) {
      const values = normalArray(3 * vocab, 8);
      values[vocab + at] = value;
      const found = held(softmax(tensor(values, { shape: [3, vocab], device })));
      for (const r of [0, 2]) expect(rowOf(found, r, vocab).some(Number.isNaN)).toBe(false);
      expect(rowOf(found, 1, vocab).every(Number.isNaN)).toBe(true);
    }
  });

  it('treats special rows as documented', () => {
    const rows = [
      [0, Number.NaN, 1, 2],
      [-Infinity, -Infinity, -Infinity, -Infinity],
      [-Infinity, 5, -Infinity, -Infinity],
      [3e38, -3e38, 0, 3e38],
      [Infinity, 0, 0, 0],
    ];
    const found = held(softmax(tensor(rows.flat(), { shape: [5, 4], device })));
    expect([...found].map((x) => (Number.isNaN(x) ? 'NaN' : x))).toEqual(
      [
        ['NaN', 'NaN', 'NaN', 'NaN'],
        ['NaN', 'NaN', 'NaN', 'NaN'],
        [0, 1, 0, 0],
        [0.5, 0, 0, 0.5],
        Array(4).fill('NaN'),
      ].flat(),
    );
    const cold = softmax(tensor([1, 2, 2, 0], { shape: [1, 4], device }), { temperature: 0 });
    expect([...held(cold)]).toEqual([0, 0.5, 0.5, 0]);
  });
});

// On sm_90 and up clusters hold rows in registers where four elements can be read at once, and nothing looks for thresholds.
describe('draws without thresholds', () => {
  it.each([4, 1020, 1028, 4096, 20_000, 40_004, 131_072, 151_936, 262_144, 262_148])(
    'from rows of %i give the same tokens whatever their alignment',
    (vocab) => {
      const [rows, options] = [16, { seed: 9, offset: 4 }];
      const values = normalArray(rows * vocab, 17, 3);
      values.fill(-Infinity, 3 * vocab, 4 * vocab); // a row without weight
      const read = [0, 4, 1].map((padding) => {
        const logits = paddedRows(values, [rows, vocab], 'float32', padding).tensor;
        const probs = paddedRows(
          values.map((x) => Math.exp(x)),
          [rows, vocab],
          'float32',
          padding,
        ).tensor;
        return [
          samplingFromLogits(logits, options),
          samplingFromProbs(probs, options),
          minPSamplingFromProbs(probs, 0.01, options),
        ].map(tokensOf);
      });
      expect(read[1]).toEqual(read[0]);
      expect(read[2]).toEqual(read[0]);
      for (const tokens of read[0]!) {
        expect(tokens[3]).toBe(0);
        expect(tokens.every((token) => token >= 0 && token < vocab)).toBe(true);
      }
      expect(new Set(read[0]![1]).size).toBeGreaterThan(vocab > 4 ? 10 : 1);
    },
  );
});

describeOnEachIsa('filters of rows', () => {
  for (const vocab of vocabs) {
    for (const padding of [0, 4, 1]) {
      it(`vocab ${vocab} padding ${padding}`, () => {
        const rows = 3;
        const probs = randomProbs(rows, vocab, padding);
        const source = held(probs);
        const ks = [1, 10, 500];
        const ps = [0.1, 0.5, 0.9];
        const topK = tensor(Int32Array.from(ks), { device });
        const topP = tensor(ps, { dtype: 'float32', device });
        const byK = held(topKRenormProbs(probs, topK));
        const byP = held(topPRenormProbs(probs, topP));
        const masked = held(topKMaskLogits(probs, topK));
        for (let r = 0; r < rows; r++) {
          const row = rowOf(source, r, vocab);
          const k = topKThreshold(row, ks[r]!);
          expectClose(rowOf(byK, r, vocab), renormReference(row, k));
          expect(rowOf(masked, r, vocab).every((x, i) => x === (row[i]! >= k ? row[i] : -Infinity))).toBe(true);
          expectNucleus(rowOf(byP, r, vocab), row, Math.fround(ps[r]!));
        }
      });
    }
  }

  it.each([
    [280, 20_001, 'float32'],
    [280, 20_004, 'bfloat16'],
    [150, 128_256, 'float32'],
  ] as const)('does with each of %i rows of %i what it does with a few, in %s', (rows, vocab, dtype) => {
    const few = 5;
    const values = Float32Array.from(held(randomProbs(few, vocab)));
    const repeated = new Float32Array(rows * vocab);
    for (let r = 0; r < rows; r++) repeated.set(values.subarray((r % few) * vocab, ((r % few) + 1) * vocab), r * vocab);
    const some = tensor(values, { shape: [few, vocab], device }).to(dtype);
    const all = tensor(repeated, { shape: [rows, vocab], device }).to(dtype);
    const seed = tensor(
      BigInt64Array.from({ length: rows }, (_, r) => BigInt(r % few)),
      { device },
    );
    const operations: ((x: Tensor) => Tensor)[] = [
      (x) => topPRenormProbs(x, 0.9),
      (x) => topKRenormProbs(x, 40),
      (x) => topKMaskLogits(x, 3000),
      (x) => topPSamplingFromProbs(x, 0.9, { seed: seed.slice(0, 0, x.shape[0]) }),
      (x) => topKTopPSamplingFromProbs(x, 40, 0.9, { seed: seed.slice(0, 0, x.shape[0]) }),
    ];
    for (const operation of operations) {
      const expected = bytesOf(operation(some));
      const found = bytesOf(operation(all));
      const size = expected.length / few;
      const differs = Array.from({ length: rows }, (_, r) => r).filter((r) => {
        const first = (r % few) * size;
        return found.compare(expected, first, first + size, r * size, (r + 1) * size) !== 0;
      });
      expect(differs).toEqual([]);
    }
  });

  it.each(floats)('keeps the dtype %s', (dtype) => {
    const logits = paddedRows(normalArray(2 * 500, 3), [2, 500], dtype, 0).tensor;
    const masked = topKMaskLogits(logits, 7);
    expect(masked.dtype).toBe(dtype);
    const [source, found] = [held(logits), held(masked)];
    for (let r = 0; r < 2; r++) {
      const k = topKThreshold(rowOf(source, r, 500), 7);
      expect([...rowOf(found, r, 500)]).toEqual([...rowOf(source, r, 500)].map((x) => (x >= k ? x : -Infinity)));
    }
  });

  // Too many equal values to look at one by one, and thresholds far below the largest value.
  it.each([
    ['few distinct values', (x: number) => Math.floor(x)],
    ['one value', () => 0],
    ['one large value', (x: number, i: number) => (i === 77 ? 40 : x)],
  ])('finds thresholds in rows of %s', (_, change) => {
    const vocab = 32_000;
    const values = softmaxReference(normalArray(vocab, 21).map(change));
    const probs = paddedRows(Float32Array.from(values), [1, vocab], 'float32', 0).tensor;
    const row = held(probs);
    for (const k of [1, 40, 700, 5000]) {
      expectClose(held(topKRenormProbs(probs, k)), renormReference(row, topKThreshold(row, k)));
    }
    for (const p of [0.01, 0.5, 0.999]) expectNucleus(held(topPRenormProbs(probs, p)), row, Math.fround(p));
  });

  it.each([200_000, 700_004, 1_000_003])('takes vocabularies of %i, which no cluster may hold', (vocab) => {
    const probs = randomProbs(2, vocab);
    const source = held(probs);
    const byK = held(topKRenormProbs(probs, 20));
    const byP = held(topPRenormProbs(probs, 0.7));
    const tokens = topKSamplingFromProbs(probs, 20, { seed: 1 }).toArraySync() as Int32Array;
    const sums = held(softmax(probs));
    for (let r = 0; r < 2; r++) {
      const row = rowOf(source, r, vocab);
      const k = topKThreshold(row, 20);
      expectClose(rowOf(byK, r, vocab), renormReference(row, k));
      expectNucleus(rowOf(byP, r, vocab), row, Math.fround(0.7));
      expect(row[tokens[r]!]).toBeGreaterThanOrEqual(k);
      expect(rowOf(sums, r, vocab).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 4);
    }
  });

  it('keeps all that equal the last one', () => {
    const probs = tensor([0.25, 0.25, 0.25, 0.25, 0.5, 0, 0, 0], { shape: [2, 4], device });
    expect([...held(topKRenormProbs(probs, 2))]).toEqual([0.25, 0.25, 0.25, 0.25, 1, 0, 0, 0]);
    expect([...held(topPRenormProbs(probs, 0.3))]).toEqual([0.25, 0.25, 0.25, 0.25, 1, 0, 0, 0]);
  });

  it('gives 0 for rows of no weight', () => {
    const probs = tensor([0, 0, 0, Number.NaN, -1, 0], { shape: [2, 3], device });
    expect([...held(topPRenormProbs(probs, 0.5))]).toEqual([0, 0, 0, 0, 0, 0]);
  });
});

function expectClose(found: Float64Array, expected: Float64Array): void {
  const wrong = found.findIndex((x, i) => Math.abs(x - expected[i]!) > 1e-5 * expected[i]!);
  expect(wrong, `element ${wrong}: ${found[wrong]} for ${expected[wrong]}`).toBe(-1);
}

/** Sums within 1e-6 of p may fall on either side. */
function expectNucleus(found: Float64Array, row: Float64Array, p: number): void {
  const smallest = row.filter((_, i) => found[i]! > 0).reduce((a, b) => Math.min(a, b), Infinity);
  expect(smallest).toBeLessThanOrEqual(topPThreshold(row, p - 1e-6));
  expect(smallest).toBeGreaterThanOrEqual(topPThreshold(row, p + 1e-6));
  expectClose(found, renormReference(row, smallest));
}

describeOnEachIsa('sampling', () => {
  const probs = [0.05, 0, 0.3, 0.15, 0.1, 0.4, 0, 0];
  const draws = 20_000;
  const options = (indices: Tensor) => ({ indices, seed: 7 });
  const { x, indices } = repeated(probs, draws);
  const logits = tensor(probs.map(Math.log), { shape: [1, 8], device });

  it('follows the distribution', () => {
    const all = Float64Array.from(probs);
    expectDistribution(tokensOf(samplingFromProbs(x, options(indices))), all);
    expectDistribution(tokensOf(samplingFromLogits(logits, options(indices))), all);
    expectDistribution(tokensOf(topKSamplingFromProbs(x, 3, options(indices))), renormReference(probs, 0.15));
    expectDistribution(tokensOf(topPSamplingFromProbs(x, 0.6, options(indices))), renormReference(probs, 0.3));
    expectDistribution(tokensOf(minPSamplingFromProbs(x, 0.2, options(indices))), renormReference(probs, 0.08));
    const first = renormReference(probs, 0.3);
    const joint = renormReference(probs, 0.15);
    expectDistribution(tokensOf(topKTopPSamplingFromProbs(x, 3, 0.8, options(indices))), first);
    expectDistribution(tokensOf(topKTopPSamplingFromLogits(logits, 3, 0.8, options(indices))), first);
    const jointly = { ...options(indices), filterApplyOrder: 'joint' as const };
    expectDistribution(tokensOf(topKTopPSamplingFromProbs(x, 3, 0.8, jointly)), joint);
    expectDistribution(tokensOf(topKTopPSamplingFromLogits(logits, 3, 0.8, jointly)), joint);
  });

  it.each([111, 32_000, 128_256])('draws from what is kept of %i, at any batch size', (vocab) => {
    const rows = 5;
    const many = randomProbs(rows, vocab);
    const source = held(many);
    const both = topKTopPSamplingFromProbs(many, 20, 0.8, { seed: 3, offset: 9n });
    const tokens = tokensOf(both);
    const two = topKTopPSamplingFromProbs(many.slice(0, 0, 2), 20, 0.8, { seed: 3, offset: 9n });
    expect(tokensOf(two)).toEqual(tokens.slice(0, 2));
    tokens.forEach((token, r) => {
      const row = rowOf(source, r, vocab);
      const k = topKThreshold(row, 20);
      expect(row[token]).toBeGreaterThanOrEqual(topPThreshold(row, Math.fround(0.8) + 1e-6, k));
    });
  });

  it.each(['float16', 'bfloat16'] as const)('draws of %s as of the same values in float32', (dtype) => {
    for (const vocab of [111, 32_000]) {
      const rounded = randomProbs(4, vocab, vocab % 2).to(dtype);
      const logarithms = paddedRows(normalArray(4 * vocab, 12, 3), [4, vocab], dtype, vocab % 2).tensor;
      const [wide, wideLogits] = [rounded.to('float32'), logarithms.to('float32')];
      const draw = (of: Tensor, logs: Tensor) =>
        [
          samplingFromProbs(of, { seed: 5 }),
          samplingFromLogits(logs, { seed: 5 }),
          topPSamplingFromProbs(of, 0.8, { seed: 5 }),
          topKSamplingFromProbs(of, 30, { seed: 5 }),
          minPSamplingFromProbs(of, 0.1, { seed: 5 }),
          topKTopPSamplingFromProbs(of, 30, 0.8, { seed: 5 }),
          topKTopPSamplingFromLogits(logs, 30, 0.8, { seed: 5 }),
        ].map(tokensOf);
      expect(draw(rounded, logarithms)).toEqual(draw(wide, wideLogits));
      for (const renorm of [topPRenormProbs(rounded, 0.8), topKRenormProbs(rounded, 30)]) {
        expect(renorm.dtype).toBe(dtype);
      }
      const kept = topKRenormProbs(wide, 30).to(dtype);
      expect([...held(topKRenormProbs(rounded, 30))]).toEqual([...held(kept)]);
    }
  });

  it('follows a wide distribution', () => {
    const vocab = 9000;
    const wide = Float32Array.from({ length: vocab }, (_, i) => (i % 300 === 5 ? 1 : 0));
    const many = tensor(new Int32Array(3000), { device });
    const tokens = tokensOf(samplingFromProbs(tensor(wide, { shape: [1, vocab], device }), options(many)));
    expectDistribution(tokens, renormReference(wide, 1));
  });

  it('repeats with a seed and an offset, and differs without', () => {
    const same = tokensOf(samplingFromProbs(x, options(indices)));
    expect(tokensOf(samplingFromProbs(x, options(indices)))).toEqual(same);
    expect(tokensOf(samplingFromProbs(x, { ...options(indices), offset: 1 }))).not.toEqual(same);
    expect(tokensOf(samplingFromProbs(x, { indices }))).not.toEqual(tokensOf(samplingFromProbs(x, { indices })));
    manualSeed(1);
    const drawn = tokensOf(samplingFromProbs(x, { indices }));
    manualSeed(1);
    expect(tokensOf(samplingFromProbs(x, { indices }))).toEqual(drawn);
  });

  it('takes seeds of rows, which alone decide', () => {
    const rows = tensor(new Int32Array(64), { device });
    const seeds = tensor(
      BigInt64Array.from({ length: 64 }, (_, i) => BigInt(i % 32)),
      { device },
    );
    const tokens = tokensOf(samplingFromProbs(x, { indices: rows, seed: seeds }));
    expect(tokens.slice(0, 32)).toEqual(tokens.slice(32));
    expect(new Set(tokens).size).toBeGreaterThan(2);
    const one = tensor(BigInt64Array.of(7n), { device });
    const same = tokensOf(samplingFromProbs(x, { indices: rows, seed: 7 }));
    expect(tokensOf(samplingFromProbs(x, { indices: rows, seed: one }))).toEqual(same);
  });

  it('gives valid tokens for special rows', () => {
    const special = [
      [0, 0, 0, 0],
      [Number.NaN, Number.NaN, -1, 0],
      [0, 0, 1, 0],
      [0, Number.NaN, 0, 1e-38],
    ];
    const rows = tensor(special.flat(), { shape: [4, 4], device });
    for (const draw of [
      samplingFromProbs(rows),
      topKSamplingFromProbs(rows, 1),
      topPSamplingFromProbs(rows, 0),
      minPSamplingFromProbs(rows, 1),
      topKTopPSamplingFromProbs(rows, 2, 0.5),
    ]) {
      expect(tokensOf(draw)).toEqual([0, 0, 2, 3]);
    }
    const masked = tensor([-Infinity, -Infinity, -Infinity, 0, -Infinity, Number.NaN], { shape: [2, 3], device });
    expect(tokensOf(samplingFromLogits(masked))).toEqual([0, 0]);
    const away = tensor(Int32Array.of(-1, 4, 2), { device });
    expect(tokensOf(samplingFromProbs(rows, { indices: away }))).toEqual([0, 0, 2]);
    expect(samplingFromProbs(rows.slice(0, 0, 0)).shape).toEqual([0]);
  });

  it('says which tokens are of rows with something to draw', () => {
    const wide = Array.from({ length: 128 }, (_, i) => (i === 100 ? 1 : 0));
    const empty = Array.from({ length: 128 }, (_, i) => (i === 3 ? Number.NaN : i === 5 ? -1 : 0));
    const rows = tensor([...empty, ...wide, ...empty, ...wide], { shape: [4, 128], device });
    const indices = tensor(Int32Array.of(0, 1, 9, 3, 2, -1), { device });
    const valid = [false, true, false, true, false, false];
    for (const [tokens, found] of [
      samplingFromProbs(rows, { indices, returnValid: true }),
      topKSamplingFromProbs(rows, 5, { indices, returnValid: true }),
      topPSamplingFromProbs(rows, 0.5, { indices, returnValid: true }),
      topPSamplingFromProbs(rows, 1, { indices, returnValid: true }),
      minPSamplingFromProbs(rows, 0.5, { indices, returnValid: true }),
      topKTopPSamplingFromProbs(rows, 5, 0.5, { indices, returnValid: true }),
      topKTopPSamplingFromProbs(rows, 5, 0.5, { indices, returnValid: true, filterApplyOrder: 'joint' }),
    ]) {
      expect([found.dtype, found.shape]).toEqual(['bool', [6]]);
      expect(Array.from(found.toArraySync() as Uint8Array, Boolean)).toEqual(valid);
      expect(tokensOf(tokens)).toEqual(valid.map((is) => (is ? 100 : 0)));
    }
    const [tokens, found] = samplingFromProbs(rows.slice(0, 0, 0), { returnValid: true });
    expect([tokens.shape, found.shape]).toEqual([[0], [0]]);
  });

  it('refuses NaN where checkNan is true, and only NaN', () => {
    const rows = tensor([0.5, 0.5, 0, 1, 0.2, 0.8], { shape: [3, 2], device });
    const wrong = tensor([0.5, 0.5, Number.NaN, 1, 0, Number.NaN], { shape: [3, 2], device });
    const odd = tensor([Infinity, 0, -Infinity, -Infinity, -1, 0], { shape: [3, 2], device });
    const calls: [name: string, call: (x: Tensor, options: { checkNan: boolean; seed: number }) => Tensor][] = [
      ['samplingFromProbs: probs', samplingFromProbs],
      ['topPSamplingFromProbs: probs', (x, o) => topPSamplingFromProbs(x, 0.5, o)],
      ['topKSamplingFromProbs: probs', (x, o) => topKSamplingFromProbs(x, 1, o)],
      ['minPSamplingFromProbs: probs', (x, o) => minPSamplingFromProbs(x, 0.5, o)],
      ['topKTopPSamplingFromProbs: probs', (x, o) => topKTopPSamplingFromProbs(x, 1, 0.5, o)],
      ['samplingFromLogits: logits', samplingFromLogits],
      ['topKTopPSamplingFromLogits: logits', (x, o) => topKTopPSamplingFromLogits(x, 1, 0.5, o)],
    ];
    for (const [name, call] of calls) {
      const message = `${name} is NaN in row 1 at 0; expected numbers, as checkNan is true`;
      for (const x of [wrong, wrong.to('bfloat16')]) {
        expectThrows(() => call(x, { checkNan: true, seed: 1 }), 'ERR_FLASHINFER_INVALID_ARGUMENT', message);
      }
      expect(call(wrong, { checkNan: false, seed: 1 }).shape).toEqual([3]);
      for (const x of [rows, odd, rows.slice(0, 0, 0)]) {
        const unchecked = tokensOf(call(x, { checkNan: false, seed: 1 }));
        expect(tokensOf(call(x, { checkNan: true, seed: 1 }))).toEqual(unchecked);
      }
    }
    if (!onCuda) return;
    const capture = () => void cuda.capture(new cuda.Stream(), () => void samplingFromProbs(rows, { checkNan: true }));
    expectThrows(capture, 'ERR_FLASHINFER_UNSUPPORTED', 'samplingFromProbs', 'leave checkNan out');
  });

  it('is deterministic whatever is said', () => {
    for (const call of [
      (o: object) => samplingFromProbs(x, { indices, seed: 3, ...o }),
      (o: object) => topKTopPSamplingFromLogits(logits, 3, 0.8, { indices, seed: 3, ...o }),
    ]) {
      const tokens = tokensOf(call({}));
      for (const deterministic of [true, false]) expect(tokensOf(call({ deterministic }))).toEqual(tokens);
    }
  });

  it.skipIf(!onCuda)('is captured in graphs', () => {
    const expected = tokensOf(topKTopPSamplingFromProbs(x, 3, 0.8, { seed: 5, indices }));
    const stream = new cuda.Stream();
    let tokens: Tensor | undefined;
    const graph = cuda.capture(stream, () => {
      tokens = topKTopPSamplingFromProbs(x, 3, 0.8, { seed: 5, indices });
    });
    for (let n = 0; n < 2; n++) {
      graph.launch(stream);
      stream.synchronizeSync();
      expect(tokensOf(tokens!)).toEqual(expected);
    }
  });
});

describe('errors', () => {
  const probs = tensor([0.5, 0.5], { shape: [1, 2], device });
  it.each([
    [() => topPSamplingFromProbs(probs, 1.5), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'topP is 1.5'],
    [() => topKSamplingFromProbs(probs, 0), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'topK is 0'],
    [
      () => topKMaskLogits(probs, undefined as unknown as number),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'topK is undefined',
    ],
    [
      () => samplingFromProbs(probs.to('float8_e4m3fn')),
      'ERR_FLASHINFER_INVALID_DTYPE',
      'probs has dtype float8_e4m3fn',
    ],
    [
      () => samplingFromLogits(probs, { returnValid: true } as object),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'option returnValid',
    ],
    [
      () => topPSamplingFromProbs(probs, 0.5, { returnValid: 1 as unknown as true }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'returnValid is 1',
    ],
    [
      () => topKSamplingFromProbs(probs, 1, { deterministic: 'yes' as unknown as true }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      "deterministic is 'yes'",
    ],
    [
      () => samplingFromLogits(probs, { checkNan: 1 as unknown as true }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'checkNan is 1',
    ],
    [
      () => samplingFromProbs(probs, { indices: tensor(BigInt64Array.of(0n), { device }) }),
      'ERR_FLASHINFER_INVALID_DTYPE',
      "indices has dtype int64; expected int32; cast with indices.to('int32')",
    ],
    [() => samplingFromProbs(probs, { seed: 0.5 }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'seed is 0.5'],
    [() => samplingFromProbs(probs.view(2)), 'ERR_FLASHINFER_INVALID_RANK', 'probs has rank 1'],
    [() => softmax(probs, { temperature: -1 }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'temperature is -1'],
    [() => minPSamplingFromProbs(probs, tensor([1, 1], { device })), 'ERR_FLASHINFER_INVALID_SHAPE', 'minP has'],
    [() => topPRenormProbs(probs.to('int32'), 0.5), 'ERR_FLASHINFER_INVALID_DTYPE', 'probs has dtype int32'],
  ] as const)('%#', (call, code, message) => expectThrows(call, code, message));
});
