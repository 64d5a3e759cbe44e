// SPDX-License-Identifier: Apache-2.0
// No wrong value in any place of a call gives anything but an error of the library: not a TypeError from within, and
// not, where the value has the wrong kind, a result.
import { describe, expect, it } from 'vitest';
import { describeValue } from '../../src/check/describeValue.ts';
import * as api from '../../src/index.ts';

const device = 'cpu';
const half = (...shape: number[]) => api.randn(shape, { dtype: 'float16', device });
const float = (...shape: number[]) => api.randn(shape, { device });
const int = (...values: number[]) => api.tensor(Int32Array.from(values), { device });
const probs = () => api.softmax(float(2, 10));

const heads = { numQoHeads: 4, numKvHeads: 2, headDimQk: 64, smScale: 0.1, windowLeft: 3, qDtype: 'float16' };
const pages = { pagedKvIndptr: [0, 2, 3], pagedKvIndices: [3, 0, 5], pagedKvLastPageLen: [1, 4], pageSize: 4 };
const append = { kvIndices: [3, 0, 5], kvIndptr: [0, 2, 3], batchIndices: [0, 1], positions: [5, 3] };
const run = { returnLse: true, lseBase: '2', kScale: 2 };
const levels = {
  qoIndptrArr: [
    [0, 3],
    [0, 1, 3],
  ],
  pagedKvIndptrArr: [
    [0, 2],
    [0, 1, 2],
  ],
  pagedKvIndicesArr: [
    [0, 1],
    [2, 3],
  ],
  pagedKvLastPageLenArr: [[4], [1, 2]],
  pageSize: 4,
};
const blocks = { indptr: [0, 2, 5], indices: [0, 2, 1, 3, 5], M: 8, N: 24, R: 4, C: 4 };
const variable = { blockMaskMap: new Array(12).fill(true), blockRowSz: [3, 5, 4, 4], blockColSz: [5, 6, 5, 4, 4, 8] };

function decode() {
  const wrapper = new api.BatchDecodeWithPagedKVCacheWrapper({ device });
  wrapper.plan({ ...heads, ...pages } as never);
  return wrapper;
}

/** A call that works, by name: its function and its arguments. */
const calls: Record<string, [call: (...args: never[]) => unknown, ...args: unknown[]]> = {
  rmsnorm: [api.rmsnorm, half(2, 64), half(64), { eps: 1e-6, out: half(2, 64) }],
  rmsnormQuant: [api.rmsnormQuant, half(2, 64).to('float8_e4m3fn'), half(2, 64), half(64), 0.02, {}],
  layernormQuant: [api.layernormQuant, half(2, 64).to('float8_e5m2'), half(2, 64), float(64), float(64), 0.02, {}],
  siluAndMul: [api.siluAndMul, half(2, 64), { out: half(2, 32), enablePdl: true }],
  applyRope: [api.applyRope, half(5, 4, 64), half(5, 2, 64), int(0, 2, 5), int(3, 0), { rotaryDim: 32, ropeScale: 2 }],
  applyRopeWithCosSinCache: [
    api.applyRopeWithCosSinCache,
    int(0, 1),
    half(2, 256),
    half(2, 128),
    64,
    float(9, 64),
    { isNeox: true },
  ],
  softmax: [api.softmax, float(2, 10), { temperature: 0.7 }],
  topPSamplingFromProbs: [api.topPSamplingFromProbs, probs(), 0.9, { seed: 1, indices: int(0, 1) }],
  samplingFromLogits: [api.samplingFromLogits, float(2, 10), { deterministic: true, checkNan: true }],
  topKRenormProbs: [api.topKRenormProbs, probs(), 5],
  topK: [api.topK, float(2, 10), 3, { sorted: true }],
  chainSpeculativeSampling: [
    api.chainSpeculativeSampling,
    probs().view(1, 2, 10),
    int(1, 2).view(1, 2),
    api.softmax(float(3, 10)).view(1, 3, 10),
    { accepted: int(0), emitted: int(0) },
  ],
  quantizeFp8PerTensor: [api.quantizeFp8PerTensor, half(2, 64), { scale: 0.1, dtype: 'float8_e5m2' }],
  quantizeFp8PerBlock: [api.quantizeFp8PerBlock, half(2, 256), { blockShape: [1, 128], scaleMajorMode: 'K' }],
  segmentPackbits: [api.segmentPackbits, api.ones([9], { dtype: 'bool', device }), [0, 4, 9], { bitorder: 'little' }],
  mergeState: [api.mergeState, half(3, 4, 64), float(3, 4), half(3, 4, 64), float(3, 4), { lseBase: 'e' }],
  appendPagedKVCache: [
    api.appendPagedKVCache,
    half(2, 2, 64),
    half(2, 2, 64),
    { ...append, pagedKVCache: half(8, 2, 4, 2, 64), kvLayout: 'NHD' },
  ],
  appendPagedMlaKVCache: [
    api.appendPagedMlaKVCache,
    half(2, 512),
    half(2, 64),
    { ...append, ckvCache: half(8, 4, 512), kpeCache: half(8, 4, 64) },
  ],
  getBatchIndicesPositions: [api.getBatchIndicesPositions, [0, 1, 4], [5, 9], 6],
  getSeqLens: [api.getSeqLens, [0, 2, 3, 3], [4, 16, 0], 16],
  singleDecodeWithKVCache: [
    api.singleDecodeWithKVCache,
    half(4, 64),
    half(9, 2, 64),
    half(9, 2, 64),
    { ...run, kvLayout: 'NHD', posEncodingMode: 'NONE', windowLeft: 2, backend: 'auto', sinks: float(4) },
  ],
  singlePrefillWithKVCache: [
    api.singlePrefillWithKVCache,
    half(5, 4, 64),
    half(9, 2, 64),
    half(9, 2, 64),
    { ...run, causal: true, outDtype: 'float16', out: half(5, 4, 64) },
  ],
  BatchDecode: [
    (options) => new api.BatchDecodeWithPagedKVCacheWrapper(options),
    { device, backend: 'cpu', kvLayout: 'HND', useTensorCores: true, maxCustomMaskBytes: 8 },
  ],
  'BatchDecode.plan': [(options) => decode().plan(options), { ...heads, ...pages, headDimVo: 64, fixedSplitSize: 64 }],
  'BatchDecode.run': [
    (q, cache, options) => decode().run(q, cache, options),
    half(2, 4, 64),
    half(6, 2, 4, 2, 64),
    { ...run, out: half(2, 4, 64), lse: float(2, 4) },
  ],
  'BatchPrefill.plan': [
    (options) => new api.BatchPrefillWithPagedKVCacheWrapper({ device }).plan(options),
    { ...heads, ...pages, qoIndptr: [0, 2, 5], customMask: new Array(22).fill(true) },
  ],
  'Cascade.plan': [
    (options) => new api.MultiLevelCascadeAttentionWrapper(2, { device }).plan(options),
    { ...heads, ...levels },
  ],
  'BlockSparse.plan': [
    (options) => new api.BlockSparseAttentionWrapper({ device }).plan(options),
    { ...blocks, numQoHeads: 8, numKvHeads: 2, headDimQk: 64, mask: new Array(80).fill(true) },
  ],
  'VariableBlockSparse.plan': [
    (options) => new api.VariableBlockSparseAttentionWrapper({ device }).plan(options),
    { ...variable, numQoHeads: 4, numKvHeads: 2, headDimQk: 64 },
  ],
  tensor: [api.tensor, [1, 2, 3, 4], { shape: [2, 2], dtype: 'bfloat16', device }],
  fromBits: [api.fromBits, new Uint16Array(4), { shape: [2, 2], dtype: 'bfloat16', device }],
  full: [api.full, [2, 3], 5, { dtype: 'int32', device }],
  arange: [api.arange, 4, { start: 1, step: 2, dtype: 'int32', device }],
  randn: [api.randn, [2, 3], { seed: 1, dtype: 'float16', device }],
  'Tensor.view': [(...shape) => float(2, 6).view(...shape), 3, 4],
  'Tensor.slice': [(...args) => float(2, 6).slice(...(args as unknown as [number, number, number])), 1, 0, 3],
  'Tensor.select': [(dim, index) => float(2, 6).select(dim, index), 0, 1],
  'Tensor.transpose': [(a, b) => float(2, 6).transpose(a, b), 0, 1],
  'Tensor.to': [(target) => float(2, 6).to(target), 'float16'],
  'Tensor.copy_': [(src) => float(2, 6).copy_(src), float(2, 6)],
  setDefaultDevice: [api.setDefaultDevice, device],
  manualSeed: [api.manualSeed, 1],
  defineAttentionVariant: [
    api.defineAttentionVariant,
    { name: 'Scaled', params: { a: 'float32' }, logitsTransform: 'logits * a' },
  ],
  warmup: [api.warmup, { arch: '9.0a', onProgress: () => {}, signal: new AbortController().signal }],
  'cuda.synchronizeSync': [api.cuda.synchronizeSync, device],
};

/** Of no kind that any argument has, or of its kind with a value that none has. */
const wrongValues: unknown[] = [null, Symbol('s'), new Map([['a', 1]]), new Float64Array(3), new Date(0), -7n];

/** Of the kind of `value`, but out of every range. */
function outOfRange(value: unknown): unknown[] {
  if (typeof value === 'number') return [Number.NaN, -Infinity, -9, String(value), [value], {}];
  if (typeof value === 'string') return ['nope', '', 'constructor', [value], 0];
  if (typeof value === 'boolean') return [0, 'true', [value]];
  if (value instanceof api.Tensor) return [{}, [], { ...value }, new Proxy({}, {})];
  if (Array.isArray(value) && typeof value[0] !== 'object') {
    const items = [null, '1', Number.NaN, 0.5, -3, {}, Symbol('s')];
    return [value.map(BigInt), [value], new Set(value), ...items.map((item) => value.toSpliced(1, 1, item))];
  }
  return [];
}

const isOptions = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;

/** The arguments with one place changed, and what was changed. */
function* mistakes(args: readonly unknown[]): Generator<[place: string, args: unknown[]]> {
  const at = (place: string, wrong: unknown) => `${place}: ${describeValue(wrong)}`;
  for (const [i, arg] of args.entries()) {
    for (const wrong of [...wrongValues, ...outOfRange(arg)]) yield [at(`argument ${i}`, wrong), args.with(i, wrong)];
    if (!isOptions(arg)) continue;
    for (const [name, value] of Object.entries(arg)) {
      for (const wrong of [...wrongValues, ...outOfRange(value)])
        yield [at(name, wrong), args.with(i, { ...arg, [name]: wrong })];
    }
  }
}

/** Of those the ones that are right where they are. */
const right: Partial<Record<string, readonly string[]>> = {
  arange: ['argument 0: [4]', 'start: -9', 'step: -9'],
  defineAttentionVariant: ["nope'", "constructor'"],
  full: ['argument 1: -9', 'argument 1: -7n'],
  manualSeed: ['argument 0: -9', 'argument 0: -7n'],
  randn: ['seed: -9', 'seed: -7n'],
  tensor: ['a Float64Array of 3', '[1n, 2n, 3n, 4n]', '[1, NaN, 3, 4]', '[1, 0.5, 3, 4]', '[1, -3, 3, 4]'],
  topPSamplingFromProbs: ['seed: -9', 'seed: -7n'],
};

describe('no wrong value gives a TypeError or a result', () => {
  for (const [name, [call, ...args]] of Object.entries(calls)) {
    it(name, async () => {
      await call(...(args as never[]));
      const failures: string[] = [];
      for (const [place, wrong] of mistakes(args)) {
        if (right[name]?.some((value) => place.endsWith(value))) continue;
        const problem = await problemOf(() => call(...(wrong as never[])));
        if (problem !== undefined) failures.push(`${place} -> ${problem}`);
      }
      expect(failures).toEqual([]);
    });
  }
});

async function problemOf(run: () => unknown): Promise<string | undefined> {
  try {
    await run();
    return 'a result';
  } catch (error) {
    if (!(error instanceof api.FlashInferError)) return String(error);
    return /; expected .+/.test(error.message) ? undefined : error.message;
  }
}
