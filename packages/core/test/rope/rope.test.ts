// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings against the float64 reference, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import {
  applyLlama31Rope,
  applyLlama31RopeInplace,
  applyLlama31RopePosIds,
  applyLlama31RopePosIdsInplace,
  applyRope,
  applyRopeInplace,
  applyRopePosIds,
  applyRopePosIdsInplace,
  applyRopeWithCosSinCache,
  applyRopeWithCosSinCacheInplace,
  setNumThreads,
  type Tensor,
  tensor,
} from '../../src/index.ts';
import { native } from '../../src/native/load.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { testDevice } from '../device.ts';
import { describeOnEachIsa } from '../isas.ts';
import { gridCases } from '../reference/pairwise.ts';
import { uniformSource } from '../reference/random.ts';
import { ropeFrequencies } from '../reference/rope.ts';
import { expectSameValues, held, randomRows } from '../rows.ts';
import { type Angle, angleOf, expectRotated, indices, makeQk, type QkShape } from './ropeCase.ts';

const floats = ['float16', 'bfloat16', 'float32'] as const;
const smoothing = { lowFreqFactor: 1, highFreqFactor: 4, oldContextLen: 8192 };

/** Head and rotary dimensions: whole, parts, odd multiples, an odd head, and the longest. */
const dims = [
  [64, 64],
  [128, 32],
  [128, 96],
  [128, 128],
  [256, 192],
  [80, 80],
  [72, 40],
  [65, 2],
  [576, 64],
  [1056, 1024],
] as const;

/** Boundaries of requests, some of them empty. */
const batches = [
  [0, 1],
  [0, 7],
  [0, 0, 3, 3, 8],
  [0, 19, 40, 41],
] as const;

describeOnEachIsa('rope of requests and of position ids', () => {
  const grid = gridCases({
    dims,
    heads: [
      [32, 8],
      [3, 1],
      [1, 5],
    ] as const,
    batch: batches,
    dtype: floats as readonly DType[],
    layout: ['fused', 0, 1, 8] as const,
    index: ['int32', 'int64'] as const,
    interleave: [false, true],
    inPlace: [false, true],
    positions: ['requests', 'posIds'] as const,
    llama31: [false, true],
    options: [{}, { ropeScale: 2.5, ropeTheta: 7e5 }],
    start: [0, 99, 1_000_000],
  });
  for (const c of grid) {
    it(JSON.stringify(c), () => {
      const [headDim, rotaryDim] = c.dims;
      const tokens = c.batch.at(-1)!;
      const shape: QkShape = { tokens, heads: c.heads, headDim, dtype: c.dtype, layout: c.layout };
      const { q, k, rest } = makeQk(shape);
      const [qValues, kValues, restValues] = [held(q), held(k), rest.map(held)];
      const options = { rotaryDim, interleave: c.interleave, ...c.options };
      const offsets = c.batch.slice(1).map((_, request) => c.start + 17 * request);
      const positions = c.batch.slice(1).flatMap((end, request) => {
        const begin = c.batch[request]!;
        return Array.from({ length: end - begin }, (_, i) => offsets[request]! + i);
      });
      const [qOut, kOut] = c.positions === 'requests' ? rotateRequests() : rotatePosIds();

      const { ropeScale = c.llama31 ? 8 : 1, ropeTheta = c.llama31 ? 5e5 : 1e4 } = c.options;
      const frequencies = ropeFrequencies(rotaryDim, { ropeScale, ropeTheta, ...(c.llama31 ? { smoothing } : {}) });
      const angle = angleOf(positions, frequencies);
      const common = { headDim, rotaryDim, interleave: c.interleave };
      expectRotated(qOut, qValues, { ...common, heads: c.heads[0] }, angle, 'q');
      expectRotated(kOut, kValues, { ...common, heads: c.heads[1] }, angle, 'k');
      for (const [i, x] of rest.entries()) expectSameValues(x, restValues[i]!);
      if (!c.inPlace) expectSameValues(q, qValues);

      function rotateRequests(): [Tensor, Tensor] {
        const args = [q, k, indices(c.batch, c.index), indices(offsets, c.index), options] as const;
        if (!c.inPlace) return (c.llama31 ? applyLlama31Rope : applyRope)(...args);
        expect((c.llama31 ? applyLlama31RopeInplace : applyRopeInplace)(...args)).toBeUndefined();
        return [q, k];
      }

      function rotatePosIds(): [Tensor, Tensor] {
        const args = [q, k, indices(positions, c.index), options] as const;
        if (!c.inPlace) return (c.llama31 ? applyLlama31RopePosIds : applyRopePosIds)(...args);
        expect((c.llama31 ? applyLlama31RopePosIdsInplace : applyRopePosIdsInplace)(...args)).toBeUndefined();
        return [q, k];
      }
    });
  }

  // Frequencies are kept to 49 bits.
  it.each([
    ['of millions', [1_000_000, 999_999, 2 ** 24, -1_000_000], 0],
    ['beyond the integers of float32', [2 ** 24 + 1, 123_456_789, 2 ** 31 - 1, -(2 ** 31)], 2 ** 31 * 2 ** -49],
  ])('keeps its accuracy at positions %s', (_, positions, angleError) => {
    const { q, k } = makeQk({ tokens: 4, heads: [2, 1], headDim: 128, dtype: 'float32', layout: 0 });
    const [qOut] = applyRopePosIds(q, k, indices(positions));
    const angle = angleOf(positions, ropeFrequencies(128, { ropeScale: 1, ropeTheta: 1e4 }));
    const shape = { heads: 2, headDim: 128, rotaryDim: 128, interleave: false };
    expectRotated(qOut, held(q), shape, angle, 'q', angleError);
  });

  it('takes the factors of Llama 3.1', () => {
    const { q, k } = makeQk({ tokens: 5, heads: [2, 1], headDim: 64, dtype: 'float32', layout: 0 });
    const factors = { lowFreqFactor: 1.5, highFreqFactor: 6, oldContextLen: 4096 };
    const [, kOut] = applyLlama31RopePosIds(q, k, indices([0, 1, 50, 4096, 20000]), { ropeScale: 32, ...factors });
    const frequencies = ropeFrequencies(64, { ropeScale: 32, ropeTheta: 5e5, smoothing: factors });
    const angle = angleOf([0, 1, 50, 4096, 20000], frequencies);
    expectRotated(kOut, held(k), { heads: 1, headDim: 64, rotaryDim: 64, interleave: false }, angle, 'k');
  });
});

function tableAngle(table: Tensor, positions: readonly number[], rotaryDim: number): Angle {
  const entries = held(table);
  return (token, d) => {
    const row = positions[token]! * rotaryDim;
    return [entries[row + d]!, entries[row + rotaryDim / 2 + d]!];
  };
}

describeOnEachIsa('rope with a table', () => {
  const rows = 50;
  const grid = gridCases({
    dims,
    heads: [
      [32, 8],
      [3, 1],
      [1, 5],
    ] as const,
    tokens: [1, 9, 41],
    dtype: floats as readonly DType[],
    layout: ['fused', 0, 1, 8] as const,
    flat: [false, true],
    index: ['int32', 'int64'] as const,
    isNeox: [undefined, true, false],
    inPlace: [false, true],
    tablePadding: [0, 1, 4],
  });
  for (const c of grid) {
    // Padded heads cannot be seen as one row.
    const flat = c.flat && (c.layout === 'fused' || c.layout === 0);
    it(JSON.stringify({ ...c, flat }), () => {
      const [headDim, rotaryDim] = c.dims;
      const { q, k, rest } = makeQk({ tokens: c.tokens, heads: c.heads, headDim, dtype: c.dtype, layout: c.layout });
      const [qValues, kValues, restValues] = [held(q), held(k), rest.map(held)];
      const { tensor: table } = randomRows([rows, rotaryDim], 'float32', 5, { padding: c.tablePadding });
      const uniform = uniformSource(6);
      const positions = Array.from({ length: c.tokens }, () => Math.floor(uniform() * rows));
      const [query, key] = flat ? [q.view(c.tokens, -1), k.view(c.tokens, -1)] : [q, k];
      const options = c.isNeox === undefined ? {} : { isNeox: c.isNeox };
      const args = [indices(positions, c.index), query, key, headDim, table, options] as const;
      if (c.inPlace) expect(applyRopeWithCosSinCacheInplace(...args)).toBeUndefined();
      const [qOut, kOut] = c.inPlace ? [query, key] : applyRopeWithCosSinCache(...args);
      expect([qOut.shape, kOut.shape]).toEqual([query.shape, key.shape]);

      const angle = tableAngle(table, positions, rotaryDim);
      const common = { headDim, rotaryDim, interleave: c.isNeox === false };
      expectRotated(qOut, qValues, { ...common, heads: c.heads[0] }, angle, 'q');
      expectRotated(kOut, kValues, { ...common, heads: c.heads[1] }, angle, 'k');
      for (const [i, x] of rest.entries()) expectSameValues(x, restValues[i]!);
    });
  }

  it('marks what has no row of the table with NaN', () => {
    const { q, k } = makeQk({ tokens: 4, heads: [2, 1], headDim: 8, dtype: 'float16', layout: 0 });
    const { tensor: table } = randomRows([3, 4], 'float32', 5);
    const [qOut] = applyRopeWithCosSinCache(indices([-1, 2, 3, 2 ** 31 - 1]), q, k, 8, table);
    const nans = Array.from(held(qOut), Number.isNaN);
    expect(nans).toEqual(nans.map((_, i) => Math.floor(i / 16) !== 1 && i % 8 < 4));
  });
});

describe('rope', () => {
  it.each(floats)('rotates many tokens of %s, where a thread takes several heads', (dtype) => {
    for (const [headDim, rotaryDim, heads, tokens] of [
      [128, 128, [32, 8], 850], // four heads a thread, two with requests
      [40, 40, [6, 2], 6760], // as many, narrower accesses
      [65, 64, [5, 1], 1420], // two
      [65, 64, [5, 2], 1250], // one
    ] as const) {
      const { q, k } = makeQk({ tokens, heads, headDim, dtype, layout: 'fused' });
      const [qValues, kValues] = [held(q), held(k)];
      const expectBoth = (
        found: readonly [Tensor, Tensor],
        positions: readonly number[],
        label: string,
        interleave = false,
      ): void => {
        const angle = angleOf(positions, ropeFrequencies(rotaryDim, { ropeScale: 1, ropeTheta: 1e4 }));
        const common = { headDim, rotaryDim, interleave };
        expectRotated(found[0], qValues, { ...common, heads: heads[0] }, angle, `q ${label}`);
        expectRotated(found[1], kValues, { ...common, heads: heads[1] }, angle, `k ${label}`);
      };
      const upTo = [0, tokens - 500, tokens];
      const inRequests = Array.from({ length: tokens }, (_, i) => (i < upTo[1]! ? i + 7 : i - upTo[1]! + 9));
      expectBoth(applyRope(q, k, indices(upTo), indices([7, 9]), { rotaryDim }), inRequests, 'of requests');
      const positions = Array.from({ length: tokens }, (_, i) => (i * 7919) % 100_003);
      expectBoth(applyRopePosIds(q, k, indices(positions), { rotaryDim }), positions, 'of positions');
      const options = { rotaryDim, interleave: true };
      expectBoth(applyRopePosIds(q, k, indices(positions), options), positions, 'of neighbours', true);
      applyRopePosIdsInplace(q, k, indices(positions), { rotaryDim });
      expectBoth([q, k], positions, 'in place');
    }
  });

  // Blocks ask for what later ones read: token counts around that distance.
  it.each([
    [1585, [32, 8], 128, 128, 'fused', true, true],
    [1584, [32, 8], 128, 128, 0, false, true],
    [2112, [32, 8], 128, 128, 0, true, false],
    [2113, [32, 8], 128, 64, 'fused', false, false],
    [2113, [32, 8], 128, 64, 'fused', true, true],
    [1700, [32, 8], 128, 128, 8, true, true],
    [17_000, [7, 1], 64, 64, 0, false, true],
  ] as const)(
    'rotates %d tokens of %j heads of %d, the first %d elements, %s, in place %s, halves %s',
    (tokens, heads, headDim, rotaryDim, layout, inPlace, isNeox) => {
      const { q, k, rest } = makeQk({ tokens, heads, headDim, dtype: 'bfloat16', layout });
      const [qValues, kValues, restValues] = [held(q), held(k), rest.map(held)];
      const { tensor: table } = randomRows([50, rotaryDim], 'float32', 5);
      const positions = Array.from({ length: tokens }, (_, i) => (i * 7919) % 50);
      const args = [indices(positions), q, k, headDim, table, { isNeox }] as const;
      if (inPlace) applyRopeWithCosSinCacheInplace(...args);
      const [qOut, kOut] = inPlace ? [q, k] : applyRopeWithCosSinCache(...args);
      const angle = tableAngle(table, positions, rotaryDim);
      const common = { headDim, rotaryDim, interleave: !isNeox };
      expectRotated(qOut, qValues, { ...common, heads: heads[0] }, angle, 'q');
      expectRotated(kOut, kValues, { ...common, heads: heads[1] }, angle, 'k');
      for (const [i, x] of rest.entries()) expectSameValues(x, restValues[i]!);
    },
  );

  it('marks many tokens that have no row of the table', () => {
    const { q, k } = makeQk({ tokens: 2200, heads: [30, 2], headDim: 128, dtype: 'bfloat16', layout: 0 });
    const { tensor: table } = randomRows([3, 128], 'float32', 5);
    const outside = (token: number): boolean => token % 3 === 1;
    const positions = Array.from({ length: 2200 }, (_, i) => (outside(i) ? [-1, 3, 2 ** 31 - 1][(i % 4) % 3]! : i % 3));
    applyRopeWithCosSinCacheInplace(indices(positions), q, k, 128, table);
    for (const x of [q, k]) {
      const width = x.shape[1]! * 128;
      expect(held(x).every((value, i) => Number.isNaN(value) === outside(Math.floor(i / width)))).toBe(true);
    }
  });

  it('keeps NaN and infinity in their pair', () => {
    const { q, k } = makeQk({ tokens: 1, heads: [1, 1], headDim: 8, dtype: 'float32', layout: 0 });
    q.view(8)
      .slice(0, 2, 3)
      .copy_(tensor([Number.NaN], { dtype: 'float32', device: testDevice }));
    q.view(8)
      .slice(0, 5, 6)
      .copy_(tensor([Infinity], { dtype: 'float32', device: testDevice }));
    const [qOut] = applyRopePosIds(q, k, indices([3]));
    const finite = Array.from(held(qOut), Number.isFinite);
    expect(finite).toEqual([true, false, false, true, true, false, false, true]);
  });

  it('takes no tokens, and no heads of k', () => {
    const empty = makeQk({ tokens: 0, heads: [2, 1], headDim: 64, dtype: 'float16', layout: 0 });
    expect(applyRopePosIds(empty.q, empty.k, indices([]))[0].shape).toEqual([0, 2, 64]);
    const { q } = makeQk({ tokens: 3, heads: [2, 1], headDim: 64, dtype: 'float16', layout: 0 });
    const k = q.slice(1, 0, 0);
    const [qOut, kOut] = applyRopePosIds(q, k, indices([1, 2, 3]));
    const angle = angleOf([1, 2, 3], ropeFrequencies(64, { ropeScale: 1, ropeTheta: 1e4 }));
    expectRotated(qOut, held(q), { heads: 2, headDim: 64, rotaryDim: 64, interleave: false }, angle, 'q');
    expect(kOut.shape).toEqual([3, 0, 64]);
  });

  it('gives the same bits with and without dependent launches', () => {
    const { q, k } = makeQk({ tokens: 70, heads: [8, 2], headDim: 128, dtype: 'bfloat16', layout: 0 });
    const posIds = indices(Array.from({ length: 70 }, (_, i) => i));
    const first = held(applyRopePosIds(q, k, posIds)[0]);
    for (const enablePdl of [true, false]) expectSameValues(applyRopePosIds(q, k, posIds, { enablePdl })[0], first);
  });

  it.runIf(testDevice === 'cpu')('gives the same bits whatever threads there are', () => {
    const { q, k } = makeQk({ tokens: 300, heads: [8, 2], headDim: 64, dtype: 'bfloat16', layout: 0 });
    const posIds = indices(Array.from({ length: 300 }, (_, i) => i));
    const { numThreads } = native().cpu.info();
    const many = held(applyRopePosIds(q, k, posIds)[0]);
    setNumThreads(1);
    expectSameValues(applyRopePosIds(q, k, posIds)[0], many);
    setNumThreads(numThreads);
  });
});
