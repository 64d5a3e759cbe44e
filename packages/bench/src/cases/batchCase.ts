// SPDX-License-Identifier: Apache-2.0
// What the cases of the batch wrappers share: page tables, work, buffers.
import { type Device, randn, type Tensor } from '@flashinfer/core';

export interface BatchParams {
  readonly qoLens: readonly number[];
  readonly kvLens: readonly number[];
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  /** Of v and the output; default headDim. */
  readonly headDimVo?: number;
  /** 0: ragged keys and values. */
  readonly pageSize: number;
  /** Of keys and values; default bfloat16, which queries and outputs always have. */
  readonly kvDtype?: KvDtype;
}

export type KvDtype = 'bfloat16' | 'float8_e4m3fn';

/** What the name of a case says of its keys and values. */
export const kvSuffix = (kvDtype: KvDtype | undefined): string => (kvDtype === 'float8_e4m3fn' ? '_kv_e4m3' : '');

export function indptr(counts: readonly number[]): Int32Array {
  const result = new Int32Array(counts.length + 1);
  counts.forEach((count, i) => {
    result[i + 1] = result[i]! + count;
  });
  return result;
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Pages in an order as after some time of serving: neighbours in a request are not neighbours in memory. */
export function pageTable({ kvLens, pageSize }: BatchParams) {
  const pagedKvIndptr = indptr(kvLens.map((length) => Math.ceil(length / pageSize)));
  const numPages = pagedKvIndptr[kvLens.length]!;
  const pagedKvIndices = Int32Array.from({ length: numPages }, (_, i) => i);
  let state = 1;
  for (let i = numPages - 1; i > 0; --i) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes' generator: the same table in every run
    const j = state % (i + 1);
    const page = pagedKvIndices[i]!;
    pagedKvIndices[i] = pagedKvIndices[j]!;
    pagedKvIndices[j] = page;
  }
  const pagedKvLastPageLen = kvLens.map((length) => ((length - 1) % pageSize) + 1);
  return { pagedKvIndptr, pagedKvIndices, pagedKvLastPageLen, pageSize };
}

export function planShape({ numQoHeads, numKvHeads, headDim, headDimVo = headDim, kvDtype = 'bfloat16' }: BatchParams) {
  return { numQoHeads, numKvHeads, headDimQk: headDim, headDimVo, qDtype: 'bfloat16', kvDtype } as const;
}

/** q and out once, k and v once. */
export function keyValueBytes(params: BatchParams): number {
  const { qoLens, kvLens, numQoHeads, numKvHeads, headDim, headDimVo = headDim, kvDtype } = params;
  const kvBytes = kvDtype === 'float8_e4m3fn' ? 1 : 2;
  return (headDim + headDimVo) * (2 * sum(qoLens) * numQoHeads + kvBytes * sum(kvLens) * numKvHeads);
}

/** 2 Lq Lkv H (Dqk + Dvo) a request, half of it where a square causal mask hides half. */
export function batchFlops(params: BatchParams, causal: boolean): number {
  const { qoLens, kvLens, numQoHeads, headDim, headDimVo = headDim } = params;
  const pairs = qoLens.reduce((total, qoLen, r) => total + qoLen * kvLens[r]!, 0);
  return (2 * pairs * numQoHeads * (headDim + headDimVo)) / (causal ? 2 : 1);
}

export interface BatchBuffers {
  readonly q: Tensor;
  readonly out: Tensor;
  readonly cache?: Tensor;
  readonly k?: Tensor;
  readonly v?: Tensor;
}

export function batchBuffers(device: Device, rotations: number, params: BatchParams): BatchBuffers[] {
  const { qoLens, kvLens, numQoHeads, numKvHeads, headDim, headDimVo = headDim, pageSize } = params;
  const { kvDtype = 'bfloat16' } = params;
  const draw = (shape: number[], seed: number, dtype: KvDtype = 'bfloat16'): Tensor =>
    randn(shape, { dtype, device, seed });
  const rows = [sum(qoLens), numQoHeads];
  return Array.from({ length: rotations }, (_, n): BatchBuffers => {
    const shared = { q: draw([...rows, headDim], 4 * n), out: draw([...rows, headDimVo], 4 * n + 1) };
    if (pageSize === 0) {
      const keys = [sum(kvLens), numKvHeads];
      return {
        ...shared,
        k: draw([...keys, headDim], 4 * n + 2, kvDtype),
        v: draw([...keys, headDimVo], 4 * n + 3, kvDtype),
      };
    }
    const numPages = sum(kvLens.map((length) => Math.ceil(length / pageSize)));
    return { ...shared, cache: draw([numPages, 2, pageSize, numKvHeads, headDim], 4 * n + 2, kvDtype) };
  });
}

export function disposeBatch(buffers: readonly BatchBuffers[]): void {
  for (const { q, out, cache, k, v } of buffers) for (const x of [q, out, cache, k, v]) x?.dispose();
}
