// SPDX-License-Identifier: Apache-2.0
// The cascade wrapper against the float64 reference: each row over all its keys, whatever levels they are in.
import { afterEach, describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { onCuda, testDevice } from '../device.ts';
import { type AttentionReferenceOptions, attentionReference } from '../reference/attention.ts';
import { attentionTolerance, expectClose, expectLseClose } from '../reference/compare.ts';
import { normalArray, testSeed, uniformSource } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';
import { deviceTensor, heldValues, poisoned } from './attentionCase.ts';

/** A node of the tree of prefixes: keys of its own, and sequences with more below it, or the rows of a sequence. */
interface Prefix {
  readonly keys: number;
  readonly below: readonly Prefix[] | number;
}

interface CascadeCase {
  readonly tree: readonly Prefix[];
  readonly numLevels: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly dtype: 'float16' | 'bfloat16';
  readonly kvDtype?: 'float8_e4m3fn';
  readonly pageSize: number;
  readonly kvLayout?: 'NHD' | 'HND';
  readonly tuple?: boolean;
  readonly options?: Pick<
    AttentionReferenceOptions,
    'causal' | 'logitsSoftCap' | 'smScale' | 'windowLeft' | 'posEncodingMode' | 'ropeScale' | 'ropeTheta'
  >;
  readonly plan?: { fixedSplitSize?: number; disableSplitKv?: boolean };
}

const disposables: { dispose(): void }[] = [];
afterEach(() => {
  for (const each of disposables.splice(0)) each.dispose();
});
const kept = <T extends { dispose(): void }>(x: T): T => {
  disposables.push(x);
  return x;
};

interface Level {
  readonly qoIndptr: number[];
  readonly kvIndptr: number[];
  readonly pages: number[];
  readonly lastPageLen: number[];
}

interface Sequence {
  readonly firstRow: number;
  readonly numRows: number;
  /** Slots (page * pageSize + slot in the page) of its keys, all levels. */
  readonly slots: readonly number[];
}

/** Gives every node pages in random places, and lists each level's requests in the order of their rows. */
function layOut({ tree, numLevels, pageSize }: CascadeCase) {
  const count = (nodes: readonly Prefix[]): number =>
    nodes.reduce(
      (sum, { keys, below }) => sum + Math.ceil(keys / pageSize) + (typeof below === 'number' ? 0 : count(below)),
      0,
    );
  const numPages = count(tree) + 2;
  const free = Array.from({ length: numPages }, (_, i) => i);
  const uniform = uniformSource(11);
  for (let i = numPages - 1; i > 0; --i) {
    const j = Math.floor(uniform() * (i + 1));
    [free[i], free[j]] = [free[j]!, free[i]!];
  }
  const levels = Array.from(
    { length: numLevels },
    (): Level => ({ qoIndptr: [0], kvIndptr: [0], pages: [], lastPageLen: [] }),
  );
  const sequences: Sequence[] = [];
  let rows = 0;
  const visit = ({ keys, below }: Prefix, depth: number, above: readonly number[]): void => {
    const level = levels[depth]!;
    const pages = free.splice(0, Math.ceil(keys / pageSize));
    level.pages.push(...pages);
    level.kvIndptr.push(level.pages.length);
    level.lastPageLen.push(keys === 0 ? 0 : ((keys - 1) % pageSize) + 1);
    const own = Array.from({ length: keys }, (_, j) => pages[Math.floor(j / pageSize)]! * pageSize + (j % pageSize));
    const slots = [...above, ...own];
    if (typeof below === 'number') {
      sequences.push({ firstRow: rows, numRows: below, slots });
      rows += below;
    } else for (const node of below) visit(node, depth + 1, slots);
    level.qoIndptr.push(rows);
  };
  for (const node of tree) visit(node, 0, []);
  return { levels, sequences, rows, numPages };
}

function makeCase(c: CascadeCase) {
  const { numKvHeads, headDim, pageSize, kvLayout = 'NHD', dtype, kvDtype = dtype } = c;
  const laid = layOut(c);
  const q = deviceTensor(normalArray(laid.rows * c.numQoHeads * headDim, 0), [laid.rows, c.numQoHeads, headDim], dtype);
  const pageShape = kvLayout === 'NHD' ? [pageSize, numKvHeads, headDim] : [numKvHeads, pageSize, headDim];
  const shape = [laid.numPages, ...pageShape];
  const size = shape.reduce((a, b) => a * b, 1);
  const pair = [1, 2].map((stream) => deviceTensor(normalArray(size, stream), shape, kvDtype)) as [
    flashinfer.Tensor,
    flashinfer.Tensor,
  ];
  const both = flashinfer.empty([laid.numPages, 2, ...pageShape], { dtype: kvDtype, device: testDevice });
  both.select(1, 0).copy_(pair[0]);
  both.select(1, 1).copy_(pair[1]);
  const planOptions = {
    qoIndptrArr: laid.levels.map((level) => level.qoIndptr),
    pagedKvIndptrArr: laid.levels.map((level) => level.kvIndptr),
    pagedKvIndicesArr: laid.levels.map((level) => level.pages),
    pagedKvLastPageLenArr: laid.levels.map((level) => level.lastPageLen),
    pageSize,
    numQoHeads: c.numQoHeads,
    numKvHeads,
    headDimQk: headDim,
    qDtype: dtype,
    kvDtype,
    ...c.options,
    ...c.plan,
  };
  return { ...laid, q, pair, both, planOptions };
}

function expectCascade(
  c: CascadeCase,
  made: ReturnType<typeof makeCase>,
  out: ArrayLike<number>,
  lse: ArrayLike<number>,
): void {
  const { numQoHeads, numKvHeads, headDim, pageSize, kvLayout = 'NHD' } = c;
  const [k, v] = made.pair.map(heldValues);
  const q = heldValues(made.q);
  const longest = Math.max(0, ...made.sequences.map(({ slots }) => slots.length));
  const maxRopePosition = c.options?.posEncodingMode === 'ROPE_LLAMA' ? longest : 0;
  const tolerance = attentionTolerance(c.dtype, { maxRopePosition });
  // The output of each level is rounded once more than a flat one's.
  const merged = { ...tolerance, relative: 1.5 * tolerance.relative, rowRelative: 1.5 * tolerance.rowRelative };
  for (const { firstRow, numRows, slots } of made.sequences) {
    if (numRows === 0) continue;
    const gather = (x: Float64Array): Float64Array => {
      const rows = new Float64Array(slots.length * numKvHeads * headDim);
      slots.forEach((slot, j) => {
        const [page, at] = [Math.floor(slot / pageSize), slot % pageSize];
        for (let h = 0; h < numKvHeads; ++h) {
          const inner = kvLayout === 'NHD' ? at * numKvHeads + h : h * pageSize + at;
          const from = (page * pageSize * numKvHeads + inner) * headDim;
          rows.set(x.subarray(from, from + headDim), (j * numKvHeads + h) * headDim);
        }
      });
      return rows;
    };
    const width = numQoHeads * headDim;
    const reference = attentionReference(
      { qoLen: numRows, kvLen: slots.length, numQoHeads, numKvHeads, headDimQk: headDim },
      { q: q.subarray(firstRow * width, (firstRow + numRows) * width), k: gather(k!), v: gather(v!) },
      c.options,
    );
    const label = `[seed ${testSeed}] rows ${firstRow} to ${firstRow + numRows}, ${slots.length} keys`;
    const got = Float64Array.from({ length: numRows * width }, (_, i) => out[firstRow * width + i]!);
    const gotLse = Float64Array.from({ length: numRows * numQoHeads }, (_, i) => lse[firstRow * numQoHeads + i]!);
    expectClose(got, reference.out, headDim, merged, `${label} out`);
    expectLseClose(gotLse, reference.lse, tolerance, `${label} lse`);
  }
}

const leaves = (count: number, keys: (i: number) => number, rows: (i: number) => number = () => 1): Prefix[] =>
  Array.from({ length: count }, (_, i) => ({ keys: keys(i), below: rows(i) }));

describe('MultiLevelCascadeAttentionWrapper', () => {
  const base = { numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16', pageSize: 16 } as const;
  const decode: readonly Prefix[] = [{ keys: 700, below: leaves(40, (i) => 1 + ((i * 37) % 90)) }];
  const append: readonly Prefix[] = [
    {
      keys: 333,
      below: leaves(
        6,
        (i) => 20 + 13 * i,
        (i) => 1 + 5 * ((i * 2) % 4),
      ),
    },
  ];
  const deep: readonly Prefix[] = [
    {
      keys: 200,
      below: [
        { keys: 77, below: leaves(5, (i) => 3 + i) },
        { keys: 0, below: leaves(3, (i) => 9 * i) },
      ],
    },
    {
      keys: 5,
      below: [
        {
          keys: 300,
          below: leaves(
            20,
            () => 17,
            (i) => i % 3,
          ),
        },
      ],
    },
    { keys: 0, below: [{ keys: 0, below: [{ keys: 4, below: 2 }] }] },
  ];
  const cases: (CascadeCase & { name: string })[] = [
    { name: 'decode', ...base, tree: decode, numLevels: 2 },
    { name: 'decode, page 1, HND', ...base, pageSize: 1, kvLayout: 'HND', tree: decode, numLevels: 2 },
    {
      name: 'decode, page 5, pair, bf16',
      ...base,
      dtype: 'bfloat16',
      pageSize: 5,
      tuple: true,
      tree: decode,
      numLevels: 2,
    },
    { name: 'append', ...base, tree: append, numLevels: 2 },
    { name: 'append, causal', ...base, tree: append, numLevels: 2, options: { causal: true } },
    {
      name: 'append, causal, d64, MHA, bf16',
      ...base,
      numKvHeads: 8,
      headDim: 64,
      dtype: 'bfloat16',
      tree: append,
      numLevels: 2,
      options: { causal: true },
    },
    { name: 'd256, group 7', ...base, numQoHeads: 7, numKvHeads: 1, headDim: 256, tree: append, numLevels: 2 },
    { name: 'fp8 KV', ...base, kvDtype: 'float8_e4m3fn', tree: decode, numLevels: 2 },
    {
      name: 'soft cap and smScale',
      ...base,
      tree: append,
      numLevels: 2,
      options: { logitsSoftCap: 30, smScale: 0.2, causal: true },
    },
    {
      name: 'three levels, several roots',
      ...base,
      tree: deep,
      numLevels: 3,
    },
    {
      name: 'no keys at all, and rows in no order of length',
      ...base,
      tree: [
        {
          keys: 0,
          below: leaves(
            4,
            (i) => (i === 2 ? 30 : 0),
            () => 2,
          ),
        },
      ],
      numLevels: 2,
    },
    {
      name: 'one level',
      ...base,
      tree: leaves(
        3,
        (i) => 50 * i + 9,
        () => 4,
      ),
      numLevels: 1,
      options: { causal: true },
    },
    {
      name: 'no rows',
      ...base,
      tree: [
        {
          keys: 9,
          below: leaves(
            2,
            () => 3,
            () => 0,
          ),
        },
      ],
      numLevels: 2,
    },
    ...([0, 7, 40, 200, 5000] as const).map((windowLeft) => ({
      name: `window of ${windowLeft}`,
      ...base,
      tree: append,
      numLevels: 2,
      options: { windowLeft, causal: true },
    })),
    { name: 'window, decode', ...base, tree: decode, numLevels: 2, options: { windowLeft: 60 } },
    { name: 'window, three levels', ...base, tree: deep, numLevels: 3, options: { windowLeft: 90, logitsSoftCap: 20 } },
    { name: 'rope', ...base, tree: append, numLevels: 2, options: { posEncodingMode: 'ROPE_LLAMA', causal: true } },
    {
      name: 'rope, three levels, bf16, window',
      ...base,
      dtype: 'bfloat16',
      tree: deep,
      numLevels: 3,
      options: { posEncodingMode: 'ROPE_LLAMA', ropeScale: 2, ropeTheta: 5e5, windowLeft: 150 },
    },
    { name: 'alibi', ...base, tree: append, numLevels: 2, options: { posEncodingMode: 'ALIBI', causal: true } },
    {
      name: 'alibi, three levels, window',
      ...base,
      numQoHeads: 12,
      numKvHeads: 4,
      tree: deep,
      numLevels: 3,
      options: { posEncodingMode: 'ALIBI', windowLeft: 120 },
    },
    { name: 'fixed splits', ...base, tree: decode, numLevels: 2, plan: { fixedSplitSize: 128 } },
    { name: 'no splits', ...base, tree: decode, numLevels: 2, plan: { disableSplitKv: true } },
  ];
  it.each(cases)('$name', (c) => {
    const made = makeCase(c);
    const wrapper = kept(
      new flashinfer.MultiLevelCascadeAttentionWrapper(c.numLevels, {
        kvLayout: c.kvLayout ?? 'NHD',
        device: testDevice,
      }),
    );
    wrapper.plan(made.planOptions);
    const out = poisoned(made.q.shape, c.dtype);
    const cache = c.tuple ? made.pair : made.both;
    const [result, lse] = wrapper.run(made.q, cache, { out, returnLse: true });
    expect(result).toBe(out);
    expectCascade(c, made, out.toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
    const alone = wrapper.run(made.q, cache);
    expect(alone.toArraySync()).toEqual(out.toArraySync());
  });

  it('takes scales and the base of the lse from run()', () => {
    const c: CascadeCase = { ...base, tree: decode, numLevels: 2, options: { smScale: 0.05 } };
    const made = makeCase(c);
    const wrapper = kept(new flashinfer.MultiLevelCascadeAttentionWrapper(2, { device: testDevice }));
    wrapper.plan(made.planOptions);
    const [out, lse] = wrapper.run(made.q, made.both, { returnLse: true });
    wrapper.plan({ ...made.planOptions, smScale: 0.1 });
    const [scaled, lseE] = wrapper.run(made.q, made.both, {
      returnLse: true,
      lseBase: 'e',
      qScale: 0.25,
      kScale: 2,
      vScale: 3,
    });
    const values = heldValues(out).map((x) => 3 * x);
    expectClose(heldValues(scaled), values, 128, attentionTolerance('float16'));
    expectLseClose(
      heldValues(lseE),
      heldValues(lse).map((x) => x * Math.LN2),
      attentionTolerance('float16'),
    );
  });

  it('takes new plans of other sizes, and strided q and out', () => {
    const wrapper = kept(new flashinfer.MultiLevelCascadeAttentionWrapper(2, { device: testDevice }));
    for (const count of [3, 50, 7]) {
      const tree = [{ keys: 100 + count, below: leaves(count, (i) => 1 + (i % 9)) }];
      const c: CascadeCase = { ...base, tree, numLevels: 2 };
      const made = makeCase(c);
      wrapper.plan(made.planOptions);
      const wide = poisoned([count, 16, 128], 'float16');
      const q = wide.slice(1, 0, 8);
      q.copy_(made.q);
      const out = wide.slice(1, 8, 16);
      const [, lse] = wrapper.run(q, made.both, { out, returnLse: true });
      expectCascade(c, made, out.contiguous().toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
    }
  });
});

describe.runIf(onCuda)('a captured run of the cascade', () => {
  it.each([
    ['decode', 1, {}],
    ['append', 7, {}],
    ['decode, window', 1, { windowLeft: 100 }],
    ['append, alibi', 5, { posEncodingMode: 'ALIBI' }],
  ] as const)('replays after new plans (%s)', (_, rowsEach, options) => {
    const uniform = uniformSource(5);
    const draw = (most: number) => 1 + Math.floor(uniform() * most);
    const maxTokens = 24 * rowsEach;
    const wrapper = kept(
      new flashinfer.MultiLevelCascadeAttentionWrapper(2, {
        device: testDevice,
        useCudaGraph: true,
        maxBatchSize: [2, 24],
        maxNumPages: [160, 24 * 8],
        maxNumTokens: maxTokens,
        maxCustomMaskBytes: maxTokens * 400,
      }),
    );
    const c = { numQoHeads: 8, numKvHeads: 2, headDim: 128, dtype: 'float16', pageSize: 16 } as const;
    const q = flashinfer.zeros([maxTokens, 8, 128], { dtype: 'float16', device: testDevice });
    const out = flashinfer.zeros([maxTokens, 8, 128], { dtype: 'float16', device: testDevice });
    const lse = flashinfer.zeros([maxTokens, 8], { dtype: 'float32', device: testDevice });
    const cache = flashinfer.zeros([400, 2, 16, 2, 128], { dtype: 'float16', device: testDevice });
    const prepare = () => {
      const first = draw(12);
      const tree = [first, draw(12)].map((count) => ({
        keys: draw(1200),
        below: leaves(
          count,
          () => draw(120),
          () => draw(rowsEach),
        ),
      }));
      const one: CascadeCase = { ...c, tree, numLevels: 2, options };
      const made = makeCase(one);
      wrapper.plan(made.planOptions);
      cache.slice(0, 0, made.numPages).copy_(made.both);
      q.slice(0, 0, made.rows).copy_(made.q);
      return { one, made };
    };
    const { made } = prepare();
    const [rowsQ, rowsOut, rowsLse] = [q, out, lse].map((x) => x.slice(0, 0, made.rows)) as [
      flashinfer.Tensor,
      flashinfer.Tensor,
      flashinfer.Tensor,
    ];
    wrapper.run(rowsQ, cache, { out: rowsOut, lse: rowsLse, returnLse: true }); // compiles, which a capture cannot
    flashinfer.cuda.synchronizeSync();
    const stream = kept(new flashinfer.cuda.Stream());
    const graph = kept(
      flashinfer.cuda.capture(
        stream,
        () => void wrapper.run(rowsQ, cache, { out: rowsOut, lse: rowsLse, returnLse: true }),
      ),
    );
    for (let round = 0; round < 8; ++round) {
      const { one, made: next } = prepare();
      out.copy_(poisoned(out.shape, 'float16'));
      graph.launch();
      expectCascade(one, next, out.toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
      const rest = heldValues(out.slice(0, next.rows, maxTokens).contiguous());
      expect(rest.every(Number.isNaN), 'rows past the plan').toBe(true);
    }
  });
});

describe('the cascade refuses', () => {
  const plan = {
    qoIndptrArr: [
      [0, 2],
      [0, 1, 2],
    ],
    pagedKvIndptrArr: [
      [0, 1],
      [0, 1, 2],
    ],
    pagedKvIndicesArr: [[0], [1, 2]],
    pagedKvLastPageLenArr: [[4], [1, 2]],
    pageSize: 4,
    numQoHeads: 8,
    numKvHeads: 2,
    headDimQk: 64,
  };
  const wrapper = () => kept(new flashinfer.MultiLevelCascadeAttentionWrapper(2, { device: testDevice }));
  const argument = 'ERR_FLASHINFER_INVALID_ARGUMENT';
  it.each([
    ['too few levels', { qoIndptrArr: [[0, 2]] }, argument, ['qoIndptrArr', '1 entries', 'numLevels=2']],
    ['a single page table', { pagedKvIndicesArr: new Int32Array(3) }, argument, ['pagedKvIndicesArr', 'array']],
    [
      'levels of different rows',
      {
        qoIndptrArr: [
          [0, 3],
          [0, 1, 2],
        ],
      },
      argument,
      ['qoIndptrArr[1]', '2', 'expected 3'],
    ],
    ['a bad page table, naming the level', { pagedKvLastPageLenArr: [[4], [1, 5]] }, argument, ['level 1', '5']],
    [
      'ALiBi under a soft cap',
      { posEncodingMode: 'ALIBI', logitsSoftCap: 5 },
      'ERR_FLASHINFER_UNSUPPORTED',
      ['ALIBI', 'logitsSoftCap'],
    ],
    ['another position encoding', { posEncodingMode: 'SINE' }, argument, ['posEncodingMode', 'SINE']],
    ['a bad window', { windowLeft: -2 }, 'ERR_FLASHINFER_INVALID_WINDOW', ['windowLeft', '-2']],
    ["another wrapper's mask", { packedCustomMask: new Uint8Array(3) }, argument, ['packedCustomMask', 'unknown']],
    ['a misspelt option', { pagesize: 4 }, argument, ['pagesize', 'pageSize']],
    ['heads that do not divide', { numKvHeads: 3 }, 'ERR_FLASHINFER_HEADS_MISMATCH', ['8', '3']],
  ] as const)('%s', (_name, change, code, words) => {
    expectThrows(() => wrapper().plan({ ...plan, ...change } as never), code, ...words);
  });

  it('a bad number of levels, and maxima that are not theirs', () => {
    const make = (n: number, options: object) => new flashinfer.MultiLevelCascadeAttentionWrapper(n, options);
    expectThrows(() => make(0, {}), argument, 'numLevels', '0');
    const maxima = { device: testDevice, useCudaGraph: true, maxNumPages: 3, maxNumTokens: 2 };
    expectThrows(() => make(2, { ...maxima, maxBatchSize: [1] }), argument, 'maxBatchSize', '2 levels');
    expectThrows(() => make(2, maxima), argument, 'maxBatchSize');
    const graph = kept(make(2, { ...maxima, maxBatchSize: 2 }));
    const rope = { ...plan, posEncodingMode: 'ROPE_LLAMA' } as const;
    expectThrows(() => graph.plan(rope), 'ERR_FLASHINFER_UNSUPPORTED', 'ROPE_LLAMA', 'applyRopePosIds');
  });

  it('a run without a plan, of another shape, with too few pages, and after dispose', () => {
    const w = wrapper();
    const q = flashinfer.zeros([2, 8, 64], { dtype: 'float16', device: testDevice });
    const cache = flashinfer.zeros([3, 2, 4, 2, 64], { dtype: 'float16', device: testDevice });
    expectThrows(() => w.run(q, cache), 'ERR_FLASHINFER_NOT_PLANNED', 'plan()');
    w.plan(plan);
    const shape = 'ERR_FLASHINFER_INVALID_SHAPE';
    expectThrows(() => w.run(q.slice(0, 0, 1), cache), shape, 'q', '1', '2');
    const wide = flashinfer.zeros([2, 8, 128], { dtype: 'float16', device: testDevice });
    expectThrows(() => w.run(wide, cache), shape, 'q', '128', '64');
    expectThrows(
      () => w.run(q.transpose(1, 2).contiguous().transpose(1, 2), cache),
      'ERR_FLASHINFER_NON_CONTIGUOUS',
      'q',
    );
    expectThrows(() => w.run(q, cache.slice(0, 0, 2)), shape, '2 pages', '3');
    expectThrows(() => w.run(q, cache, { out: q.slice(0, 0, 1) }), shape, 'out');
    expectThrows(() => w.run(q, cache, { sinks: q } as never), argument, 'sinks');
    expectThrows(() => w.plan({ ...plan, pagedKvLastPageLenArr: [[4], [1, 9]] }), argument, 'level 1');
    expectThrows(() => w.run(q, cache), 'ERR_FLASHINFER_NOT_PLANNED', 'plan()');
    w.plan(plan);
    expectThrows(() => w.run(q, cache, { kscale: 2 } as never), argument, 'kscale', 'kScale');
    w.dispose();
    expectThrows(() => w.run(q, cache), 'ERR_FLASHINFER_DISPOSED', 'disposed');
  });
});
