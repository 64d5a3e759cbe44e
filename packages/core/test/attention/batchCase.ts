// SPDX-License-Identifier: Apache-2.0
// Runs a batch through a wrapper and compares each request with the float64 reference.
import { afterEach, expect } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { backendOption, onCuda, testDevice } from '../device.ts';
import { type AttentionReferenceOptions, attentionReference } from '../reference/attention.ts';
import {
  attentionTolerance,
  expectClose,
  expectFloat8Close,
  expectLseClose,
  largestLogit,
} from '../reference/compare.ts';
import { maskArray, normalArray, testSeed, uniformSource } from '../reference/random.ts';
import { deviceTensor, type FloatDType, heldValues, packMask, poisoned } from './attentionCase.ts';

export interface BatchCase {
  readonly qoLens: readonly number[];
  readonly kvLens: readonly number[];
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Default headDim. */
  readonly headDimVo?: number;
  readonly dtype: FloatDType | 'float8_e4m3fn';
  /** Of float8 queries. Default `'float16'`. */
  readonly outDtype?: 'float16' | 'bfloat16';
  /** Pass random scales, one a head. */
  readonly headScales?: boolean;
  /** Default: that of the run (device.ts). */
  readonly backend?: 'fa2' | 'fa3';
  readonly kvDtype?: DType;
  readonly pageSize?: number;
  readonly kvLayout?: 'NHD' | 'HND';
  readonly tuple?: boolean;
  readonly options?: Pick<
    AttentionReferenceOptions,
    'causal' | 'windowLeft' | 'logitsSoftCap' | 'posEncodingMode' | 'smScale'
  >;
  /** Mean density of random custom masks, and how they are passed. */
  readonly maskDensity?: number;
  readonly maskForm?: 'bool' | 'packed' | 'host' | 'packedHost';
  /** Pass random sinks. */
  readonly sinks?: boolean;
  readonly plan?: { fixedSplitSize?: number; disableSplitKv?: boolean };
}

export const total = (lengths: readonly number[]): number => lengths.reduce((a, b) => a + b, 0);

export const indptr = (lengths: readonly number[]): Int32Array => {
  const result = new Int32Array(lengths.length + 1);
  lengths.forEach((length, i) => {
    result[i + 1] = result[i]! + length;
  });
  return result;
};

/** Pages of all requests, in random places of a cache with some to spare. */
function pageTable(kvLens: readonly number[], pageSize: number) {
  const counts = kvLens.map((length) => Math.ceil(length / pageSize));
  const pagedKvIndptr = indptr(counts);
  const used = pagedKvIndptr.at(-1)!;
  const numPages = used + 3;
  const pages = Array.from({ length: numPages }, (_, i) => i);
  const uniform = uniformSource(11);
  for (let i = numPages - 1; i > 0; --i) {
    const j = Math.floor(uniform() * (i + 1));
    [pages[i], pages[j]] = [pages[j]!, pages[i]!];
  }
  const pagedKvLastPageLen = kvLens.map((length) => (length === 0 ? 0 : ((length - 1) % pageSize) + 1));
  return { pagedKvIndptr, pagedKvIndices: pages.slice(0, used), pagedKvLastPageLen, numPages };
}

type PageTableOf = ReturnType<typeof pageTable>;

/** Puts row j of each request where its page table says; NHD or HND pages. */
function scatter(values: Float32Array, c: BatchCase, headDim: number, table: PageTableOf): Float32Array {
  const { numKvHeads, pageSize = 1, kvLayout = 'NHD' } = c;
  const cache = new Float32Array(table.numPages * pageSize * numKvHeads * headDim).fill(Number.NaN);
  let row = 0;
  c.kvLens.forEach((length, r) => {
    for (let j = 0; j < length; ++j, ++row) {
      const page = table.pagedKvIndices[table.pagedKvIndptr[r]! + Math.floor(j / pageSize)]!;
      const slot = j % pageSize;
      for (let h = 0; h < numKvHeads; ++h) {
        const inner = kvLayout === 'NHD' ? slot * numKvHeads + h : h * pageSize + slot;
        const to = (page * pageSize * numKvHeads + inner) * headDim;
        cache.set(values.subarray((row * numKvHeads + h) * headDim, (row * numKvHeads + h + 1) * headDim), to);
      }
    }
  });
  return cache;
}

const disposables: { dispose(): void }[] = [];
afterEach(() => {
  for (const each of disposables.splice(0)) each.dispose();
});
export const kept = <T extends { dispose(): void }>(x: T): T => {
  disposables.push(x);
  return x;
};

const valueDim = (c: BatchCase): number => c.headDimVo ?? c.headDim;

export function makeInputs(c: BatchCase) {
  const rows = total(c.qoLens);
  const keys = total(c.kvLens);
  const kvDtype = c.kvDtype ?? c.dtype;
  const q = deviceTensor(normalArray(rows * c.numQoHeads * c.headDim, 0), [rows, c.numQoHeads, c.headDim], c.dtype);
  const values = [c.headDim, valueDim(c)].map((dim, i) => normalArray(keys * c.numKvHeads * dim, i + 1));
  const [k, v] = [c.headDim, valueDim(c)].map((dim, i) => deviceTensor(values[i]!, [keys, c.numKvHeads, dim], kvDtype));
  const bits =
    c.maskDensity === undefined
      ? undefined
      : c.qoLens.map((n, r) => maskArray(n * c.kvLens[r]!, 20 + r, c.maskDensity!));
  const sinks = c.sinks
    ? deviceTensor(
        normalArray(c.numQoHeads, 9).map((x) => 2 * x),
        [c.numQoHeads],
        'float32',
      )
    : undefined;
  const factors = (heads: number, seed: number): Float32Array =>
    normalArray(heads, seed).map((x) => (c.headScales ? 0.5 + Math.abs(x) : 1));
  const scales = { q: factors(c.numQoHeads, 5), k: factors(c.numKvHeads, 6), v: factors(c.numKvHeads, 7) };
  return { q, k: k!, v: v!, values, masks: bits, sinks, scales };
}

/** The masks in the form a case asks for. */
export function maskOptions(c: BatchCase, masks: readonly Uint8Array[] | undefined) {
  if (masks === undefined) return {};
  const flat = (parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]));
  const [elements, packed] = [flat(masks), flat(masks.map(packMask))];
  const onDevice = (values: Uint8Array, dtype: DType) =>
    flashinfer.tensor(values, { shape: [values.length], dtype, device: testDevice });
  switch (c.maskForm ?? 'bool') {
    case 'bool':
      return { customMask: onDevice(elements, 'bool') };
    case 'packed':
      return { packedCustomMask: onDevice(packed, 'uint8') };
    case 'host':
      return { customMask: elements };
    default:
      return { packedCustomMask: packed };
  }
}

const outDtypeOf = (c: BatchCase): FloatDType => (c.dtype === 'float8_e4m3fn' ? (c.outDtype ?? 'float16') : c.dtype);

/** Rows `[n, heads, dim]` times their head's factor. */
function times(tensor: flashinfer.Tensor, factors: Float32Array, dim: number): Float64Array {
  return heldValues(tensor).map((x, n) => x * factors[Math.floor(n / dim) % factors.length]!);
}

/** What `run()` is given besides tensors to write to. */
function runOptions(inputs: ReturnType<typeof makeInputs>, c: BatchCase) {
  const scale = (x: Float32Array) => deviceTensor(x, [x.length], 'float32');
  const { q, k, v } = inputs.scales;
  return {
    returnLse: true,
    ...(inputs.sinks && { sinks: inputs.sinks }),
    ...(c.headScales && { qScale: scale(q), kScale: scale(k), vScale: scale(v) }),
  } as const;
}

const outShape = (c: BatchCase): number[] => [total(c.qoLens), c.numQoHeads, valueDim(c)];

export function planOptions(c: BatchCase) {
  const { numQoHeads, numKvHeads, headDim, dtype } = c;
  return {
    numQoHeads,
    numKvHeads,
    headDimQk: headDim,
    headDimVo: valueDim(c),
    qDtype: dtype,
    kvDtype: c.kvDtype ?? dtype,
    ...(c.outDtype && { outDtype: c.outDtype }),
    ...c.options,
    ...c.plan,
  };
}

/** Compares each request with its own reference; NaN beside the requests' rows must not leak in. */
export function expectBatch(
  c: BatchCase,
  inputs: ReturnType<typeof makeInputs>,
  out: ArrayLike<number>,
  lse: ArrayLike<number>,
) {
  const headDims = { q: c.headDim, k: c.headDim, v: valueDim(c) };
  const [q, k, v] = (['q', 'k', 'v'] as const).map((name) => times(inputs[name], inputs.scales[name], headDims[name]));
  const { numQoHeads, numKvHeads, headDim, options = {} } = c;
  const headDimVo = valueDim(c);
  const longest = Math.max(...c.kvLens, ...c.qoLens);
  const rope = options.posEncodingMode === 'ROPE_LLAMA' ? longest : 0;
  let row = 0;
  let key = 0;
  c.qoLens.forEach((qoLen, r) => {
    const kvLen = c.kvLens[r]!;
    const part = (x: Float64Array, first: number, count: number, heads: number, dim = headDim): Float64Array =>
      x.subarray(first * heads * dim, (first + count) * heads * dim);
    const reference = attentionReference(
      { qoLen, kvLen, numQoHeads, numKvHeads, headDimQk: headDim, headDimVo },
      {
        q: part(q!, row, qoLen, numQoHeads),
        k: part(k!, key, kvLen, numKvHeads),
        v: part(v!, key, kvLen, numKvHeads, headDimVo),
      },
      {
        ...options,
        ...(inputs.masks && { customMask: inputs.masks[r]! }),
        ...(inputs.sinks && { sinks: heldValues(inputs.sinks) }),
      },
    );
    const maxLogit = largestLogit(reference.lse);
    const tolerance = attentionTolerance(outDtypeOf(c), { maxRopePosition: rope, maxLogit });
    const label = `[seed ${testSeed}] request ${r}: qo ${qoLen}, kv ${kvLen}`;
    const width = numQoHeads * headDimVo;
    const got = Float64Array.from({ length: qoLen * width }, (_, i) => out[row * width + i]!);
    const gotLse = Float64Array.from({ length: qoLen * numQoHeads }, (_, i) => lse[row * numQoHeads + i]!);
    if (qoLen > 0) {
      if (c.dtype === 'float8_e4m3fn' && onCuda) expectFloat8Close(got, gotLse, reference, 4e-2, label);
      else {
        expectClose(got, reference.out, headDimVo, tolerance, `${label} out`);
        expectLseClose(gotLse, reference.lse, tolerance, `${label} lse`);
      }
    }
    row += qoLen;
    key += kvLen;
  });
}

export function pagedInputs(c: BatchCase) {
  const inputs = makeInputs(c);
  const { numKvHeads, pageSize = 1, kvLayout = 'NHD' } = c;
  const table = pageTable(c.kvLens, pageSize);
  const kvDtype = c.kvDtype ?? c.dtype;
  const page = kvLayout === 'NHD' ? [pageSize, numKvHeads] : [numKvHeads, pageSize];
  const caches = [c.headDim, valueDim(c)].map((dim, i) =>
    deviceTensor(scatter(inputs.values[i]!, c, dim, table), [table.numPages, ...page, dim], kvDtype),
  );
  if (c.tuple) return { inputs, table, cache: [caches[0]!, caches[1]!] as const };
  const both = flashinfer.empty([table.numPages, 2, ...page, c.headDim], { dtype: kvDtype, device: testDevice });
  both.select(1, 0).copy_(caches[0]!);
  both.select(1, 1).copy_(caches[1]!);
  return { inputs, table, cache: both };
}

export function runPaged(c: BatchCase, kind: 'decode' | 'prefill'): void {
  const { inputs, table, cache } = pagedInputs(c);
  const common = { kvLayout: c.kvLayout ?? 'NHD', device: testDevice, ...backendOption(c) } as const;
  const { pagedKvIndptr, pagedKvIndices, pagedKvLastPageLen } = table;
  const pages = { pagedKvIndptr, pagedKvIndices, pagedKvLastPageLen, pageSize: c.pageSize ?? 1 };
  const out = poisoned(outShape(c), outDtypeOf(c));
  const run = { out, ...runOptions(inputs, c) } as const;
  let result: [flashinfer.Tensor, flashinfer.Tensor];
  if (kind === 'decode') {
    const wrapper = kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper(common));
    wrapper.plan({ ...planOptions(c), ...pages });
    result = wrapper.run(inputs.q, cache, run);
  } else {
    const wrapper = kept(new flashinfer.BatchPrefillWithPagedKVCacheWrapper(common));
    wrapper.plan({ ...planOptions(c), ...pages, ...maskOptions(c, inputs.masks), qoIndptr: indptr(c.qoLens) });
    result = wrapper.run(inputs.q, cache, run);
  }
  expect(result[0]).toBe(out);
  expectBatch(c, inputs, out.toArraySync() as Float32Array, result[1].toArraySync() as Float32Array);
}

export function runRagged(c: BatchCase): void {
  const inputs = makeInputs(c);
  const hnd = c.kvLayout === 'HND';
  const wrapper = kept(
    new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({
      kvLayout: c.kvLayout ?? 'NHD',
      device: testDevice,
      ...backendOption(c),
    }),
  );
  const lengths = { qoIndptr: indptr(c.qoLens), kvIndptr: indptr(c.kvLens) };
  wrapper.plan({ ...planOptions(c), ...maskOptions(c, inputs.masks), ...lengths });
  const [k, v] = [inputs.k, inputs.v].map((x) => (hnd ? x.transpose(0, 1).contiguous() : x));
  const out = poisoned(outShape(c), outDtypeOf(c));
  const lse = wrapper.run(inputs.q, k!, v!, { out, ...runOptions(inputs, c) })[1];
  expectBatch(c, inputs, out.toArraySync() as Float32Array, lse.toArraySync() as Float32Array);
}
