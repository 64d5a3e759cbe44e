// SPDX-License-Identifier: Apache-2.0
import type { PagedKVCache } from '../attention/batchOptions.ts';
import type { KvLayout } from '../attention/options.ts';
import { requirePair } from '../attention/pagedKvCache.ts';
import { Checker } from '../check/checker.ts';
import { checkSeparate } from '../check/overlap.ts';
import { logCall } from '../logging.ts';
import type { DependentLaunchOptions } from '../runtime/dependentLaunch.ts';
import { type DType, dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type AppendIndices, appendIndexNames, readAppendTable } from './appendTable.ts';
import { checkCacheExtent } from './checkCacheExtent.ts';
import { type AppendHalf, runAppend } from './runAppend.ts';

/** Options of `appendPagedKVCache`. */
export interface AppendPagedKVCacheOptions extends AppendIndices, DependentLaunchOptions {
  /** dtype of the new tokens, any page size; pages may be strided, elements of a head lie together. */
  pagedKVCache: PagedKVCache;
  /** Layout of a page. Default `'NHD'`. */
  kvLayout?: KvLayout;
}

const optionNames = [...appendIndexNames, 'pagedKVCache', 'kvLayout', 'enablePdl'];
const layouts: readonly KvLayout[] = ['NHD', 'HND'];
export const cacheDtypes: readonly DType[] = ['float16', 'bfloat16', 'float32', 'float8_e4m3fn', 'float8_e5m2'];

/**
 * Writes k and v of new tokens into the pages of a KV-cache. Token i is entry `positions[i] % pageSize` of page
 * `kvIndices[kvIndptr[r] + floor(positions[i] / pageSize)]` with request r = `batchIndices[i]`.
 * @param k `[nnz, numKvHeads, headDim]` float16 | bfloat16 | float32 | float8_e4m3fn | float8_e5m2, last dimension
 *   contiguous
 * @param v `[nnz, numKvHeads, headDim]`, dtype of k; with a pair of caches its headDim may be another
 * @param options see {@link AppendPagedKVCacheOptions}
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option, and on indices in host memory that
 *   lead out of the page table or the cache
 * @remarks Asynchronous on the current stream. Values are copied, not converted: quantise to fp8 before. Indices in
 *   device memory cannot be checked; tokens that they give no place in the cache are skipped. Two tokens in one place
 *   leave either.
 * @see FlashInfer `append_paged_kv_cache`
 * @example
 * ```ts
 * import { appendPagedKVCache, getBatchIndicesPositions, randn, zeros } from '@flashinfer/core';
 *
 * // Two requests, pages of 16: 20 tokens in pages 3 and 0, 7 in page 5, of which 4 and 7 are new.
 * const pagedKVCache = zeros([8, 2, 16, 8, 128], { dtype: 'bfloat16' });
 * const table = { kvIndices: [3, 0, 5], kvIndptr: [0, 2, 3], kvLastPageLen: [4, 7] };
 * const [batchIndices, positions] = getBatchIndicesPositions([0, 4, 11], [20, 7], 11);
 * const k = randn([11, 8, 128], { dtype: 'bfloat16' });
 * const v = randn([11, 8, 128], { dtype: 'bfloat16' });
 * appendPagedKVCache(k, v, { batchIndices, positions, pagedKVCache, ...table });
 * ```
 */
export function appendPagedKVCache(k: Tensor, v: Tensor, options: AppendPagedKVCacheOptions): void {
  const name = 'appendPagedKVCache';
  const check = new Checker(name);
  check.tensor('k', k, ['nnz', 'numKvHeads', 'headDim'], { dtypes: cacheDtypes, lastDimContiguous: true });
  check.tensor('v', v, ['nnz', 'numKvHeads', 'headDimVo'], { dtypes: [k.dtype], lastDimContiguous: true });
  check.options(options, optionNames).oneOf('kvLayout', options.kvLayout, layouts).flag('enablePdl', options.enablePdl);
  const { pagedKVCache, kvLayout = 'NHD', enablePdl } = options;
  const halves = readCache(check, k, v, pagedKVCache, kvLayout);
  const cache = checkCacheExtent(check, k.shape[0]!, k.shape[1]!);
  for (const half of new Set(halves.map((h) => h.cache))) {
    checkSeparate(name, 'k', k, 'pagedKVCache', half);
    checkSeparate(name, 'v', v, 'pagedKVCache', half);
  }
  const table = readAppendTable(check, options, cache);
  logCall(name, { k, v, options });
  runAppend({ k: halves[0], v: halves[1], rows: k.shape[0]!, heads: k.shape[1]!, cache, table, enablePdl });
}

function readCache(
  check: Checker,
  k: Tensor,
  v: Tensor,
  cache: PagedKVCache,
  layout: KvLayout,
): readonly [AppendHalf, AppendHalf] {
  const rule = { dtypes: [k.dtype], lastDimContiguous: true };
  const page = layout === 'NHD' ? ['pageSize', 'numKvHeads'] : ['numKvHeads', 'pageSize'];
  if (Array.isArray(cache)) {
    const [kCache, vCache] = requirePair(check, cache);
    check.tensor('kCache', kCache, ['numPages', ...page, 'headDim'], rule);
    check.tensor('vCache', vCache, ['numPages', ...page, 'headDimVo'], rule);
    checkSeparate(check.functionName, 'kCache', kCache, 'vCache', vCache);
    return [half(k, kCache, 0, 1, layout), half(v, vCache, 0, 1, layout)];
  }
  const both = cache as Tensor;
  check.tensor('pagedKVCache', both, ['numPages', 2, ...page, 'headDim'], rule);
  check.bind('headDimVo', both.shape[4]!, 'pagedKVCache');
  return [half(k, both, 0, 2, layout), half(v, both, both.strides[1]!, 2, layout)];
}

/** `offset`: elements from the cache's first to the half's; `first`: dimension behind those of pages and halves. */
function half(x: Tensor, cache: Tensor, offset: number, first: number, layout: KvLayout): AppendHalf {
  const { strides, ptr, dtype } = cache;
  const nhd = layout === 'NHD';
  return {
    x,
    width: x.shape[2]!,
    strideN: x.strides[0]!,
    strideH: x.strides[1]!,
    cache,
    cachePtr: ptr + offset * dtypes[dtype].bytes,
    cacheStridePage: strides[0]!,
    cacheStrideN: strides[nhd ? first : first + 1]!,
    cacheStrideH: strides[nhd ? first + 1 : first]!,
  };
}
