// SPDX-License-Identifier: Apache-2.0
// Appends to paged caches against their definition, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import { appendPagedKVCache, appendPagedMlaKVCache, cuda, full, type Tensor, tensor } from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { onCuda, testDevice } from '../device.ts';
import { gridCases } from '../reference/pairwise.ts';
import { uniformSource } from '../reference/random.ts';
import { expectSameValues, held, randomRows } from '../rows.ts';

const dtypes = ['float16', 'bfloat16', 'float32', 'float8_e4m3fn', 'float8_e5m2'] as const;

interface Batch {
  readonly kvIndices: number[];
  readonly kvIndptr: number[];
  readonly kvLastPageLen: number[];
  readonly batchIndices: number[];
  readonly positions: number[];
  readonly numPages: number;
}

/** Requests with some tokens already there, their pages in random order, and padding between the tokens. */
function drawBatch(lengths: readonly [there: number, added: number][], pageSize: number, stream: number): Batch {
  const uniform = uniformSource(stream);
  const counts = lengths.map(([there, added]) => Math.ceil((there + added) / pageSize));
  const used = counts.reduce((a, b) => a + b, 0);
  const numPages = used + 3;
  const free = Array.from({ length: numPages }, (_, page) => page);
  const kvIndices = Array.from({ length: used }, () => free.splice(Math.floor(uniform() * free.length), 1)[0]!);
  const kvIndptr = [0];
  for (const count of counts) kvIndptr.push(kvIndptr.at(-1)! + count);
  const kvLastPageLen = lengths.map(([there, added], r) => there + added - Math.max(0, counts[r]! - 1) * pageSize);
  const rows = lengths.flatMap(([there, added], r) =>
    Array.from({ length: added }, (_, i) => [r, there + i] as const).concat(r % 2 === 0 ? [[-1, 0]] : []),
  );
  const [batchIndices, positions] = [rows.map(([r]) => r), rows.map(([, position]) => position)];
  return { kvIndices, kvIndptr, kvLastPageLen, batchIndices, positions, numPages };
}

/** Copies rows `[nnz, heads, dim]` into `[numPages, pageSize, heads, dim]` values. */
function appended(
  cache: Float64Array,
  rows: Float64Array,
  width: number,
  pageSize: number,
  batch: Batch,
): Float64Array {
  const out = cache.slice();
  batch.batchIndices.forEach((request, i) => {
    if (request < 0) return;
    const position = batch.positions[i]!;
    const page = batch.kvIndices[batch.kvIndptr[request]! + Math.floor(position / pageSize)]!;
    out.set(rows.subarray(i * width, (i + 1) * width), (page * pageSize + (position % pageSize)) * width);
  });
  return out;
}

const indices = (values: readonly number[]): Tensor => tensor([...values], { dtype: 'int32', device: testDevice });

/** Every array on the host, as a tensor, or some of each. */
function given(batch: Batch, where: 'host' | 'device' | 'mixed') {
  const place = (values: readonly number[], device: boolean) => (device ? indices(values) : [...values]);
  return {
    batchIndices: where === 'host' ? Int32Array.from(batch.batchIndices) : indices(batch.batchIndices),
    positions: place(batch.positions, where !== 'host'),
    kvIndices: place(batch.kvIndices, where === 'device'),
    kvIndptr: place(batch.kvIndptr, where === 'device'),
    ...(where === 'mixed' ? {} : { kvLastPageLen: place(batch.kvLastPageLen, where === 'device') }),
  };
}

const some: [number, number][] = [
  [0, 1],
  [45, 8],
  [3, 0],
  [0, 25],
  [15, 22],
];
const one: [number, number][] = [
  [0, 1],
  [16, 1],
  [99, 1],
];

describe('appendPagedKVCache', () => {
  const grid = gridCases({
    lengths: [some, one],
    pageSize: [1, 5, 16, 64],
    heads: [1, 3, 8],
    headDim: [64, 128, 256, 24, 1],
    headDimVo: ['same', 'other'] as const,
    dtype: dtypes,
    kvLayout: [undefined, 'NHD', 'HND'] as const,
    pair: [false, true],
    pagePadding: [0, 1],
    rowPadding: [0, 1, 16],
    where: ['host', 'device', 'mixed'] as const,
  });
  for (const c of grid) {
    const headDimVo = c.pair && c.headDimVo === 'other' ? Math.ceil(c.headDim / 2) : c.headDim;
    it(JSON.stringify({ ...c, headDimVo }), () => {
      const batch = drawBatch(c.lengths, c.pageSize, 9);
      const nnz = batch.positions.length;
      const { heads, headDim, dtype, pageSize } = c;
      const { tensor: k } = randomRows([nnz, heads, headDim], dtype, 0, { padding: c.rowPadding });
      const { tensor: v } = randomRows([nnz, heads, headDimVo], dtype, 1, { padding: c.rowPadding });
      const hnd = c.kvLayout === 'HND';
      const page = (dim: number): number[] => (hnd ? [heads, pageSize, dim] : [pageSize, heads, dim]);
      // Pages of another cache between, as where layers share one buffer.
      const storage = (shape: number[]): Tensor =>
        randomRows([batch.numPages, 1 + c.pagePadding, ...shape], dtype, shape.length).tensor;
      const buffers = c.pair ? [storage(page(headDim)), storage(page(headDimVo))] : [storage([2, ...page(headDim)])];
      const caches = buffers.map((buffer) => buffer.select(1, 0));
      const others = c.pagePadding === 0 ? [] : buffers.map((buffer) => buffer.select(1, 1));
      const before = others.map(held);
      const halves = c.pair ? caches : [caches[0]!.select(1, 0), caches[0]!.select(1, 1)];
      const nhd = halves.map((x) => (hnd ? x.transpose(1, 2) : x));
      const expected = [
        appended(held(nhd[0]!), held(k), heads * headDim, pageSize, batch),
        appended(held(nhd[1]!), held(v), heads * headDimVo, pageSize, batch),
      ];

      const pagedKVCache = c.pair ? ([caches[0]!, caches[1]!] as const) : caches[0]!;
      const layout = c.kvLayout === undefined ? {} : { kvLayout: c.kvLayout };
      expect(appendPagedKVCache(k, v, { ...given(batch, c.where), pagedKVCache, ...layout })).toBeUndefined();
      expectSameValues(nhd[0]!, expected[0]!);
      expectSameValues(nhd[1]!, expected[1]!);
      for (const [i, other] of others.entries()) expectSameValues(other, before[i]!);
    });
  }

  it('appends more tokens than run at once, as slices of the output of one projection', () => {
    const batch = drawBatch(
      [
        [0, 3000],
        [7, 1],
        [100, 2333],
      ],
      16,
      3,
    );
    const nnz = batch.positions.length;
    const qkv = randomRows([nnz, 24, 128], 'bfloat16', 0).tensor;
    const [k, v] = [qkv.slice(1, 8, 16), qkv.slice(1, 16, 24)];
    const pagedKVCache = full([batch.numPages, 2, 16, 8, 128], Number.NaN, { dtype: 'bfloat16', device: testDevice });
    const poisoned = held(pagedKVCache.select(1, 0));
    appendPagedKVCache(k, v, { ...given(batch, 'device'), pagedKVCache });
    expectSameValues(pagedKVCache.select(1, 0), appended(poisoned, held(k), 8 * 128, 16, batch));
    expectSameValues(pagedKVCache.select(1, 1), appended(poisoned, held(v), 8 * 128, 16, batch));
  });

  // Blocks ask for what later ones read: token counts around a block's tokens and that distance, many and few tokens a
  // block, heads apart; whole tokens of idle threads, of several blocks, and of both.
  it.each([
    [2111, 8, 128, 0],
    [2904, 8, 128, 0],
    [2904, 8, 128, 8],
    [2903, 8, 128, 1],
    [33_823, 1, 64, 0],
    [2501, 7, 128, 0],
    [2501, 13, 64, 0],
    [1900, 9, 128, 0],
    [601, 32, 128, 0],
    [301, 65, 128, 0],
    [301, 65, 128, 1],
  ])('appends %d tokens of %d heads of %d, %d elements between heads', (added, heads, dim, padding) => {
    const second = Math.min(1800, added >> 1);
    const batch = drawBatch(
      [
        [5, added - second],
        [77, second],
      ],
      16,
      7,
    );
    const nnz = batch.positions.length;
    const [k, v] = [0, 1].map((stream) => randomRows([nnz, heads, dim], 'bfloat16', stream, { padding }).tensor);
    const shape = [batch.numPages, 2, 16, heads, dim];
    const pagedKVCache = full(shape, Number.NaN, { dtype: 'bfloat16', device: testDevice });
    const poisoned = held(pagedKVCache.select(1, 0));
    appendPagedKVCache(k!, v!, { ...given(batch, 'device'), pagedKVCache });
    for (const [i, x] of [k!, v!].entries()) {
      expectSameValues(pagedKVCache.select(1, i), appended(poisoned, held(x), heads * dim, 16, batch));
    }
  });

  it('takes no tokens, and batches without requests', () => {
    const pagedKVCache = randomRows([2, 2, 16, 1, 64], 'float16', 0).tensor;
    const before = held(pagedKVCache);
    const none = randomRows([0, 1, 64], 'float16', 0).tensor;
    const table = { kvIndices: [], kvIndptr: [0] };
    appendPagedKVCache(none, none, { ...table, batchIndices: [], positions: [], pagedKVCache });
    const x = randomRows([2, 1, 64], 'float16', 0).tensor;
    appendPagedKVCache(x, x, { ...table, batchIndices: [-1, -1], positions: [0, -5], pagedKVCache });
    expectSameValues(pagedKVCache, before);
  });

  it.runIf(onCuda).each([1, 12])(
    'skips what leads out of the cache, %d heads (needs FLASHINFER_TEST_DEVICE=cuda:0)',
    (heads) => {
      const pagedKVCache = randomRows([2, 2, 16, heads, 64], 'float16', 0).tensor;
      const before = held(pagedKVCache);
      const x = randomRows([8, heads, 64], 'float16', 0).tensor;
      const batchIndices = indices([-1, 2, -(2 ** 31), 0, 0, 1, 1, 2 ** 31 - 1]);
      const positions = indices([0, 0, 0, -1, 16, 0, 2 ** 31 - 1, 0]);
      const table = { kvIndices: indices([0, 2]), kvIndptr: indices([0, 1, 2]) };
      appendPagedKVCache(x, x, { ...table, batchIndices, positions, pagedKVCache });
      expectSameValues(pagedKVCache, before);
    },
  );

  it.runIf(onCuda)('replays in a graph with other positions (needs FLASHINFER_TEST_DEVICE=cuda:0)', () => {
    const pagedKVCache = full([3, 2, 4, 2, 64], 0, { dtype: 'float16', device: testDevice });
    const [k, v] = [0, 1].map((stream) => randomRows([2, 2, 64], 'float16', stream).tensor) as [Tensor, Tensor];
    const batch = { kvIndices: [2, 0, 1], kvIndptr: [0, 2, 3], kvLastPageLen: [1, 1], numPages: 3 };
    const [batchIndices, positions] = [indices([0, 1]), indices([0, 0])];
    const table = { kvIndices: indices(batch.kvIndices), kvIndptr: indices(batch.kvIndptr) };
    const append = (): void => appendPagedKVCache(k, v, { ...table, batchIndices, positions, pagedKVCache });
    append();
    let expected = held(pagedKVCache.select(1, 0));
    using stream = new cuda.Stream({ device: testDevice });
    cuda.synchronizeSync();
    const graph = cuda.capture(stream, () => cuda.withStream(stream, append));
    for (const next of [
      [7, 3],
      [2, -1],
    ]) {
      const requests = next.map((position, r) => (position < 0 ? -1 : r));
      positions.copy_(indices(next));
      batchIndices.copy_(indices(requests));
      cuda.synchronizeSync();
      graph.launch(stream);
      cuda.synchronizeSync();
      expected = appended(expected, held(k), 128, 4, { ...batch, batchIndices: requests, positions: next });
      expectSameValues(pagedKVCache.select(1, 0), expected);
    }
    graph.dispose();
  });
});

describe('appendPagedMlaKVCache', () => {
  it('appends more tokens than run at once, of an odd number of accesses', () => {
    const batch = drawBatch(
      [
        [3, 700],
        [0, 401],
      ],
      16,
      4,
    );
    const nnz = batch.positions.length;
    const [ckv, kpe] = [randomRows([nnz, 512], 'bfloat16', 0).tensor, randomRows([nnz, 1], 'bfloat16', 1).tensor];
    const ckvCache = randomRows([batch.numPages, 16, 512], 'bfloat16', 2).tensor;
    const kpeCache = randomRows([batch.numPages, 16, 1], 'bfloat16', 3).tensor;
    const expected = [
      appended(held(ckvCache), held(ckv), 512, 16, batch),
      appended(held(kpeCache), held(kpe), 1, 16, batch),
    ];
    appendPagedMlaKVCache(ckv, kpe, { ...given(batch, 'device'), ckvCache, kpeCache });
    expectSameValues(ckvCache, expected[0]!);
    expectSameValues(kpeCache, expected[1]!);
  });

  const grid = gridCases({
    lengths: [some, one],
    pageSize: [1, 16, 64],
    dims: [
      [512, 64],
      [576, 1],
      [3, 40],
    ] as const,
    dtype: dtypes as readonly DType[],
    padding: [0, 1, 8],
    where: ['host', 'device', 'mixed'] as const,
  });
  for (const c of grid) {
    it(JSON.stringify(c), () => {
      const batch = drawBatch(c.lengths, c.pageSize, 5);
      const make = (shape: number[], stream: number): Tensor =>
        randomRows(shape, c.dtype, stream, { padding: c.padding }).tensor;
      const [ckv, kpe] = [make([batch.positions.length, c.dims[0]], 0), make([batch.positions.length, c.dims[1]], 1)];
      const ckvCache = make([batch.numPages, c.pageSize, c.dims[0]], 2);
      const kpeCache = make([batch.numPages, c.pageSize, c.dims[1]], 3);
      const expected = [
        appended(held(ckvCache), held(ckv), c.dims[0], c.pageSize, batch),
        appended(held(kpeCache), held(kpe), c.dims[1], c.pageSize, batch),
      ];
      appendPagedMlaKVCache(ckv, kpe, { ...given(batch, c.where), ckvCache, kpeCache });
      expectSameValues(ckvCache, expected[0]!);
      expectSameValues(kpeCache, expected[1]!);
    });
  }
});
