// SPDX-License-Identifier: Apache-2.0
// Which tokens each filter leaves: exactly those of its definition, for thresholds that are numbers or differ by row.
import { describe, expect, it } from 'vitest';
import {
  LogitsPipe,
  MinP,
  minPSamplingFromProbs,
  randn,
  Sample,
  Softmax,
  softmax,
  Temperature,
  type Tensor,
  TopK,
  TopP,
  tensor,
  topKMaskLogits,
  topKRenormProbs,
  topKSamplingFromProbs,
  topKTopPSamplingFromLogits,
  topKTopPSamplingFromProbs,
  topPRenormProbs,
  topPSamplingFromProbs,
} from '../../src/index.ts';
import { testDevice as device } from '../device.ts';
import { testSeed, uniformSource } from '../reference/random.ts';
import { topKThreshold, topPThreshold } from '../reference/sampling.ts';
import { held } from '../rows.ts';

/** `heavy` values at random places, over a tail that has `tailShare` of all. */
function scattered(vocab: number, heavy: readonly number[], tailShare: number): Float32Array {
  const uniform = uniformSource(vocab + heavy.length);
  const heavySum = heavy.reduce((a, b) => a + b, 0);
  const each = (heavySum * tailShare) / (1 - tailShare) / (vocab - heavy.length);
  const row = Float32Array.from({ length: vocab }, () => each * (0.5 + uniform()));
  const taken = new Set<number>();
  for (const value of heavy) {
    let place = Math.floor(uniform() * vocab);
    while (taken.has(place)) place = (place + 1) % vocab;
    taken.add(place);
    row[place] = value;
  }
  const sum = row.reduce((a, b) => a + b, 0);
  return row.map((x) => x / sum);
}

/** Distinct values of much the same size, so that draws come to each of them. */
const nearlyEqual = (count: number) => Array.from({ length: count }, (_, i) => 1 + (0.2 * i) / count);

/** A few around each of the fractions of the largest value. */
const nearFractions = [
  1,
  1,
  0.999,
  0.998,
  ...[0.2, 0.05].flatMap((f) => Array.from({ length: 60 }, (_, i) => f * (1 + (i - 30 + (i >= 30 ? 1 : 0)) * 1e-3))),
];

const tokensAtLeast = (row: Float64Array, least: number): number[] =>
  [...row.keys()].filter((i) => row[i]! >= least && row[i]! > 0);

/** Draws so often that each token kept comes, unless one in 1e6 such tests has bad luck. */
function drawsFor(row: Float64Array, kept: readonly number[]): number {
  const sum = kept.reduce((a, i) => a + row[i]!, 0);
  const rarest = kept.reduce((least, i) => Math.min(least, row[i]!), Infinity) / sum;
  return Math.ceil(Math.log(1e6 * kept.length) / rarest);
}

function drawn(count: number, call: (indices: Tensor) => Tensor): number[] {
  using indices = tensor(new Int32Array(count), { device });
  using tokens = call(indices);
  return [...new Set(tokens.toArraySync() as Int32Array)].sort((a, b) => a - b);
}

/** All of `least` and nothing but `most`. */
function expectBetween(found: readonly number[], least: readonly number[], most: readonly number[]): void {
  const allowed = new Set(most);
  const seen = new Set(found);
  expect(
    found.filter((i) => !allowed.has(i)),
    'tokens that are not kept',
  ).toEqual([]);
  expect(
    least.filter((i) => !seen.has(i)),
    'kept tokens that never come',
  ).toEqual([]);
}

const nonzero = (x: Tensor): number[] => [...held(x).entries()].filter(([, value]) => value > 0).map(([i]) => i);

const seed = testSeed;

describe.each([32_000, 128_256])('of %i tokens', (vocab) => {
  const rowOf = (heavy: readonly number[], tailShare: number) => {
    const x = tensor(scattered(vocab, heavy, tailShare), { shape: [1, vocab], device });
    return { x, row: held(x) };
  };

  it.each([10, 100, 500])('top-k of %i keeps the k largest', (k) => {
    const { x, row } = rowOf(nearlyEqual(600), 0.05);
    const kept = tokensAtLeast(row, topKThreshold(row, k));
    expect(kept.length).toBe(k);
    expect(nonzero(topKRenormProbs(x, k))).toEqual(kept);
    const masked = held(topKMaskLogits(x, k));
    expect([...masked.keys()].filter((i) => masked[i] !== -Infinity)).toEqual(kept);
    const found = drawn(drawsFor(row, kept), (indices) => topKSamplingFromProbs(x, k, { indices, seed }));
    expectBetween(found, kept, kept);
  });

  it.each([0.1, 0.5, 0.9])('top-p of %f keeps the nucleus', (p) => {
    const { x, row } = rowOf(nearlyEqual(100), 0.05);
    // Sums that are within the rounding of float32 of p may fall on either side.
    const [least, most] = [p - 1e-6, p + 1e-6].map((at) => tokensAtLeast(row, topPThreshold(row, at))) as [
      number[],
      number[],
    ];
    expect(most.length - least.length).toBeLessThan(2);
    expectBetween(nonzero(topPRenormProbs(x, p)), least, most);
    const found = drawn(drawsFor(row, most), (indices) => topPSamplingFromProbs(x, p, { indices, seed }));
    expectBetween(found, least, most);
  });

  it.each([0.05, 0.2, 1])('min-p of %f keeps what is at least that part of the largest', (minP) => {
    const { x, row } = rowOf(nearFractions, 0.02);
    const kept = tokensAtLeast(row, minP * row.reduce((a, b) => Math.max(a, b)));
    expect(kept.length).toBe(minP === 1 ? 2 : minP === 0.2 ? 34 : 94);
    expect(nonzero(new LogitsPipe([new MinP()]).run(x, { minP }))).toEqual(kept);
    const found = drawn(drawsFor(row, kept), (indices) => minPSamplingFromProbs(x, minP, { indices, seed }));
    expectBetween(found, kept, kept);
  });
});

const rows = 6;
const thresholds = {
  topK: [1, 3, 40, 500, 7, 100_000],
  topP: [0, 0.3, 0.6, 0.9, 1, 0.05],
  minP: [1, 0.5, 0.1, 0.01, 0, 0.8],
  temperature: [0.2, 1, 3, 0.5, 0.9, 0],
};
type Thresholds = { [K in keyof typeof thresholds]: Tensor | number };

/** What row i of `indices`, or row i, is given: a tensor of all, or one row's numbers. */
const tensorsOf = (order: readonly number[]): Thresholds => ({
  topK: tensor(
    Int32Array.from(order, (r) => thresholds.topK[r]!),
    { device },
  ),
  topP: tensor(
    Float32Array.from(order, (r) => thresholds.topP[r]!),
    { device },
  ),
  minP: tensor(
    Float32Array.from(order, (r) => thresholds.minP[r]!),
    { device },
  ),
  temperature: tensor(
    Float32Array.from(order, (r) => thresholds.temperature[r]!),
    { device },
  ),
});
const numbersOf = (r: number): Thresholds => ({
  topK: thresholds.topK[r]!,
  topP: thresholds.topP[r]!,
  minP: thresholds.minP[r]!,
  temperature: thresholds.temperature[r]!,
});

type Options = { indices?: Tensor; seed: number; offset: number };
type Draws = (x: Tensor, t: Thresholds, o: Options) => Tensor;

const hot = new LogitsPipe([new Temperature(), new TopK(), new Softmax(), new MinP(), new TopP(), new Sample()]);
const pipes = {
  topK: new LogitsPipe([new TopK(), new Sample()], { inputType: 'probs' }),
  topP: new LogitsPipe([new TopP(), new Sample()]),
  minP: new LogitsPipe([new MinP(), new Sample()]),
};
const joint = { filterApplyOrder: 'joint' } as const;

const fromProbs: Record<string, Draws> = {
  topKSamplingFromProbs: (x, t, o) => topKSamplingFromProbs(x, t.topK, o),
  topPSamplingFromProbs: (x, t, o) => topPSamplingFromProbs(x, t.topP, o),
  minPSamplingFromProbs: (x, t, o) => minPSamplingFromProbs(x, t.minP, o),
  topKTopPSamplingFromProbs: (x, t, o) => topKTopPSamplingFromProbs(x, t.topK, t.topP, o),
  'joint topKTopPSamplingFromProbs': (x, t, o) => topKTopPSamplingFromProbs(x, t.topK, t.topP, { ...joint, ...o }),
  'TopK, Sample': (x, { topK }, o) => pipes.topK.run(x, { topK, ...o }),
  'TopP, Sample': (x, { topP }, o) => pipes.topP.run(x, { topP, ...o }),
  'MinP, Sample': (x, { minP }, o) => pipes.minP.run(x, { minP, ...o }),
};
const fromLogits: Record<string, Draws> = {
  topKTopPSamplingFromLogits: (x, t, o) => topKTopPSamplingFromLogits(x, t.topK, t.topP, o),
  'joint topKTopPSamplingFromLogits': (x, t, o) => topKTopPSamplingFromLogits(x, t.topK, t.topP, { ...joint, ...o }),
  'Temperature, TopK, Softmax, MinP, TopP, Sample': (x, t, o) => hot.run(x, { ...t, ...o }),
};

const tokensOf = (tokens: Tensor): number[] => [...(tokens.toArraySync() as Int32Array)];

describe.each([111, 32_000])('thresholds that differ by row, of %i tokens', (vocab) => {
  for (const [inputs, samplers] of [
    ['probs', fromProbs],
    ['logits', fromLogits],
  ] as const) {
    const logits = randn([rows, vocab], { device, seed });
    const x = inputs === 'logits' ? logits : softmax(logits);
    const own = { seed: 4, offset: 2 };

    it.each(Object.entries(samplers))('%s draws each row as with its own numbers', (_, draw) => {
      const tokens = tokensOf(draw(x, tensorsOf([...Array(rows).keys()]), own));
      for (let r = 0; r < rows; r++) expect(tokens[r], `row ${r}`).toBe(tokensOf(draw(x, numbersOf(r), own))[r]);
    });

    // Many tokens of each row, so that one that another's threshold would have drawn is among them.
    it.each(Object.entries(samplers))('%s takes one threshold a token where indices share rows', (_, draw) => {
      const count = 300;
      const of = Array.from({ length: count }, (_, i) => (i * 7 + Math.floor(i / rows)) % rows);
      const given = Array.from({ length: count }, (_, i) => (i * 5) % rows);
      const indices = tensor(Int32Array.from(of), { device });
      const tokens = tokensOf(draw(x, tensorsOf(given), { ...own, indices }));
      let unlike = 0;
      for (let r = 0; r < rows; r++) {
        const expected = tokensOf(draw(x, numbersOf(r), { ...own, indices }));
        const mine = [...given.keys()].filter((i) => given[i] === r);
        expect(mine.map((i) => tokens[i])).toEqual(mine.map((i) => expected[i]));
        unlike += expected.filter((token, i) => token !== tokens[i]).length;
      }
      expect(unlike).toBeGreaterThan(count);
    });
  }

  it('pipes draw as the samplers do', () => {
    const x = softmax(randn([rows, vocab], { device, seed: seed + 1 }));
    const indices = tensor(
      Int32Array.from({ length: 60 }, (_, i) => (i * 5) % rows),
      { device },
    );
    const t = tensorsOf(Array.from({ length: 60 }, (_, i) => i % rows));
    const o = { seed: 9, offset: 1, indices };
    for (const [pipe, sampler] of [
      ['TopK, Sample', 'topKSamplingFromProbs'],
      ['TopP, Sample', 'topPSamplingFromProbs'],
      ['MinP, Sample', 'minPSamplingFromProbs'],
    ] as const) {
      expect(tokensOf(fromProbs[pipe]!(x, t, o))).toEqual(tokensOf(fromProbs[sampler]!(x, t, o)));
    }
  });
});
