// SPDX-License-Identifier: Apache-2.0
// Runs one checked append on its device.
import { divisionMultiplier } from '../jit/divisionMultiplier.ts';
import { getKernel } from '../jit/kernel.ts';
import { native } from '../native/load.ts';
import { usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { deviceProperties } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { vectorWidth } from '../tensor/vectorWidth.ts';
import { appendAhead } from './appendAhead.ts';
import type { AppendTable, CacheExtent } from './appendTable.ts';
import { withIndicesOn } from './indexArrays.ts';
import { appendSpec, chooseAppendTile, chooseWholeTile, fewestWholeItems } from './pageKernel.ts';

/** New k or v and its half of the cache; strides in elements. */
export interface AppendHalf {
  readonly x: Tensor;
  /** Elements of a head. */
  readonly width: number;
  readonly strideN: number;
  readonly strideH: number;
  readonly cache: Tensor;
  readonly cachePtr: number;
  readonly cacheStridePage: number;
  readonly cacheStrideN: number;
  readonly cacheStrideH: number;
}

export interface AppendCall {
  readonly k: AppendHalf;
  readonly v: AppendHalf;
  readonly rows: number;
  readonly heads: number;
  readonly cache: CacheExtent;
  readonly table: AppendTable;
  readonly enablePdl: boolean | undefined;
}

export function runAppend(call: AppendCall): void {
  if (call.k.x.size === 0 && call.v.x.size === 0) return;
  const { batchIndices, positions, kvIndices, kvIndptr } = call.table;
  withIndicesOn(call.k.x.device, [batchIndices, positions, kvIndices, kvIndptr], (indices) => {
    if (call.k.x.deviceIndex < 0) runOnCpu(call, indices);
    else runOnCuda(call, indices);
  });
}

function runOnCpu({ k, v, rows, heads, cache }: AppendCall, indices: readonly Tensor[]): void {
  const [batchIndices, positions, kvIndices, kvIndptr] = indices as [Tensor, Tensor, Tensor, Tensor];
  const { bytes } = dtypes[k.x.dtype];
  native().cpu.appendPagedKv({
    k: k.x.ptr,
    kCache: k.cachePtr,
    kWidth: k.width * bytes,
    kStrideN: k.strideN * bytes,
    kStrideH: k.strideH * bytes,
    kCacheStridePage: k.cacheStridePage * bytes,
    kCacheStrideN: k.cacheStrideN * bytes,
    kCacheStrideH: k.cacheStrideH * bytes,
    v: v.x.ptr,
    vCache: v.cachePtr,
    vWidth: v.width * bytes,
    vStrideN: v.strideN * bytes,
    vStrideH: v.strideH * bytes,
    vCacheStridePage: v.cacheStridePage * bytes,
    vCacheStrideN: v.cacheStrideN * bytes,
    vCacheStrideH: v.cacheStrideH * bytes,
    rows,
    heads,
    pageSize: cache.pageSize,
    numPages: cache.numPages,
    batchIndices: batchIndices.ptr,
    positions: positions.ptr,
    kvIndices: kvIndices.ptr,
    kvIndptr: kvIndptr.ptr,
    batchSize: kvIndptr.size - 1,
    numIndices: kvIndices.size,
  });
}

/** Whether k and v of a token are runs of memory of equal length, in the cache as well, and of enough whole accesses. */
function tokensAreWhole(k: AppendHalf, v: AppendHalf, heads: number, accessBytes: number): boolean {
  const { width } = k;
  if (
    accessBytes < 16 ||
    v.width !== width ||
    heads * width * dtypes[k.x.dtype].bytes < fewestWholeItems * accessBytes
  ) {
    return false;
  }
  const together = (half: AppendHalf): boolean => half.strideH === width && half.cacheStrideH === width;
  return heads === 1 || (together(k) && together(v));
}

function runOnCuda({ k, v, rows, heads, cache, enablePdl }: AppendCall, indices: readonly Tensor[]): void {
  const [batchIndices, positions, kvIndices, kvIndptr] = indices as [Tensor, Tensor, Tensor, Tensor];
  const { deviceIndex } = k.x;
  const { bytes } = dtypes[k.x.dtype];
  // A power of two divides both exactly where it divides their bitwise or.
  const vec = vectorWidth(k.width | v.width, [k.x, v.x, k.cache, v.cache]);
  const kChunks = k.width / vec;
  const vChunks = v.width / vec;
  const whole = tokensAreWhole(k, v, heads, vec * bytes);
  const items = heads * (whole ? kChunks : kChunks + vChunks);
  const numSms = deviceProperties(deviceIndex).multiProcessorCount;
  const tile = (whole ? chooseWholeTile : chooseAppendTile)(rows, items, numSms);
  const ahead = appendAhead(k, v, rows, heads, vec * bytes, tile, numSms);
  const args = {
    k: k.x.ptr,
    v: v.x.ptr,
    k_cache: k.cachePtr,
    v_cache: v.cachePtr,
    batch_indices: batchIndices.ptr,
    positions: positions.ptr,
    kv_indices: kvIndices.ptr,
    kv_indptr: kvIndptr.ptr,
    k_stride_n: k.strideN * bytes,
    k_stride_h: k.strideH * bytes,
    v_stride_n: v.strideN * bytes,
    v_stride_h: v.strideH * bytes,
    k_cache_stride_page: k.cacheStridePage * bytes,
    k_cache_stride_n: k.cacheStrideN * bytes,
    k_cache_stride_h: k.cacheStrideH * bytes,
    v_cache_stride_page: v.cacheStridePage * bytes,
    v_cache_stride_n: v.cacheStrideN * bytes,
    v_cache_stride_h: v.cacheStrideH * bytes,
    rows,
    heads,
    k_chunks: kChunks,
    k_chunks_multiplier: divisionMultiplier(kChunks),
    v_chunks: vChunks,
    v_chunks_multiplier: divisionMultiplier(vChunks),
    items,
    items_multiplier: divisionMultiplier(items),
    slots: tile.slots,
    page_size: cache.pageSize,
    page_size_multiplier: divisionMultiplier(cache.pageSize),
    num_pages: cache.numPages,
    batch_size: kvIndptr.size - 1,
    num_indices: kvIndices.size,
    ahead: ahead.tokens,
    ahead_run: ahead.run,
    k_ahead_bytes: ahead.kBytes,
    v_ahead_bytes: ahead.vBytes,
  };
  const kernel = getKernel(appendSpec(vec * bytes, tile), deviceIndex);
  const pdl = usesDependentLaunch(deviceIndex, enablePdl);
  const stream = currentStream(deviceIndex);
  kernel.launch([tile.blocks, tile.blocksPerToken, 1], args, { stream, pdl, threads: tile.threads });
}
