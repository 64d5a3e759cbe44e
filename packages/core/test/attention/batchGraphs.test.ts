// SPDX-License-Identifier: Apache-2.0
// The batch wrappers with useCudaGraph: random plans within the maxima, and what they refuse. On cpu, where there are no
// graphs, a run with the new plan stands for the replay.
import { describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { onCuda, testDevice } from '../device.ts';
import { testSeed, uniformSource } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';
import { hostValues, onHopper, poisoned } from './attentionCase.ts';
import { type BatchCase, expectBatch, indptr, kept, makeInputs, pagedInputs, planOptions, total } from './batchCase.ts';

const [maxBatchSize, maxNumTokens, maxKvLen] = [6, 240, 700];

interface GraphCase extends Omit<BatchCase, 'qoLens' | 'kvLens'> {
  readonly name: string;
  readonly template: 'fa2' | 'fa3';
  /** One token a request, and whether the prefill template serves them. */
  readonly decode?: { readonly useTensorCores: boolean };
}

const zeros = (shape: readonly number[], dtype: DType): flashinfer.Tensor =>
  kept(flashinfer.zeros(shape, { dtype, device: testDevice }));

/** A batch within the maxima; the first is as large as any, for its tensors are those of all. */
function drawLengths(
  uniform: () => number,
  first: boolean,
  decode: GraphCase['decode'],
): Pick<BatchCase, 'qoLens' | 'kvLens'> {
  const batchSize = first ? maxBatchSize : 1 + Math.floor(uniform() * maxBatchSize);
  const numTokens = first ? maxNumTokens : 1 + Math.floor(uniform() * maxNumTokens);
  const cuts = Array.from({ length: batchSize - 1 }, () => Math.floor(uniform() * (numTokens + 1)));
  const ends = [...cuts.sort((a, b) => a - b), numTokens];
  return {
    qoLens: ends.map((end, r) => (decode ? 1 : end - (ends[r - 1] ?? 0))),
    kvLens: ends.map(() => (first ? maxKvLen : Math.floor(uniform() ** 2 * (maxKvLen + 1)))),
  };
}

/** A wrapper and the tensors that its graph reads; `fill` plans a batch and puts its values there. */
interface Planned {
  readonly q: flashinfer.Tensor;
  readonly fill: (c: BatchCase) => ReturnType<typeof makeInputs>;
  /** Of the first rows of everything, as many as the batch has; all of them for a capture. */
  readonly run: (numTokens: number, numKeys: number, out: flashinfer.Tensor, lse: flashinfer.Tensor) => void;
}

const firstRows = (x: flashinfer.Tensor, count: number): flashinfer.Tensor => x.slice(0, 0, count);
const wrapperOptions = (template: 'fa2' | 'fa3') =>
  ({
    useCudaGraph: true,
    maxBatchSize,
    maxNumTokens,
    device: testDevice,
    ...(onCuda && { backend: template }),
  }) as const;

function plannedRagged({ template, ...base }: GraphCase): Planned {
  const { numQoHeads, numKvHeads, headDim, dtype } = base;
  const wrapper = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper(wrapperOptions(template)));
  const q = zeros([maxNumTokens, numQoHeads, headDim], dtype);
  const kvShape = [maxBatchSize * maxKvLen, numKvHeads, headDim];
  const [k, v] = [zeros(kvShape, dtype), zeros(kvShape, dtype)];
  return {
    q,
    fill: (c) => {
      const inputs = makeInputs(c);
      wrapper.plan({ ...planOptions(c), qoIndptr: indptr(c.qoLens), kvIndptr: indptr(c.kvLens) });
      firstRows(q, total(c.qoLens)).copy_(inputs.q);
      firstRows(k, total(c.kvLens)).copy_(inputs.k);
      firstRows(v, total(c.kvLens)).copy_(inputs.v);
      return inputs;
    },
    run: (numTokens, numKeys, out, lse) => {
      const options = { out: firstRows(out, numTokens), lse: firstRows(lse, numTokens), returnLse: true } as const;
      wrapper.run(firstRows(q, numTokens), firstRows(k, numKeys), firstRows(v, numKeys), options);
    },
  };
}

function plannedPaged({ template, decode, ...base }: GraphCase): Planned {
  const { numQoHeads, numKvHeads, headDim, dtype, pageSize = 1 } = base;
  const maxNumPages = maxBatchSize * Math.ceil(maxKvLen / pageSize);
  const options = { ...wrapperOptions(template), maxNumPages };
  const wrapper = kept(
    decode
      ? new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ ...options, ...decode })
      : new flashinfer.BatchPrefillWithPagedKVCacheWrapper(options),
  );
  const q = zeros([decode ? maxBatchSize : maxNumTokens, numQoHeads, headDim], dtype);
  // pagedInputs() has some pages to spare.
  const cache = zeros([maxNumPages + 3, 2, pageSize, numKvHeads, headDim], dtype);
  return {
    q,
    fill: (c) => {
      const { inputs, table, cache: filled } = pagedInputs(c);
      const { numPages, ...tables } = table;
      const plan = { ...planOptions(c), ...tables, pageSize };
      if (wrapper instanceof flashinfer.BatchDecodeWithPagedKVCacheWrapper) wrapper.plan(plan);
      else wrapper.plan({ ...plan, qoIndptr: indptr(c.qoLens) });
      firstRows(q, total(c.qoLens)).copy_(inputs.q);
      firstRows(cache, numPages).copy_(filled as flashinfer.Tensor);
      return inputs;
    },
    run: (numTokens, _, out, lse) => {
      const options = { out: firstRows(out, numTokens), lse: firstRows(lse, numTokens), returnLse: true } as const;
      wrapper.run(firstRows(q, numTokens), cache, options);
    },
  };
}

function expectReplays(graphCase: GraphCase, { q, fill, run }: Planned): void {
  const { name: _, template: __, decode, ...base } = graphCase;
  const out = kept(poisoned(q.shape, base.dtype));
  const lse = kept(poisoned(q.shape.slice(0, 2), 'float32'));
  const uniform = uniformSource(41);
  fill({ ...base, ...drawLengths(uniform, true, decode) });
  const runAll = (): void => run(q.shape[0]!, maxBatchSize * maxKvLen, out, lse);
  runAll(); // compiles, which a capture cannot
  let graph: flashinfer.cuda.Graph | undefined;
  if (onCuda) {
    flashinfer.cuda.synchronizeSync();
    graph = kept(flashinfer.cuda.capture(kept(new flashinfer.cuda.Stream()), runAll));
  }
  for (let round = 0; round < 8; ++round) {
    const c: BatchCase = { ...base, ...drawLengths(uniform, round === 0, decode) };
    const inputs = fill(c);
    const numTokens = total(c.qoLens);
    out.copy_(poisoned(out.shape, base.dtype));
    lse.copy_(poisoned(lse.shape, 'float32'));
    // Twice: a replay leaves the counters of its kernels as it found them.
    for (let n = 0; n < 2; ++n) {
      if (graph === undefined) run(numTokens, total(c.kvLens), out, lse);
      else graph.launch();
    }
    const values = hostValues(out);
    expectBatch(c, inputs, values, hostValues(lse));
    const rest = values.subarray(numTokens * base.numQoHeads * base.headDim);
    expect(rest.every(Number.isNaN), 'rows behind those of the plan').toBe(true);
  }
}

describe('graphs replay correctly after random plans within the maxima', () => {
  const base = { numQoHeads: 4, numKvHeads: 2, headDim: 64, dtype: 'float16', options: { causal: true } } as const;
  const cases: GraphCase[] = [
    { name: 'decode', template: 'fa2', ...base, options: {}, pageSize: 16, decode: { useTensorCores: false } },
    {
      name: 'decode on the prefill template',
      template: 'fa2',
      ...base,
      options: {},
      pageSize: 5,
      decode: { useTensorCores: true },
    },
    { name: 'fa2 paged', template: 'fa2', ...base, pageSize: 16 },
    { name: 'fa2 paged, full, bf16', template: 'fa2', ...base, dtype: 'bfloat16', options: {}, pageSize: 5 },
    { name: 'fa2 ragged', template: 'fa2', ...base },
    { name: 'fa2 ragged, full, d128', template: 'fa2', ...base, headDim: 128, numKvHeads: 1, options: {} },
    { name: 'fa3 paged, boxes', template: 'fa3', ...base, headDim: 128, pageSize: 16 },
    { name: 'fa3 paged, boxes, full', template: 'fa3', ...base, options: {}, pageSize: 64 },
    { name: 'fa3 paged, gather', template: 'fa3', ...base, dtype: 'bfloat16', pageSize: 5 },
    { name: 'fa3 paged, gather, window', template: 'fa3', ...base, options: { windowLeft: 90 }, pageSize: 1 },
    { name: 'fa3 ragged', template: 'fa3', ...base, options: { causal: true, windowLeft: 90 } },
  ];
  for (const c of cases) {
    const planned = c.pageSize === undefined ? plannedRagged : plannedPaged;
    it.skipIf(c.template === 'fa3' && !onHopper)(c.name, () => expectReplays(c, planned(c)));
  }
});

/** One wrapper of each kind with a batch that it may plan, in pages of 4 or ragged. */
const wrappers = (() => {
  const attention = { numQoHeads: 4, numKvHeads: 2, headDimQk: 64 } as const;
  const pagesOf = (counts: readonly number[]) => ({
    pagedKvIndptr: indptr(counts),
    pagedKvIndices: Array.from({ length: total(counts) }, (_, i) => i),
    pagedKvLastPageLen: counts.map(() => 3),
    pageSize: 4,
  });
  const random = (shape: readonly number[]) =>
    kept(flashinfer.randn(shape, { dtype: 'float16', device: testDevice, seed: testSeed }));
  const cacheOf = () => random([8, 2, 4, 2, 64]);
  const queries = (numTokens: number) => random([numTokens, 4, 64]);
  // What a kernel does not write must not look like what one wrote before, in memory that was freed.
  const blank = (q: flashinfer.Tensor) => ({ out: zeros(q.shape, 'float16') });
  const common = { device: testDevice } as const;
  type Lengths = { readonly qoLens: readonly number[]; readonly counts: readonly number[] };
  return {
    decode: (options: object) => {
      const wrapper = new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ ...common, ...options });
      return {
        wrapper,
        plan: ({ counts }: Lengths) => wrapper.plan({ ...attention, ...pagesOf(counts) }),
        runOf: ({ counts }: Lengths) => {
          const [q, cache] = [queries(counts.length), cacheOf()];
          return () => wrapper.run(q, cache, blank(q));
        },
      };
    },
    paged: (options: object) => {
      const wrapper = new flashinfer.BatchPrefillWithPagedKVCacheWrapper({ ...common, ...options });
      return {
        wrapper,
        plan: ({ qoLens, counts }: Lengths) =>
          wrapper.plan({ ...attention, ...pagesOf(counts), qoIndptr: indptr(qoLens) }),
        runOf: ({ qoLens }: Lengths) => {
          const [q, cache] = [queries(total(qoLens)), cacheOf()];
          return () => wrapper.run(q, cache, blank(q));
        },
      };
    },
    ragged: (options: object) => {
      const wrapper = new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ ...common, ...options });
      return {
        wrapper,
        plan: ({ qoLens, counts }: Lengths) =>
          wrapper.plan({ ...attention, qoIndptr: indptr(qoLens), kvIndptr: indptr(counts) }),
        runOf: ({ qoLens, counts }: Lengths) => {
          const [q, kv] = [queries(total(qoLens)), random([total(counts), 2, 64])];
          return () => wrapper.run(q, kv, kv, blank(q));
        },
      };
    },
  };
})();

const maxima = { maxBatchSize: 2, maxNumPages: 4, maxNumTokens: 5 };
const fits = { qoLens: [2, 3], counts: [1, 3] };
const argument = 'ERR_FLASHINFER_INVALID_ARGUMENT';

describe('a wrapper with useCudaGraph', () => {
  it.each([
    ['decode', 'maxBatchSize'],
    ['decode', 'maxNumPages'],
    ['paged', 'maxBatchSize'],
    ['paged', 'maxNumPages'],
    ['paged', 'maxNumTokens'],
    ['ragged', 'maxBatchSize'],
    ['ragged', 'maxNumTokens'],
  ] as const)('for %s attention needs %s', (kind, maximum) => {
    const { [maximum]: _, ...others } = maxima;
    expectThrows(() => wrappers[kind]({ useCudaGraph: true, ...others }), argument, 'useCudaGraph', maximum, 'missing');
  });

  it.each([
    ['decode', { qoLens: [1, 1, 1], counts: [1, 1, 1] }, 'batchSize=3', 'at most 2', 'maxBatchSize'],
    ['decode', { qoLens: [1, 1], counts: [2, 3] }, 'numPages=5', 'at most 4', 'maxNumPages'],
    ['paged', { qoLens: [1, 1, 1], counts: [1, 1, 1] }, 'batchSize=3', 'at most 2', 'maxBatchSize'],
    ['paged', { qoLens: [1, 1], counts: [0, 5] }, 'numPages=5', 'at most 4', 'maxNumPages'],
    ['paged', { qoLens: [6, 0], counts: [1, 1] }, 'numTokens=6', 'at most 5', 'maxNumTokens'],
    ['ragged', { qoLens: [1, 1, 1], counts: [1, 1, 1] }, 'batchSize=3', 'at most 2', 'maxBatchSize'],
    ['ragged', { qoLens: [3, 3], counts: [1, 1] }, 'numTokens=6', 'at most 5', 'maxNumTokens'],
  ] as const)('for %s attention refuses %o and keeps the plan it has', (kind, batch, given, most, maximum) => {
    const { wrapper, plan, runOf } = wrappers[kind]({ useCudaGraph: true, ...maxima });
    kept(wrapper);
    plan(fits);
    const run = runOf(fits);
    const before = hostValues(run());
    expectThrows(() => plan(batch), argument, given, most, maximum);
    expect(hostValues(run())).toEqual(before);
  });
});

describe.skipIf(!onCuda)('fixedSplitSize with useCudaGraph', () => {
  const table = { pagedKvIndptr: [0, 40], pagedKvIndices: Array.from({ length: 40 }, (_, i) => i), pageSize: 16 };
  const planned = { ...table, pagedKvLastPageLen: [16], numQoHeads: 4, numKvHeads: 2, headDimQk: 64 } as const;
  const make = () =>
    kept(
      new flashinfer.BatchDecodeWithPagedKVCacheWrapper({
        device: testDevice,
        useCudaGraph: true,
        maxBatchSize: 1,
        maxNumPages: 40,
      }),
    );

  it('may change from plan to plan', () => {
    const wrapper = make();
    for (const fixedSplitSize of [64, 128, 32]) wrapper.plan({ ...planned, fixedSplitSize });
  });

  it('is in all plans or in none', () => {
    const wrapper = make();
    wrapper.plan(planned);
    expectThrows(() => wrapper.plan({ ...planned, fixedSplitSize: 64 }), argument, 'fixedSplitSize', 'first plan');
    wrapper.plan(planned);
  });
});

describe.skipIf(!onCuda).each(['decode', 'paged', 'ragged'] as const)('a capture of %s attention', (kind) => {
  const unsupported = 'ERR_FLASHINFER_UNSUPPORTED';
  const capture = (work: () => void) => kept(flashinfer.cuda.capture(kept(new flashinfer.cuda.Stream()), work));

  it('is refused without useCudaGraph, and the wrapper runs on', () => {
    const { wrapper, plan, runOf } = wrappers[kind]({});
    kept(wrapper);
    plan(fits);
    const run = runOf(fits);
    const before = hostValues(run());
    expectThrows(
      () => capture(run),
      unsupported,
      `${wrapper.constructor.name}.run`,
      'useCudaGraph: true',
      'maxBatchSize',
    );
    expect(hostValues(run())).toEqual(before);
  });

  it('is refused a plan', () => {
    const { wrapper, plan, runOf } = wrappers[kind]({ useCudaGraph: true, ...maxima });
    kept(wrapper);
    plan(fits);
    runOf(fits)();
    expectThrows(() => capture(() => plan(fits)), unsupported, 'plan', 'captured', 'before each replay');
  });
});
