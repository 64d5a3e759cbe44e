// SPDX-License-Identifier: Apache-2.0
// Reading the paged KV-cache argument: one tensor or a (k, v) pair, NHD or HND pages.
import type { Checker } from '../check/checker.ts';
import type { Device } from '../runtime/device.ts';
import type { DType } from '../tensor/dtype.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { PagedKVCache } from './batchOptions.ts';
import type { KvLayout } from './options.ts';
import { headDimVoOf } from './request.ts';

/** Addresses and strides (elements) of one half of a KV input; ragged inputs have no page stride. */
export interface KvView {
  readonly ptr: number;
  readonly strideN: number;
  readonly strideH: number;
  readonly stridePage: number;
}

export interface KvRule {
  readonly layout: KvLayout;
  readonly pageSize: number;
  readonly numKvHeads: number;
  /** Of k; headDimVoOf it v. */
  readonly headDim: number;
  readonly dtype: DType;
  readonly device: Device;
}

/** Checks a cache against the plan; returns both halves and the number of pages. */
export function readPagedKvCache(
  check: Checker,
  cache: PagedKVCache,
  rule: KvRule,
): { k: KvView; v: KvView; numPages: number; tensors: Record<string, Tensor> } {
  const { layout, pageSize, numKvHeads, headDim, dtype, device } = rule;
  const page = layout === 'NHD' ? [pageSize, numKvHeads] : [numKvHeads, pageSize];
  const headDimVo = headDimVoOf(headDim);
  const tensorRule = { dtypes: [dtype], device, lastDimContiguous: true } as const;
  if (Array.isArray(cache)) {
    const [k, v] = requirePair(check, cache);
    check.tensor('kCache', k, ['numPages', ...page, headDim], tensorRule);
    check.tensor('vCache', v, ['numPages', ...page, headDimVo], tensorRule);
    const tensors = { kCache: k, vCache: v };
    return { k: view(k, 0, 1, layout), v: view(v, 0, 1, layout), numPages: check.dim('numPages'), tensors };
  }
  const both = cache as Tensor;
  if (headDimVo !== headDim) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `pagedKVCache is one value and headDimQk=${headDim} differs from headDimVo=${headDimVo}; expected a pair of ` +
        'tensors, since k and v of one tensor have one head dimension; pass [k, v]',
    );
  }
  check.tensor('pagedKVCache', both, ['numPages', 2, ...page, headDim], tensorRule);
  const half = (both.strides[1] ?? 0) * dtypes[dtype].bytes;
  const tensors = { pagedKVCache: both };
  return { k: view(both, 0, 2, layout), v: view(both, half, 2, layout), numPages: check.dim('numPages'), tensors };
}

/** The two tensors of a cache that is an array. */
export function requirePair(check: Checker, cache: readonly Tensor[]): readonly [Tensor, Tensor] {
  if (cache.length === 2) return cache as readonly [Tensor, Tensor];
  throw check.error(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `pagedKVCache is an array of ${cache.length}; expected [k, v] or one tensor; pass the cache of one layer`,
  );
}

function view(tensor: Tensor, byteOffset: number, first: number, layout: KvLayout): KvView {
  const { strides } = tensor;
  const nhd = layout === 'NHD';
  return {
    ptr: tensor.ptr + byteOffset,
    strideN: strides[first + (nhd ? 0 : 1)]!,
    strideH: strides[first + (nhd ? 1 : 0)]!,
    stridePage: strides[0]!,
  };
}

/** Ragged k or v `[rows, heads, dim]` (NHD) or `[heads, rows, dim]` (HND). */
export function raggedView(tensor: Tensor, layout: KvLayout): KvView {
  const nhd = layout === 'NHD';
  return {
    ptr: tensor.ptr,
    strideN: tensor.strides[nhd ? 0 : 1]!,
    strideH: tensor.strides[nhd ? 1 : 0]!,
    stridePage: 0,
  };
}
