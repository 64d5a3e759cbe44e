// SPDX-License-Identifier: Apache-2.0
// That a row's result does not depend on how many rows come with it: kernels deal rows of few to more blocks.
import { describe, expect, it } from 'vitest';
import {
  LogitsPipe,
  MinP,
  minPSamplingFromProbs,
  randn,
  Sample,
  Softmax,
  samplingFromLogits,
  samplingFromProbs,
  setNumThreads,
  softmax,
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
import { native } from '../../src/native/load.ts';
import { testDevice as device, onCuda } from '../device.ts';
import { testSeed } from '../reference/random.ts';

const batches = [1, 2, 5, 33, 61, 200, 256];
const most = 256;
const draw = { seed: 11, offset: 3 };
const joint = { ...draw, filterApplyOrder: 'joint' } as const;

type RowOperator = (x: Tensor) => Tensor;

const ofLogits: Record<string, RowOperator> = {
  softmax,
  'softmax of warm rows': (x) => softmax(x, { temperature: 0.7 }),
  topKMaskLogits: (x) => topKMaskLogits(x, 50),
  samplingFromLogits: (x) => samplingFromLogits(x, draw),
  topKTopPSamplingFromLogits: (x) => topKTopPSamplingFromLogits(x, 50, 0.9, draw),
  'joint topKTopPSamplingFromLogits': (x) => topKTopPSamplingFromLogits(x, 50, 0.9, joint),
  'LogitsPipe of logits': (x) =>
    new LogitsPipe([new Softmax(), new MinP(), new TopK(), new TopP(), new Sample()]).run(x, {
      minP: 0.01,
      topK: 50,
      topP: 0.9,
      ...draw,
    }),
};

const ofProbs: Record<string, RowOperator> = {
  topPRenormProbs: (x) => topPRenormProbs(x, 0.9),
  topKRenormProbs: (x) => topKRenormProbs(x, 50),
  samplingFromProbs: (x) => samplingFromProbs(x, draw),
  topPSamplingFromProbs: (x) => topPSamplingFromProbs(x, 0.9, draw),
  topKSamplingFromProbs: (x) => topKSamplingFromProbs(x, 50, draw),
  minPSamplingFromProbs: (x) => minPSamplingFromProbs(x, 0.05, draw),
  topKTopPSamplingFromProbs: (x) => topKTopPSamplingFromProbs(x, 50, 0.9, draw),
  'joint topKTopPSamplingFromProbs': (x) => topKTopPSamplingFromProbs(x, 50, 0.9, joint),
  'LogitsPipe of probabilities': (x) =>
    new LogitsPipe([new MinP(), new TopP(), new Sample()]).run(x, { minP: 0.01, topP: 0.9, ...draw }),
};

/** As they are in memory, so that NaN and zeros compare too. */
function bytesOf(x: Tensor): Buffer {
  const values = x.toArraySync();
  return Buffer.from(values.buffer, values.byteOffset, values.byteLength);
}

/** Runs on `rows` rows in a scope of its own: the largest results are 100 MB. */
function resultOf(operator: RowOperator, x: Tensor, first: number, rows: number): Buffer {
  using some = x.slice(0, first, first + rows);
  using result = operator(some);
  expect(result.shape[0]).toBe(rows);
  return bytesOf(result);
}

function differingRows(found: Buffer, expected: Buffer, rows: number): number[] {
  const size = found.length / rows;
  return Array.from({ length: rows }, (_, r) => r).filter(
    (r) => found.compare(expected, r * size, (r + 1) * size, r * size, (r + 1) * size) !== 0,
  );
}

const logitsOf = (vocab: number, dtype: 'float32' | 'bfloat16') =>
  randn([most, vocab], { dtype, device, seed: testSeed });

describe.each([
  [32_000, 'float32'],
  [32_001, 'bfloat16'],
  [128_256, 'float32'],
] as const)('rows of %i in %s', (vocab, dtype) => {
  for (const [inputs, operators] of [
    ['logits', ofLogits],
    ['probs', ofProbs],
  ] as const) {
    for (const [name, operator] of Object.entries(operators)) {
      it(`${name} gives the same bits in batches of ${batches.join(', ')}`, () => {
        using logits = logitsOf(vocab, dtype);
        using x = inputs === 'logits' ? logits.slice(0, 0) : softmax(logits, { temperature: 0.5 }).to(dtype);
        const all = resultOf(operator, x, 0, most);
        for (const rows of batches.slice(0, -1)) {
          expect(differingRows(resultOf(operator, x, 0, rows), all, rows), `in a batch of ${rows}`).toEqual([]);
        }
      });
    }
  }

  // Without draws, nor does it depend on the row's place.
  for (const [name, inputs, operator] of [
    ['softmax', 'logits', ofLogits.softmax!],
    ['topKMaskLogits', 'logits', ofLogits.topKMaskLogits!],
    ['topPRenormProbs', 'probs', ofProbs.topPRenormProbs!],
    ['topKRenormProbs', 'probs', ofProbs.topKRenormProbs!],
  ] as const) {
    it(`${name} gives row 150 the same bits wherever it is`, () => {
      using logits = logitsOf(vocab, dtype);
      using x = inputs === 'logits' ? logits.slice(0, 0) : softmax(logits, { temperature: 0.5 }).to(dtype);
      const alone = resultOf(operator, x, 150, 1);
      for (const first of [150, 149, 120]) {
        const found = resultOf(operator, x, first, most - first);
        const size = alone.length;
        expect(found.subarray((150 - first) * size, (151 - first) * size).equals(alone), `from ${first}`).toBe(true);
      }
    });
  }
});

describe.each([32_000, 128_256])('seeds and offsets of rows of %i', (vocab) => {
  const seeds = Array.from({ length: most }, (_, r) => BigInt(1000 + ((r * 37) % 91)));
  const offsets = Array.from({ length: most }, (_, r) => BigInt((r * 17) % 5));
  const int64 = (values: readonly bigint[]) => tensor(BigInt64Array.from(values), { device });
  type Draw = { seed: Tensor | bigint; offset: Tensor | bigint };
  const both = new LogitsPipe([new Softmax(), new TopK(), new TopP(), new Sample()]);
  const samplers: [name: string, isProbs: boolean, call: (x: Tensor, o: Draw) => Tensor][] = [
    ['samplingFromLogits', false, samplingFromLogits],
    ['topKTopPSamplingFromLogits', false, (x, o) => topKTopPSamplingFromLogits(x, 50, 0.9, o)],
    ['LogitsPipe', false, (x, o) => both.run(x, { topK: 50, topP: 0.9, ...o })],
    ['samplingFromProbs', true, samplingFromProbs],
    ['topPSamplingFromProbs', true, (x, o) => topPSamplingFromProbs(x, 0.9, o)],
    ['topKSamplingFromProbs', true, (x, o) => topKSamplingFromProbs(x, 50, o)],
    ['minPSamplingFromProbs', true, (x, o) => minPSamplingFromProbs(x, 0.05, o)],
    ['topKTopPSamplingFromProbs', true, (x, o) => topKTopPSamplingFromProbs(x, 50, 0.9, o)],
  ];
  it.each(samplers)('%s draws a row by its own seed and offset, at any batch size and place', (_, isProbs, call) => {
    using logits = randn([most, vocab], { device, seed: testSeed });
    using x = isProbs ? softmax(logits, { temperature: 0.5 }) : logits.slice(0, 0);
    const tokens = (first: number, rows: number, of: Draw): number[] => {
      using some = x.slice(0, first, first + rows);
      return [...(call(some, of).toArraySync() as Int32Array)];
    };
    const all = tokens(0, most, { seed: int64(seeds), offset: int64(offsets) });
    expect(new Set(all).size).toBeGreaterThan(100);
    for (const [first, rows] of [
      [0, 2],
      [64, 5],
      [120, 61],
    ] as const) {
      const part = (values: readonly bigint[]) => int64(values.slice(first, first + rows));
      const found = tokens(first, rows, { seed: part(seeds), offset: part(offsets) });
      expect(found, `from ${first}, ${rows} rows`).toEqual(all.slice(first, first + rows));
    }
    // One number for all, and a tensor of it, are the same; as is the row's own number in a tensor of all rows'.
    for (const [seed, offset] of [
      [5n, 2n],
      [-3n, 0n],
    ] as const) {
      const whole = tokens(0, 33, { seed, offset });
      expect(tokens(0, 33, { seed: int64([seed]), offset: int64([offset]) })).toEqual(whole);
      expect(tokens(0, 33, { seed, offset: int64(Array(33).fill(offset)) })).toEqual(whole);
    }
    const own = tokens(0, 5, { seed: 5n, offset: int64(offsets.slice(0, 5)) });
    for (let r = 0; r < 5; r++) expect(own[r]).toBe(tokens(0, r + 1, { seed: 5n, offset: offsets[r]! })[r]);
  });
});

it.skipIf(onCuda)('gives the same bits whatever threads there are', () => {
  const { numThreads } = native().cpu.info();
  using logits = randn([33, 32_000], { device, seed: testSeed });
  using probs = softmax(logits);
  const run = () => [
    ...Object.values(ofLogits).map((operator) => resultOf(operator, logits, 0, 33)),
    ...Object.values(ofProbs).map((operator) => resultOf(operator, probs, 0, 33)),
  ];
  const many = run();
  setNumThreads(1);
  try {
    expect(run().every((bytes, i) => bytes.equals(many[i]!))).toBe(true);
  } finally {
    setNumThreads(numThreads);
  }
});
