// SPDX-License-Identifier: Apache-2.0
// Draws from the nucleus, which reject what is outside of it: that they follow its distribution, however often they do.
import { expect, it } from 'vitest';
import {
  LogitsPipe,
  MinP,
  minPSamplingFromProbs,
  Sample,
  samplingFromLogits,
  samplingFromProbs,
  softmax,
  type Tensor,
  TopP,
  tensor,
  topKTopPSamplingFromLogits,
  topKTopPSamplingFromProbs,
  topPSamplingFromProbs,
} from '../../src/index.ts';
import { testDevice as device, onCuda } from '../device.ts';
import { describeOnEachIsa } from '../isas.ts';
import { normalArray } from '../reference/random.ts';
import { renormReference, topPThreshold } from '../reference/sampling.ts';
import { held } from '../rows.ts';
import { expectDistribution } from './expectDistribution.ts';

const tokensOf = (tokens: Tensor): number[] => [...(tokens.toArraySync() as Int32Array)];
const sameRow = (count: number): Tensor => tensor(new Int32Array(count), { device });

/** One row of logits whose softmax is of the given spread. */
function logitsOf(vocab: number, spread: number): Tensor {
  return tensor(normalArray(vocab, 21, spread), { shape: [1, vocab], device });
}

/** What is in the nucleus for sure, and what may be: sums within 1e-6 of p may fall on either side. */
function boundsOf(row: Float64Array, p: number): [least: number, most: number] {
  return [topPThreshold(row, p - 1e-6), topPThreshold(row, Math.min(p + 1e-6, 1))];
}

describeOnEachIsa('draws from the nucleus', () => {
  // A small p rejects most of the first draws, and some of the later ones.
  it.each([0.02, 0.1, 0.3, 0.6, 0.9, 0.99])('follow the distribution for topP %f', (p) => {
    const probs = Float32Array.from({ length: 300 }, (_, i) => ((i * 37) % 101) + 1);
    const row = Float64Array.from(probs);
    const threshold = topPThreshold(row, Math.fround(p));
    const x = tensor(probs, { shape: [1, 300], device });
    const options = { indices: sameRow(20_000), seed: 12 };
    const kept = renormReference(row, threshold);
    expectDistribution(tokensOf(topPSamplingFromProbs(x, p, options)), kept);
    const logits = tensor(probs.map(Math.log), { shape: [1, 300], device });
    // 300 tokens: topK keeps all
    expectDistribution(tokensOf(topKTopPSamplingFromLogits(logits, 300, p, options)), kept);
  });

  it.each([
    [1000, 1],
    [1001, 3],
    [32_000, 2],
    [128_256, 1],
  ])('of %i tokens keep the first draw where that is in it, and only then', (vocab, spread) => {
    const logits = logitsOf(vocab, spread);
    const probs = softmax(logits);
    const row = held(probs);
    const options = { indices: sameRow(600), seed: 5, offset: 3 };
    const first = {
      probs: tokensOf(samplingFromProbs(probs, options)),
      logits: tokensOf(samplingFromLogits(logits, options)),
    };
    for (const p of [0.05, 0.4, 0.9]) {
      const [most, least] = boundsOf(row, Math.fround(p));
      for (const [drawn, tokens] of [
        [first.probs, tokensOf(topPSamplingFromProbs(probs, p, options))],
        [first.logits, tokensOf(topKTopPSamplingFromLogits(logits, vocab, p, options))],
      ] as const) {
        let kept = 0;
        tokens.forEach((token, i) => {
          expect(row[token]).toBeGreaterThanOrEqual(least);
          if (row[drawn[i]!]! >= most) {
            expect(token).toBe(drawn[i]);
            kept++;
          } else if (row[drawn[i]!]! < least) {
            expect(token).not.toBe(drawn[i]);
          }
        });
        // Both happen as often as the nucleus weighs, but for five deviations.
        const mass = row.reduce((sum, x) => sum + (x >= most ? x : 0), 0);
        expect(Math.abs(kept - 600 * mass)).toBeLessThan(5 * Math.sqrt(600 * mass * (1 - mass)));
      }
    }
  });

  it('are the same whichever way they are asked for', () => {
    const vocab = 1200;
    const logits = logitsOf(vocab, 2);
    const probs = softmax(logits);
    const count = 400;
    const options = { indices: sameRow(count), seed: 8 };
    for (const p of [0, 0.2, 0.8]) {
      const expected = tokensOf(topPSamplingFromProbs(probs, p, options));
      const keepsAll = tensor(new Int32Array(count).fill(vocab), { device });
      const ps = tensor(new Float32Array(count).fill(p), { device });
      const pipe = new LogitsPipe([new TopP(), new Sample()], { inputType: 'probs' });
      const joint = { ...options, filterApplyOrder: 'joint' } as const;
      for (const tokens of [
        topPSamplingFromProbs(probs, ps, options),
        topKTopPSamplingFromProbs(probs, vocab, p, options),
        topKTopPSamplingFromProbs(probs, 2 ** 31 - 1, ps, joint),
        topKTopPSamplingFromProbs(probs, keepsAll, ps, options),
        topKTopPSamplingFromProbs(probs, keepsAll, p, joint),
        pipe.run(probs, { topP: ps, ...options }),
      ]) {
        expect(tokensOf(tokens)).toEqual(expected);
      }
      const ofLogits = tokensOf(topKTopPSamplingFromLogits(logits, vocab, p, options));
      expect(tokensOf(topKTopPSamplingFromLogits(logits, keepsAll, ps, joint))).toEqual(ofLogits);
    }
  });

  it('keep all of equal tokens, and one that is alone', () => {
    const count = 3000;
    const options = { indices: sameRow(count), seed: 2 };
    const equal = Float32Array.from({ length: 40 }, () => 0.025);
    expectDistribution(
      tokensOf(topPSamplingFromProbs(tensor(equal, { shape: [1, 40], device }), 0.01, options)),
      Float64Array.from(equal),
    );
    const two = Float32Array.from({ length: 5000 }, (_, i) => (i === 70 || i === 4321 ? 3 : 1));
    expectDistribution(
      tokensOf(topPSamplingFromProbs(tensor(two, { shape: [1, 5000], device }), 0, options)),
      renormReference(two, 3),
    );
    const one = Float32Array.from({ length: 5000 }, (_, i) => (i === 4321 ? 2e-38 : 0));
    for (const p of [0, 0.5, 1]) {
      const tokens = tokensOf(topPSamplingFromProbs(tensor(one, { shape: [1, 5000], device }), p, options));
      expect(new Set(tokens)).toEqual(new Set([4321]));
    }
  });

  it('come of what min-p left', () => {
    const probs = [0.4, 0.3, 0.1, 0.1, 0.05, 0.05];
    const x = tensor(probs, { shape: [1, 6], device });
    const options = { indices: sameRow(20_000), seed: 4 };
    const pipe = new LogitsPipe([new MinP(), new TopP(), new Sample()], { inputType: 'probs' });
    // 0.9 left, of which 0.7 are enough
    const tokens = tokensOf(pipe.run(x, { minP: 0.2, topP: 0.7, ...options }));
    expectDistribution(tokens, renormReference(probs, 0.3));
    expect(tokensOf(pipe.run(x, { minP: 0.2, topP: 1, ...options }))).toEqual(
      tokensOf(minPSamplingFromProbs(x, 0.2, options)),
    );
  });
});

// From logits devices round the exponentials each in its way.
it.skipIf(!onCuda).each([
  [1, 0.5],
  [111, 0.3],
  [32_001, 0.1],
  [128_256, 0.02],
  [128_256, 0.9],
  [700_004, 0.5],
])('draws the same tokens of %i on both devices for topP %f', (vocab, p) => {
  const rows = 12;
  const spreads = normalArray(rows * vocab, 31, 1).map((x, i) => x * (1 + Math.floor(i / vocab) / 3));
  const onCpu = softmax(tensor(spreads, { shape: [rows, vocab] }));
  const indices = Int32Array.from({ length: 60 }, (_, i) => (i * 5) % rows);
  const options = { seed: 77, offset: 4 };
  const expected = tokensOf(topPSamplingFromProbs(onCpu, p, { ...options, indices: tensor(indices) }));
  const found = topPSamplingFromProbs(onCpu.to(device), p, { ...options, indices: tensor(indices, { device }) });
  expect(tokensOf(found)).toEqual(expected);
});
