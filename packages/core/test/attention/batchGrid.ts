// SPDX-License-Identifier: Apache-2.0
// Cases of the batch wrappers' grids: drawn lengths within a cost, and a run with scales and either base of the lse.
import { expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { backendOption, testDevice } from '../device.ts';
import { fullGrid } from '../reference/pairwise.ts';
import { uniformSource } from '../reference/random.ts';
import { hostValues, poisoned } from './attentionCase.ts';
import {
  type BatchCase,
  expectBatch,
  indptr,
  kept,
  makeInputs,
  maskOptions,
  pagedInputs,
  planOptions,
} from './batchCase.ts';

interface GridCase extends BatchCase {
  readonly kind: 'decode' | 'paged' | 'ragged';
  readonly runScales?: { readonly qScale: number; readonly kScale: number; readonly vScale: number };
  /** Whether an lse is asked for, and its base. */
  readonly lse: 'none' | '2' | 'e';
}

/** A point of a grid before its lengths are drawn. */
interface BatchSize {
  readonly batchSize: number;
  /** Longest of the batch; decode has one token a request. */
  readonly qoLen?: number;
  readonly kvLen: number;
  readonly heads: readonly [number, number];
  readonly headDim: number;
}

/** What a thinned case may cost on two cpu cores: multiply-adds of the reference, and elements of the longest keys. */
const mostWork = fullGrid ? 2e9 : 1e8;
const mostKeyElements = fullGrid ? 7e7 : 4.2e6;
/** Elements that the requests besides the longest have in queries and in keys. */
const otherElements = fullGrid ? 4e6 : 3e5;

export function fitsBatch({ qoLen = 1, kvLen, heads: [numQoHeads, numKvHeads], headDim }: BatchSize): boolean {
  return 2 * qoLen * kvLen * numQoHeads * headDim <= mostWork && kvLen * numKvHeads * headDim <= mostKeyElements;
}

/** Lengths of a batch with long, short and empty requests: one has `longest`, the others `others` together, on average. */
function drawLengths(batchSize: number, longest: number, others: number, uniform: () => number): number[] {
  const most = Math.min(longest, Math.ceil((2 * others) / batchSize));
  const lengths = Array.from({ length: batchSize }, () => Math.floor(uniform() * (most + 1)));
  lengths[Math.floor(uniform() * batchSize)] = longest;
  return lengths;
}

/** `stream`: another one for each case, so that no two have the same lengths. */
export function drawBatch(size: BatchSize, stream: number): Pick<BatchCase, 'qoLens' | 'kvLens'> {
  const {
    batchSize,
    qoLen,
    kvLen,
    heads: [numQoHeads, numKvHeads],
    headDim,
  } = size;
  const uniform = uniformSource(stream);
  const lengths = (longest: number, heads: number): number[] =>
    drawLengths(batchSize, longest, otherElements / (heads * headDim), uniform);
  const kvLens = lengths(kvLen, numKvHeads);
  return { kvLens, qoLens: qoLen === undefined ? kvLens.map(() => 1) : lengths(qoLen, numQoHeads) };
}

/** A test a case. */
export function runGrid(cases: readonly GridCase[]): void {
  expect(cases.length).toBeGreaterThan(10);
  for (const c of cases) it(gridLabel(c), () => runGridCase(c));
}

function gridLabel(c: GridCase): string {
  const { kind, numQoHeads, numKvHeads, headDim, dtype, kvDtype = dtype, kvLayout = 'NHD' } = c;
  const longest = (lengths: readonly number[]): number => Math.max(...lengths);
  const page = kind === 'ragged' ? '' : ` page ${c.pageSize}${c.tuple ? ' pair' : ''}`;
  const mask = c.maskDensity === undefined ? '' : ` mask ${c.maskForm}`;
  return (
    `${kind} ${c.qoLens.length} of up to q${longest(c.qoLens)} kv${longest(c.kvLens)} h${numQoHeads}/${numKvHeads} ` +
    `d${headDim} ${dtype}/${kvDtype} ${kvLayout}${page}${mask} ${JSON.stringify({ ...c.options, ...c.runScales })} lse ${c.lse}`
  );
}

/** Runs a planned batch; without `returnLse` only the output comes back. */
type Run = (
  options: flashinfer.BatchRunOptions & { returnLse?: boolean },
) => flashinfer.Tensor | [flashinfer.Tensor, flashinfer.Tensor];

function plannedRun(c: GridCase): { inputs: ReturnType<typeof makeInputs>; run: Run } {
  const common = { kvLayout: c.kvLayout ?? 'NHD', device: testDevice, ...backendOption(c) } as const;
  if (c.kind === 'ragged') {
    const inputs = makeInputs(c);
    const wrapper = kept(new flashinfer.BatchPrefillWithRaggedKVCacheWrapper(common));
    const lengths = { qoIndptr: indptr(c.qoLens), kvIndptr: indptr(c.kvLens) };
    wrapper.plan({ ...planOptions(c), ...maskOptions(c, inputs.masks), ...lengths });
    const [k, v] = [inputs.k, inputs.v].map((x) => (c.kvLayout === 'HND' ? x.transpose(0, 1).contiguous() : x));
    return { inputs, run: (options) => wrapper.run(inputs.q, k!, v!, options as { returnLse: true }) };
  }
  const { inputs, table, cache } = pagedInputs(c);
  const { numPages: _, ...tables } = table;
  const pages = { ...tables, pageSize: c.pageSize ?? 1 };
  if (c.kind === 'decode') {
    const wrapper = kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper(common));
    wrapper.plan({ ...planOptions(c), ...pages });
    return { inputs, run: (options) => wrapper.run(inputs.q, cache, options as { returnLse: true }) };
  }
  const wrapper = kept(new flashinfer.BatchPrefillWithPagedKVCacheWrapper(common));
  wrapper.plan({ ...planOptions(c), ...pages, ...maskOptions(c, inputs.masks), qoIndptr: indptr(c.qoLens) });
  return { inputs, run: (options) => wrapper.run(inputs.q, cache, options as { returnLse: true }) };
}

/** Against the reference; a run that asks for no lse must give the same bits. */
function runGridCase(c: GridCase): void {
  const { inputs, run } = plannedRun(c);
  const shape = [inputs.q.shape[0]!, c.numQoHeads, c.headDimVo ?? c.headDim];
  const out = poisoned(shape, c.dtype);
  const lse = poisoned(shape.slice(0, 2), 'float32');
  const lseBase = c.lse === 'none' ? '2' : c.lse;
  expect(run({ ...c.runScales, lseBase, out, lse, returnLse: true })).toEqual([out, lse]);
  const base2 = c.lse === 'e' ? Math.LOG2E : 1;
  const options = { ...c.options, ...c.runScales };
  expectBatch(
    { ...c, options },
    inputs,
    hostValues(out),
    hostValues(lse).map((x) => x * base2),
  );
  if (c.lse !== 'none') return;
  const alone = poisoned(shape, c.dtype);
  expect(run({ ...c.runScales, out: alone })).toBe(alone);
  const bytes = (x: flashinfer.Tensor): Buffer => Buffer.from(hostValues(x).buffer);
  expect(bytes(alone).equals(bytes(out)), 'the same bits without an lse').toBe(true);
}
