// SPDX-License-Identifier: Apache-2.0
import { Checker } from '../check/checker.ts';
import { checkSeparate } from '../check/overlap.ts';
import { logCall } from '../logging.ts';
import type { DependentLaunchOptions } from '../runtime/dependentLaunch.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { cacheDtypes } from './appendPagedKVCache.ts';
import { type AppendIndices, appendIndexNames, readAppendTable } from './appendTable.ts';
import { checkCacheExtent } from './checkCacheExtent.ts';
import { type AppendHalf, runAppend } from './runAppend.ts';

/** Options of `appendPagedMlaKVCache`. */
export interface AppendPagedMlaKVCacheOptions extends AppendIndices, DependentLaunchOptions {
  /** Compressed keys and values, `[numPages, pageSize, headDimCkv]`, dtype of the new tokens; pages may be strided. */
  ckvCache: Tensor;
  /** The rotated parts of keys, `[numPages, pageSize, headDimKpe]`. */
  kpeCache: Tensor;
}

const optionNames = [...appendIndexNames, 'ckvCache', 'kpeCache', 'enablePdl'];

/**
 * Writes the compressed kv and the rotated keys of new tokens into the pages of a cache of multi-head latent attention;
 * places are found as by `appendPagedKVCache`.
 * @param ckv `[nnz, headDimCkv]`, 512 in DeepSeek, float16 | bfloat16 | float32 | float8_e4m3fn | float8_e5m2, last
 *   dimension contiguous
 * @param kpe `[nnz, headDimKpe]`, 64 in DeepSeek, dtype of ckv
 * @param options see {@link AppendPagedMlaKVCacheOptions}
 * @throws {InvalidArgumentError} as `appendPagedKVCache`
 * @remarks Asynchronous on the current stream; as `appendPagedKVCache`.
 * @see FlashInfer `append_paged_mla_kv_cache`
 * @example
 * ```ts
 * import { appendPagedMlaKVCache, randn, zeros } from '@flashinfer/core';
 *
 * const ckvCache = zeros([8, 16, 512], { dtype: 'bfloat16' });
 * const kpeCache = zeros([8, 16, 64], { dtype: 'bfloat16' });
 * const ckv = randn([2, 512], { dtype: 'bfloat16' });
 * const kpe = randn([2, 64], { dtype: 'bfloat16' });
 * // One new token of each of two requests, at positions 17 and 3.
 * const table = { kvIndices: [3, 0, 5], kvIndptr: [0, 2, 3], batchIndices: [0, 1], positions: [17, 3] };
 * appendPagedMlaKVCache(ckv, kpe, { ckvCache, kpeCache, ...table });
 * ```
 */
export function appendPagedMlaKVCache(ckv: Tensor, kpe: Tensor, options: AppendPagedMlaKVCacheOptions): void {
  const name = 'appendPagedMlaKVCache';
  const check = new Checker(name);
  check.tensor('ckv', ckv, ['nnz', 'headDimCkv'], { dtypes: cacheDtypes, lastDimContiguous: true });
  const rule = { dtypes: [ckv.dtype], lastDimContiguous: true };
  check.tensor('kpe', kpe, ['nnz', 'headDimKpe'], rule);
  check.options(options, optionNames).flag('enablePdl', options.enablePdl);
  const { ckvCache, kpeCache, enablePdl } = options;
  check.tensor('ckvCache', ckvCache, ['numPages', 'pageSize', 'headDimCkv'], rule);
  check.tensor('kpeCache', kpeCache, ['numPages', 'pageSize', 'headDimKpe'], rule);
  const cache = checkCacheExtent(check, ckv.shape[0]!, 1);
  checkSeparate(name, 'ckvCache', ckvCache, 'kpeCache', kpeCache);
  checkSeparate(name, 'ckv', ckv, 'ckvCache', ckvCache);
  checkSeparate(name, 'kpe', kpe, 'kpeCache', kpeCache);
  checkSeparate(name, 'ckv', ckv, 'kpeCache', kpeCache);
  checkSeparate(name, 'kpe', kpe, 'ckvCache', ckvCache);
  const table = readAppendTable(check, options, cache);
  logCall(name, { ckv, kpe, options });
  runAppend({ k: half(ckv, ckvCache), v: half(kpe, kpeCache), rows: ckv.shape[0]!, heads: 1, cache, table, enablePdl });
}

function half(x: Tensor, cache: Tensor): AppendHalf {
  return {
    x,
    width: x.shape[1]!,
    strideN: x.strides[0]!,
    strideH: 0,
    cache,
    cachePtr: cache.ptr,
    cacheStridePage: cache.strides[0]!,
    cacheStrideN: cache.strides[1]!,
    cacheStrideH: 0,
  };
}
