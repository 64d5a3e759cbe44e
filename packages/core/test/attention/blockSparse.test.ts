// SPDX-License-Identifier: Apache-2.0
// The block sparse wrappers against the float64 reference under the dense mask that the blocks stand for.
import { afterEach, describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { testDevice } from '../device.ts';
import { type AttentionReference, type AttentionReferenceOptions, attentionReference } from '../reference/attention.ts';
import { attentionTolerance, expectClose, expectLseClose } from '../reference/compare.ts';
import { gridCases } from '../reference/pairwise.ts';
import { normalArray, testSeed, uniformSource } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';
import { deviceTensor, heldValues, poisoned } from './attentionCase.ts';

const disposables: { dispose(): void }[] = [];
afterEach(() => {
  for (const each of disposables.splice(0)) each.dispose();
});
const kept = <T extends { dispose(): void }>(x: T): T => {
  disposables.push(x);
  return x;
};

type Dtype = 'float16' | 'bfloat16';

interface Bsr {
  readonly indptr: number[];
  readonly indices: number[];
}

/** Rows of blocks in any order, with the given density; some are empty. */
function randomBsr(rows: number, columns: number, density: number, stream: number): Bsr {
  const uniform = uniformSource(stream);
  const [indptr, indices]: [number[], number[]] = [[0], []];
  for (let r = 0; r < rows; ++r) {
    const row = Array.from({ length: columns }, (_, j) => j).filter(() => uniform() < density);
    if (r % 5 === 3) row.length = 0;
    if (r % 2 === 1) row.reverse();
    indices.push(...row);
    indptr.push(indices.length);
  }
  return { indptr, indices };
}

interface BsrCase {
  readonly M: number;
  readonly N: number;
  readonly R: number;
  readonly C: number;
  readonly heads: readonly [number, number];
  readonly headDim: number;
  readonly dtype: Dtype;
  readonly density?: number;
  readonly causal?: boolean;
  readonly mask?: 'mask' | 'packed' | 'booleans' | undefined;
  readonly options?: Pick<AttentionReferenceOptions, 'logitsSoftCap' | 'smScale'>;
  readonly bsr?: Bsr;
}

/** `[M, N]`; `inside` holds the masks of blocks. */
function denseMask({ M, N, R, C, causal }: BsrCase, { indptr, indices }: Bsr, inside?: Uint8Array): Uint8Array {
  const dense = new Uint8Array(M * N);
  for (let r = 0; r < M / R; ++r) {
    for (let block = indptr[r]!; block < indptr[r + 1]!; ++block) {
      for (let i = 0; i < R; ++i) {
        for (let j = 0; j < C; ++j) {
          const [row, column] = [r * R + i, indices[block]! * C + j];
          const visible = inside === undefined || inside[(block * R + i) * C + j] === 1;
          if (visible && (causal !== true || column <= row + N - M)) dense[row * N + column] = 1;
        }
      }
    }
  }
  return dense;
}

/** The bits of each row of blocks, `[R, blocks * C]`, from a byte of its own. */
function packRows({ M, R, C }: BsrCase, { indptr }: Bsr, inside: Uint8Array): Uint8Array {
  const bytes: number[] = [];
  for (let r = 0; r < M / R; ++r) {
    const bits: number[] = [];
    for (let i = 0; i < R; ++i) {
      for (let block = indptr[r]!; block < indptr[r + 1]!; ++block) {
        bits.push(...inside.subarray((block * R + i) * C, (block * R + i + 1) * C));
      }
    }
    for (let b = 0; b < bits.length; b += 8)
      bytes.push(bits.slice(b, b + 8).reduce((sum, bit, i) => sum | (bit << i), 0));
  }
  return Uint8Array.from(bytes);
}

function expectResult(
  label: string,
  out: flashinfer.Tensor,
  lse: flashinfer.Tensor,
  reference: AttentionReference,
  dtype: Dtype,
  headDim: number,
): void {
  const tolerance = attentionTolerance(dtype);
  expectClose(heldValues(out), reference.out, headDim, tolerance, `[seed ${testSeed}] ${label} out`);
  expectLseClose(heldValues(lse), reference.lse, tolerance, `[seed ${testSeed}] ${label} lse`);
}

function runBsr(c: BsrCase): void {
  const { M, N, R, C, heads, headDim, dtype, options = {} } = c;
  const [numQoHeads, numKvHeads] = heads;
  const bsr = c.bsr ?? randomBsr(M / R, N / C, c.density ?? 0.4, 7);
  const uniform = uniformSource(8);
  const inside = c.mask && Uint8Array.from({ length: bsr.indices.length * R * C }, () => (uniform() < 0.6 ? 1 : 0));
  const q = deviceTensor(normalArray(M * numQoHeads * headDim, 0), [M, numQoHeads, headDim], dtype);
  const [k, v] = [1, 2].map((stream) =>
    deviceTensor(normalArray(N * numKvHeads * headDim, stream), [N, numKvHeads, headDim], dtype),
  ) as [flashinfer.Tensor, flashinfer.Tensor];
  const wrapper = kept(new flashinfer.BlockSparseAttentionWrapper({ device: testDevice }));
  wrapper.plan({
    ...bsr,
    M,
    N,
    R,
    C,
    numQoHeads,
    numKvHeads,
    headDimQk: headDim,
    qDtype: dtype,
    ...(c.causal !== undefined && { causal: c.causal }),
    ...(c.mask === 'mask' && { mask: inside! }),
    ...(c.mask === 'booleans' && { mask: Array.from(inside!, (bit) => bit === 1) }),
    ...(c.mask === 'packed' && { packedMask: packRows(c, bsr, inside!) }),
    ...options,
  });
  const out = poisoned(q.shape, dtype);
  const [result, lse] = wrapper.run(q, k, v, { out, returnLse: true });
  expect(result).toBe(out);
  const reference = attentionReference(
    { qoLen: M, kvLen: N, numQoHeads, numKvHeads, headDimQk: headDim },
    { q: heldValues(q), k: heldValues(k), v: heldValues(v) },
    { ...options, customMask: denseMask(c, bsr, inside) },
  );
  expectResult('sparse', out, lse, reference, dtype, headDim);
}

describe('BlockSparseAttentionWrapper', () => {
  const grid = gridCases(
    {
      R: [1, 4, 16, 3],
      C: [1, 4, 16, 6],
      M: [48, 144],
      N: [96, 240],
      heads: [
        [1, 1],
        [4, 4],
        [8, 2],
        [16, 1],
      ] as const,
      headDim: [64, 128, 256],
      dtype: ['float16', 'bfloat16'] as const,
      mask: [undefined, 'mask', 'packed', 'booleans'] as const,
      causal: [undefined, true],
    },
    ({ mask, causal }) => mask === undefined || causal === undefined,
  );
  it.each(grid.map((c) => [JSON.stringify(c), c] as const))('%s', (_, c) => runBsr(c));

  const base = { heads: [8, 2], headDim: 128, dtype: 'float16' } as const;
  const lower = (rows: number): Bsr => {
    const indices = Array.from({ length: rows }, (_r, r) => Array.from({ length: r + 1 }, (_c, j) => j));
    return { indptr: [0, ...indices.map((_, r) => ((r + 1) * (r + 2)) / 2)], indices: indices.flat() };
  };
  it('soft cap and smScale', () => {
    runBsr({ ...base, M: 64, N: 64, R: 8, C: 8, options: { logitsSoftCap: 20, smScale: 0.3 } });
  });
  it('causal where blocks end on the diagonal', () => {
    runBsr({ ...base, M: 128, N: 128, R: 16, C: 16, causal: true, bsr: lower(8) });
  });
  it('causal over more keys than rows, and more rows than keys', () => {
    runBsr({ ...base, M: 32, N: 128, R: 8, C: 16, causal: true, density: 0.8 });
    runBsr({ ...base, M: 128, N: 32, R: 16, C: 8, causal: true, density: 0.8 });
  });
  it('long rows', () => {
    runBsr({ ...base, heads: [2, 1], headDim: 64, M: 256, N: 4096, R: 64, C: 128, density: 0.5 });
  });
  it('no block at all, and every block', () => {
    runBsr({ ...base, M: 32, N: 32, R: 4, C: 4, density: 0 });
    runBsr({ ...base, M: 30, N: 45, R: 3, C: 5, density: 1.1 });
  });

  it('counts positions by the listed keys', () => {
    const [M, N, R, C, dim] = [16, 64, 8, 8, 64];
    const bsr = { indptr: [0, 3, 5], indices: [5, 0, 2, 7, 1] };
    const [q, k, v] = [M, N, N].map((rows, stream) =>
      deviceTensor(normalArray(rows * 4 * dim, stream), [rows, 4, dim], 'float16'),
    ) as [flashinfer.Tensor, flashinfer.Tensor, flashinfer.Tensor];
    for (const posEncodingMode of ['ROPE_LLAMA', 'ALIBI'] as const) {
      const wrapper = kept(new flashinfer.BlockSparseAttentionWrapper({ device: testDevice }));
      wrapper.plan({ ...bsr, M, N, R, C, numQoHeads: 4, numKvHeads: 4, headDimQk: dim, posEncodingMode });
      const [out, lse] = wrapper.run(q, k, v, { returnLse: true });
      for (const r of [0, 1]) {
        const blocks = bsr.indices.slice(bsr.indptr[r], bsr.indptr[r + 1]);
        const gather = (x: flashinfer.Tensor) =>
          Float64Array.from(blocks.flatMap((j) => [...heldValues(x.slice(0, j * C, (j + 1) * C).contiguous())]));
        const reference = attentionReference(
          { qoLen: R, kvLen: blocks.length * C, numQoHeads: 4, numKvHeads: 4, headDimQk: dim },
          { q: heldValues(q.slice(0, r * R, (r + 1) * R).contiguous()), k: gather(k), v: gather(v) },
          { posEncodingMode },
        );
        const tolerance = attentionTolerance('float16', { maxRopePosition: 64 });
        const part = (x: flashinfer.Tensor) => heldValues(x.slice(0, r * R, (r + 1) * R).contiguous());
        expectClose(part(out), reference.out, dim, tolerance, posEncodingMode);
        expectLseClose(part(lse), reference.lse, tolerance, posEncodingMode);
      }
    }
  });

  it('takes headDim as a name, strided inputs, scales, and new plans', () => {
    const wrapper = kept(new flashinfer.BlockSparseAttentionWrapper({ device: testDevice }));
    for (const [M, N] of [
      [64, 32],
      [16, 96],
    ] as const) {
      const bsr = randomBsr(M / 8, N / 8, 0.6, 3);
      const wide = deviceTensor(normalArray(M * 16 * 64, 0), [M, 16, 64], 'float16');
      const out = poisoned([M, 16, 64], 'float16').slice(1, 8, 16);
      const kv = deviceTensor(normalArray(N * 4 * 64, 1), [N, 4, 64], 'float16');
      const q = wide.slice(1, 0, 8);
      const [k, v] = [kv.slice(1, 0, 2), kv.slice(1, 2, 4)];
      wrapper.plan({ ...bsr, M, N, R: 8, C: 8, numQoHeads: 8, numKvHeads: 2, headDim: 64 });
      const [, lse] = wrapper.run(q, k, v, { out, returnLse: true, vScale: 2, qScale: 0.5 });
      const reference = attentionReference(
        { qoLen: M, kvLen: N, numQoHeads: 8, numKvHeads: 2, headDimQk: 64 },
        { q: heldValues(q), k: heldValues(k), v: heldValues(v) },
        {
          customMask: denseMask({ M, N, R: 8, C: 8, heads: [8, 2], headDim: 64, dtype: 'float16' }, bsr),
          vScale: 2,
          qScale: 0.5,
        },
      );
      expectResult('strided', out, lse, reference, 'float16', 64);
    }
  });
});

interface VariableCase {
  readonly rowSizes: readonly (readonly number[])[];
  readonly columnSizes: readonly (readonly number[])[];
  readonly numQoHeads: number;
  readonly headDim: number;
  readonly dtype: Dtype;
  readonly density: number;
  readonly causal?: boolean;
  readonly options?: Pick<AttentionReferenceOptions, 'logitsSoftCap' | 'smScale'>;
}

function runVariable(c: VariableCase): void {
  const { rowSizes, columnSizes, numQoHeads, headDim, dtype, causal, options = {} } = c;
  const numKvHeads = rowSizes.length;
  const group = numQoHeads / numKvHeads;
  const sum = (sizes: readonly number[]): number => sizes.reduce((a, b) => a + b, 0);
  const [rows, columns] = [sum(rowSizes[0]!), sum(columnSizes[0]!)];
  const [MB, NB] = [rowSizes[0]!.length, columnSizes[0]!.length];
  const uniform = uniformSource(9);
  const map = Uint8Array.from({ length: numKvHeads * MB * NB }, () => (uniform() < c.density ? 1 : 0));
  const q = deviceTensor(normalArray(numQoHeads * rows * headDim, 0), [numQoHeads, rows, headDim], dtype);
  const [k, v] = [1, 2].map((stream) =>
    deviceTensor(normalArray(numKvHeads * columns * headDim, stream), [numKvHeads, columns, headDim], dtype),
  ) as [flashinfer.Tensor, flashinfer.Tensor];
  const wrapper = kept(new flashinfer.VariableBlockSparseAttentionWrapper({ device: testDevice }));
  wrapper.plan({
    blockMaskMap: map,
    blockRowSz: rowSizes.flat(),
    blockColSz: columnSizes.flat(),
    numQoHeads,
    numKvHeads,
    headDimQk: headDim,
    qDtype: dtype,
    ...(causal !== undefined && { causal }),
    ...options,
  });
  const out = poisoned(q.shape, dtype);
  const [result, lse] = wrapper.run(q, k, v, { out, returnLse: true });
  expect(result).toBe(out);
  expect(lse.shape).toEqual([numQoHeads, rows]);
  const alone = wrapper.run(q, k, v);
  expect(alone.toArraySync()).toEqual(out.toArraySync());
  for (let h = 0; h < numKvHeads; ++h) {
    const mask = new Uint8Array(rows * columns);
    let row = 0;
    rowSizes[h]!.forEach((height, r) => {
      let column = 0;
      columnSizes[h]!.forEach((width, j) => {
        for (let i = row; i < row + height; ++i) {
          for (let x = column; x < column + width; ++x) {
            const visible = map[(h * MB + r) * NB + j] === 1 && (causal !== true || x <= i + columns - rows);
            if (visible) mask[i * columns + x] = 1;
          }
        }
        column += width;
      });
      row += height;
    });
    for (let g = 0; g < group; ++g) {
      const at = h * group + g;
      const reference = attentionReference(
        { qoLen: rows, kvLen: columns, numQoHeads: 1, numKvHeads: 1, headDimQk: headDim },
        {
          q: heldValues(q.select(0, at).contiguous()),
          k: heldValues(k.select(0, h).contiguous()),
          v: heldValues(v.select(0, h).contiguous()),
        },
        { ...options, customMask: mask },
      );
      expectResult(
        `head ${at}`,
        out.select(0, at).contiguous(),
        lse.select(0, at).contiguous(),
        reference,
        dtype,
        headDim,
      );
    }
  }
}

/** Positive sizes that add up to `total`, multiples of `unit`. */
function randomSizes(total: number, count: number, unit: number, stream: number): number[] {
  const uniform = uniformSource(stream);
  const cuts = new Set<number>();
  while (cuts.size < count - 1) cuts.add(unit * (1 + Math.floor(uniform() * (total / unit - 1))));
  const ends = [...[...cuts].sort((a, b) => a - b), total];
  return ends.map((end, i) => end - (i === 0 ? 0 : ends[i - 1]!));
}

describe('VariableBlockSparseAttentionWrapper', () => {
  const grid = gridCases({
    heads: [
      [1, 1],
      [4, 1],
      [4, 4],
      [6, 2],
    ] as const,
    rows: [90, 257],
    columns: [192, 320],
    blocks: [
      [1, 1],
      [7, 9],
      [20, 5],
    ] as const,
    unit: [1, 8],
    density: [0.2, 0.7, 1.1],
    headDim: [64, 128],
    dtype: ['float16', 'bfloat16'] as const,
    causal: [undefined, true],
  });
  it.each(grid.map((c) => [JSON.stringify(c), c] as const))('%s', (_, c) => {
    const { heads, rows, columns, blocks, unit, ...rest } = c;
    const all = Array.from({ length: heads[1] }, (_h, h) => h);
    runVariable({
      ...rest,
      numQoHeads: heads[0],
      rowSizes: all.map((h) => randomSizes(rows, blocks[0], 1, 20 + h)),
      columnSizes: all.map((h) => randomSizes(columns, blocks[1], unit, 40 + h)),
    });
  });

  it('blocks of size 0, and no visible block', () => {
    const base = { numQoHeads: 2, headDim: 64, dtype: 'float16' } as const;
    runVariable({ ...base, rowSizes: [[0, 9, 0, 1]], columnSizes: [[4, 0, 12]], density: 0.8 });
    runVariable({ ...base, rowSizes: [[3, 9]], columnSizes: [[4, 12]], density: 0, causal: true });
  });

  it('soft cap and smScale', () => {
    runVariable({
      numQoHeads: 4,
      headDim: 128,
      dtype: 'bfloat16',
      rowSizes: [
        [10, 30],
        [17, 23],
      ],
      columnSizes: [
        [16, 32],
        [40, 8],
      ],
      density: 0.8,
      options: { logitsSoftCap: 15, smScale: 0.2 },
    });
  });

  it('takes strided tensors', () => {
    const wrapper = kept(new flashinfer.VariableBlockSparseAttentionWrapper({ device: testDevice }));
    wrapper.plan({
      blockMaskMap: [true, false, true, true, false, true, true, true],
      blockRowSz: [5, 11, 8, 8],
      blockColSz: [16, 24, 8, 32],
      numQoHeads: 4,
      numKvHeads: 2,
      headDim: 64,
    });
    const make = (heads: number, rows: number, stream: number) =>
      deviceTensor(normalArray(heads * rows * 64, stream), [rows, heads, 64], 'float16').transpose(0, 1);
    const [q, k, v] = [make(4, 16, 0), make(2, 40, 1), make(2, 40, 2)];
    const expected = wrapper.run(q.contiguous(), k.contiguous(), v.contiguous());
    const out = make(4, 16, 3);
    expect(wrapper.run(q, k, v, { out })).toBe(out);
    expect(heldValues(out)).toEqual(heldValues(expected));
  });
});

describe('sparse plans and runs refuse', () => {
  const argument = 'ERR_FLASHINFER_INVALID_ARGUMENT';
  const bsr = {
    indptr: [0, 2, 3],
    indices: [0, 2, 1],
    M: 8,
    N: 12,
    R: 4,
    C: 4,
    numQoHeads: 4,
    numKvHeads: 2,
    headDimQk: 64,
  };
  const make = () => kept(new flashinfer.BlockSparseAttentionWrapper({ device: testDevice }));
  it.each([
    ['rows that are no whole blocks', { M: 9 }, argument, ['M=9', 'R=4']],
    ['keys that are no whole blocks', { N: 13 }, argument, ['N=13', 'C=4']],
    [
      'an indptr of other rows',
      { indptr: [0, 2] },
      'ERR_FLASHINFER_INVALID_SHAPE',
      ['indptr', '2 entries', '3 entries'],
    ],
    ['a column past the end', { indices: [0, 3, 1] }, argument, ['indices', 'holds 3 at 1', '2']],
    ['a negative column', { indices: [0, -1, 1] }, argument, ['indices', 'holds -1 at 1']],
    ['a block twice', { indices: [2, 2, 1] }, argument, ['holds 2 twice in row 0']],
    ['too few indices', { indices: [2] }, argument, ['indices has 1', '3']],
    ['a block of no size', { R: 0 }, argument, ['R is 0']],
    ['a mask of another size', { mask: new Uint8Array(47) }, argument, ['mask has 47', '48']],
    ['a packed mask of another size', { packedMask: new Uint8Array(7) }, argument, ['packedMask has 7', '6']],
    ['two masks', { mask: new Uint8Array(48), packedMask: new Uint8Array(6) }, argument, ['mask and packedMask']],
    ['a mask and causal', { mask: new Uint8Array(48), causal: true }, argument, ['mask and causal']],
    ['causal that is no flag', { causal: 1 }, argument, ['causal is 1']],
    ['two head dimensions', { headDim: 128 }, argument, ['headDim is 128', '64']],
    ['no head dimension', { headDimQk: undefined }, argument, ['headDimQk']],
    ['a window', { windowLeft: 3 }, argument, ['windowLeft']],
    ["another wrapper's mask", { packedCustomMask: new Uint8Array(6) }, argument, ['packedCustomMask', 'unknown']],
  ] as const)('%s', (_name, change, code, words) => {
    expectThrows(() => make().plan({ ...bsr, ...change } as never), code, ...words);
  });

  it('a mask on the device', () => {
    const mask = flashinfer.zeros([3, 4, 4], { dtype: 'bool', device: testDevice });
    expectThrows(() => make().plan({ ...bsr, mask: mask as never }), argument, 'mask', 'host');
  });

  it('keys of another number, and runs without a plan', () => {
    const zeros = (dims: number[]) => flashinfer.zeros(dims, { dtype: 'float16', device: testDevice });
    const [q, k] = [zeros([8, 4, 64]), zeros([12, 2, 64])];
    const w = make();
    expectThrows(() => w.run(q, k, k), 'ERR_FLASHINFER_NOT_PLANNED', 'plan()');
    w.plan(bsr);
    expectThrows(() => w.run(q, zeros([13, 2, 64]), k), 'ERR_FLASHINFER_INVALID_SHAPE', 'k', '13', '12');
    expectThrows(() => w.run(zeros([9, 4, 64]), k, k), 'ERR_FLASHINFER_INVALID_SHAPE', 'q', '9', '8');
    const variable = kept(new flashinfer.VariableBlockSparseAttentionWrapper({ device: testDevice }));
    expectThrows(() => variable.run(q, k, k), 'ERR_FLASHINFER_NOT_PLANNED', 'plan()');
  });

  const variable = {
    blockMaskMap: [true, true, false, true],
    blockRowSz: [3, 5, 4, 4],
    blockColSz: [8, 8],
    numQoHeads: 4,
    numKvHeads: 2,
    headDimQk: 64,
  };
  it.each([
    ['heads of different rows', { blockRowSz: [3, 5, 4, 5] }, argument, ['blockRowSz', '9 for head 1', '8']],
    ['sizes for no number of heads', { blockColSz: [8, 8, 8] }, argument, ['blockColSz has 3', 'numKvHeads=2']],
    ['a negative size', { blockRowSz: [-1, 9, 4, 4] }, argument, ['blockRowSz holds -1 at 0']],
    ['a map of another size', { blockMaskMap: [true] }, argument, ['blockMaskMap has 1', '2 * 2 * 1 = 4']],
    ['ALiBi', { posEncodingMode: 'ALIBI' }, 'ERR_FLASHINFER_UNSUPPORTED', ['ALIBI', 'BlockSparse']],
    ['heads that do not divide', { numQoHeads: 3 }, 'ERR_FLASHINFER_HEADS_MISMATCH', ['3', '2']],
  ] as const)('variable blocks: %s', (_name, change, code, words) => {
    const w = kept(new flashinfer.VariableBlockSparseAttentionWrapper({ device: testDevice }));
    expectThrows(() => w.plan({ ...variable, ...change } as never), code, ...words);
  });

  it('variable blocks: tensors of other shapes', () => {
    const w = kept(new flashinfer.VariableBlockSparseAttentionWrapper({ device: testDevice }));
    w.plan(variable);
    const zeros = (dims: number[]) => flashinfer.zeros(dims, { dtype: 'float16', device: testDevice });
    const [q, k] = [zeros([4, 8, 64]), zeros([2, 8, 64])];
    const shape = 'ERR_FLASHINFER_INVALID_SHAPE';
    expectThrows(() => w.run(zeros([4, 9, 64]), k, k), shape, 'q', '9', '8');
    expectThrows(() => w.run(q, k, zeros([1, 8, 64])), shape, 'v', '1', '2');
    expectThrows(() => w.run(q, k, k, { out: zeros([8, 4, 64]) }), shape, 'out');
  });
});
