// SPDX-License-Identifier: Apache-2.0
// topK against a full sort, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import { cuda, setNumThreads, type Tensor, type TopKOptions, tensor, topK, zeros } from '../../src/index.ts';
import { native } from '../../src/native/load.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { onCuda, testDevice } from '../device.ts';
import { describeOnEachIsa } from '../isas.ts';
import { gridCases } from '../reference/pairwise.ts';
import { normalArray, testSeed, uniformSource } from '../reference/random.ts';
import { topKReference } from '../reference/topk.ts';
import { held, paddedRows } from '../rows.ts';
import { expectThrows } from '../thrownBy.ts';

const floats = ['float32', 'float16', 'bfloat16'] as const;

/** Rows that are easy or hard to guess a threshold of. */
const distributions = {
  normal: (count: number) => normalArray(count, 1, 3),
  constant: (count: number) => new Float32Array(count).fill(1.5),
  ascending: (count: number) => Float32Array.from({ length: count }, (_, i) => i),
  /** All but some are masked out. */
  masked: (count: number) => normalArray(count, 2).map((value, i) => (i % 50 === 7 ? value : -Infinity)),
  coarse: (count: number) => normalArray(count, 3).map((value) => Math.round(2 * value)),
  /** Large values where evenly spread samples of 8, 16 or 32 elements seldom look. */
  clustered: (count: number) =>
    normalArray(count, 4).map((value, i) => (i % 997 > 300 && i % 997 < 420 ? value + 9 : value)),
  oneHot: (count: number) => new Float32Array(count).fill(0).map((_, i) => (i % 4001 === 11 ? 1 : 0)),
};
type Distribution = keyof typeof distributions;

function expectTopK(x: Tensor, k: number, options: TopKOptions, label: string): void {
  const [values, indices] = topK(x, k, options);
  const [rows, length] = x.shape as [number, number];
  expect([values.dtype, indices.dtype, values.shape, indices.shape]).toEqual([x.dtype, 'int32', [rows, k], [rows, k]]);
  const [row, found, foundValues] = [held(x), indices.toArraySync() as Int32Array, held(values)];
  const order = { sorted: options.sorted === true, tieLarge: options.tieBreak === 'large' };
  for (let r = 0; r < rows; ++r) {
    const data = row.subarray(r * length, (r + 1) * length);
    const expected = topKReference(data, k, order);
    for (let i = 0; i < k; ++i) {
      const [index, value] = [found[r * k + i], foundValues[r * k + i]];
      if (index === expected[i] && Object.is(value, data[index!])) continue;
      throw new Error(
        `[seed ${testSeed}] ${label}: row ${r}, place ${i}: ${value} at ${index}; ` +
          `expected ${data[expected[i]!]} at ${expected[i]}`,
      );
    }
  }
}

function make(distribution: Distribution, rows: number, length: number, dtype: DType, padding = 0): Tensor {
  return paddedRows(distributions[distribution](rows * length), [rows, length], dtype, padding).tensor;
}

describeOnEachIsa('topK', () => {
  const cases = gridCases(
    {
      rows: [1, 3, 40],
      length: [1, 17, 1000, 6144, 6145, 32_000, 32_001, 50_272],
      k: [1, 10, 100, 256, 2048],
      dtype: floats,
      distribution: ['normal', 'masked', 'coarse', 'clustered'] as const,
      sorted: [false, true],
      tieBreak: [undefined, 'none', 'small', 'large'] as const,
      padding: [0, 1, 8],
    },
    ({ k, length, rows }) => k <= length && rows * length < 1_000_000,
  );
  for (const { rows, length, k, dtype, distribution, sorted, tieBreak, padding } of cases) {
    const label = JSON.stringify({ rows, length, k, dtype, distribution, sorted, tieBreak, padding });
    it(label, () => expectTopK(make(distribution, rows, length, dtype, padding), k, { sorted, tieBreak }, label));
  }

  const hard = gridCases({
    distribution: Object.keys(distributions) as Distribution[],
    dtype: floats,
    rows: [1, 5],
    k: [40, 3000],
    sorted: [false, true],
    tieBreak: ['small', 'large'] as const,
  });
  for (const { distribution, dtype, rows, k, sorted, tieBreak } of hard) {
    const label = JSON.stringify({ distribution, dtype, rows, k, sorted, tieBreak });
    it(`a vocabulary: ${label}`, () =>
      expectTopK(make(distribution, rows, 128_256, dtype), k, { sorted, tieBreak }, label));
  }

  it.each([
    [2, 20_000, 20_000],
    [1, 40_000, 15_001],
    [3, 128_256, 60_000],
    [1, 3, 3],
  ])('takes any k: %i rows of %i, k %i', (rows, length, k) => {
    for (const sorted of [false, true]) expectTopK(make('normal', rows, length, 'float32'), k, { sorted }, `k ${k}`);
  });

  it('counts NaN as the largest, -0 as 0 and -Infinity as the least, and keeps their bits', () => {
    const uniform = uniformSource(9);
    const special = [Number.NaN, -0, 0, -Infinity, Infinity, 1e-40, -1e-40, 2, -2];
    for (const dtype of floats) {
      for (const length of [9, 40, 20_000]) {
        const values = Float32Array.from({ length }, () => special[Math.floor(uniform() * special.length)]!);
        const x = tensor(values, { shape: [1, length], dtype, device: testDevice });
        for (const k of [1, Math.ceil(length / 3), length])
          for (const tieBreak of ['small', 'large'] as const) expectTopK(x, k, { sorted: true, tieBreak }, dtype);
      }
    }
  });

  it('does nothing for no rows', () => {
    const [values, indices] = topK(zeros([0, 8], { device: testDevice }), 3);
    expect([values.shape, indices.shape]).toEqual([
      [0, 3],
      [0, 3],
    ]);
  });

  it('is deterministic whatever is said', () => {
    const x = make('coarse', 3, 8000, 'bfloat16');
    const indices = topK(x, 77)[1].toArraySync();
    for (const deterministic of [true, false]) {
      expect(topK(x, 77, { deterministic })[1].toArraySync()).toEqual(indices);
    }
    const wrong = { deterministic: 1 } as object;
    expectThrows(() => topK(x, 77, wrong), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'deterministic is 1', 'true or false');
    expectThrows(() => topK(x, x as never), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'k is a Tensor; expected an integer');
  });

  it('gives a row the same result at any batch size', () => {
    const x = make('coarse', 300, 8000, 'bfloat16');
    const all = topK(x, 77)[1].toArraySync() as Int32Array;
    for (const rows of [1, 20]) {
      const some = topK(x.slice(0, 100, 100 + rows), 77)[1].toArraySync() as Int32Array;
      expect(some).toEqual(all.subarray(7700, 7700 + 77 * rows));
    }
  });

  it.runIf(onCuda)('can be captured (needs FLASHINFER_TEST_DEVICE=cuda:0)', () => {
    const x = make('normal', 2, 32_000, 'float32');
    topK(x, 100, { sorted: true });
    let indices: Tensor | undefined;
    const stream = new cuda.Stream();
    const graph = cuda.capture(stream, () => {
      indices = topK(x, 100, { sorted: true })[1];
    });
    for (let n = 0; n < 3; ++n) {
      x.copy_(make(n === 0 ? 'normal' : 'clustered', 2, 32_000, 'float32'));
      cuda.synchronizeSync();
      graph.launch(stream);
      stream.synchronizeSync();
      expect(indices!.toArraySync()).toEqual(topK(x, 100, { sorted: true })[1].toArraySync());
    }
  });
});

it.runIf(!onCuda)('gives the same result whatever threads there are', () => {
  const x = make('normal', 1, 128_256, 'float32');
  const { numThreads } = native().cpu.info();
  const many = topK(x, 500)[1].toArraySync();
  setNumThreads(1);
  expect(topK(x, 500)[1].toArraySync()).toEqual(many);
  setNumThreads(numThreads);
});

describe('topK refuses', () => {
  const x = zeros([2, 8], { device: testDevice });

  it('wrong tensors', () => {
    expectThrows(() => topK(undefined as never, 1), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'topK: x is undefined');
    expectThrows(() => topK(zeros([8], { device: testDevice }), 1), 'ERR_FLASHINFER_INVALID_RANK', 'x has rank 1');
    const integers = zeros([2, 8], { dtype: 'int32', device: testDevice });
    expectThrows(() => topK(integers, 1), 'ERR_FLASHINFER_INVALID_DTYPE', 'x has dtype int32', 'float32 or float16');
    expectThrows(() => topK(x.transpose(0, 1), 1), 'ERR_FLASHINFER_NON_CONTIGUOUS', 'topK: x');
    const disposed = zeros([2, 8], { device: testDevice });
    disposed.dispose();
    expectThrows(() => topK(disposed, 1), 'ERR_FLASHINFER_DISPOSED', 'topK: x');
  });

  it.each([0, 9, 1.5, Number.NaN, -1, '3'])('k = %s', (k) => {
    const expected = ['topK: k is', 'an integer from 1 to length=8'];
    expectThrows(() => topK(x, k as number), 'ERR_FLASHINFER_INVALID_ARGUMENT', ...expected);
  });

  it('wrong options', () => {
    const wrong = (options: object) => () => topK(x, 1, options);
    expectThrows(wrong({ sorted: 1 }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'sorted is 1', 'true or false');
    expectThrows(wrong({ tieBreak: 'first' }), 'ERR_FLASHINFER_INVALID_ARGUMENT', "'first'", "'none' or 'small'");
    expectThrows(wrong({ order: 1 }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'option order is unknown', 'sorted, tieBreak');
  });
});
