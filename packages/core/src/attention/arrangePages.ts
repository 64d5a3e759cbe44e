// SPDX-License-Identifier: Apache-2.0
// Keys and values in pages, copied into rows at equal distances before the fa3 template reads each of them many times
// (include/flashinfer/attention/arrange_pages.cuh).
import { divisionMultiplier } from '../jit/divisionMultiplier.ts';
import { getKernel } from '../jit/kernel.ts';
import type { KernelSpec } from '../jit/spec.ts';
import { currentStream } from '../runtime/stream.ts';
import type { BatchCall, PlannedAttention } from './batchCall.ts';
import type { BatchRequests } from './batchPlan.ts';
import { scratchAddress } from './callerWorkspace.ts';
import type { HopperKv } from './hopperKernel.ts';
import type { KvView } from './pagedKvCache.ts';
import { headDimVoOf } from './request.ts';

/** Of a plan whose pages are copied first. */
export interface ArrangedPages {
  readonly spec: KernelSpec;
  /** Of all pages in the list, whole. */
  readonly rows: number;
}

type Rows = Pick<KvView, 'ptr' | 'strideN' | 'strideH'>;

/** Where they are afterwards. */
export interface ArrangedKv {
  readonly rows: number;
  readonly k: Rows;
  readonly v: Rows;
}

/**
 * Tiles of 128 packed query rows that must read a key, on average, for its copy to take less time than reading pages does:
 * H200, headDim 128, bfloat16. Only long prompts have so many. Other headDims were not measured at the limit: there a copy
 * must cost half as much, and pages that are read by box stay.
 */
const worthwhileTiles: Record<HopperKv, number> = { rows: Infinity, tokens: 26, gather: 20, pages: 55 };

function leastTiles(headDim: number, kv: HopperKv): number {
  if (headDim === 128) return worthwhileTiles[kv];
  return kv === 'pages' ? Infinity : 2 * worthwhileTiles[kv];
}

/** Scratch never shrinks, and servers leave little memory for it: what is longer is read out of its pages. */
const mostBytes = 2 ** 27;

/** Rows to copy, or 0 where pages are read as they are; `scratch`: bytes that the caller leaves for them. */
export function rowsToArrange(
  attention: PlannedAttention,
  requests: BatchRequests,
  kv: HopperKv,
  scratch = mostBytes,
): number {
  const least = leastTiles(attention.headDim, kv);
  const { batchSize, kvStart, kvLen, qoLen } = requests;
  if (least === Infinity) return 0;
  const { pageSize, numQoHeads, numKvHeads, maskMode, windowLeft } = attention;
  let pages = 0;
  let read = 0;
  for (let r = 0; r < batchSize; ++r) {
    pages = Math.max(pages, kvStart[r]! + Math.ceil(kvLen[r]! / pageSize));
    const queries = maskMode === 'causal' ? Math.min(qoLen[r]!, kvLen[r]!) : qoLen[r]!;
    const seen = maskMode === 'causal' ? kvLen[r]! - queries / 2 : kvLen[r]!;
    read += queries * (windowLeft < 0 ? seen : Math.min(seen, windowLeft + 1));
  }
  const rows = pages * pageSize;
  if (arrangedBytes(attention, rows) > Math.min(mostBytes, scratch)) return 0;
  return (read * numQoHeads) / numKvHeads >= 128 * least * rows ? rows : 0;
}

export function arrangedBytes({ headDim, numKvHeads }: PlannedAttention, rows: number): number {
  return rows * numKvHeads * (headDim + headDimVoOf(headDim)) * 2;
}

/** Of a block of the copy, and rows that a thread moves 16 bytes of. */
const threads = 256;
const rowsAThread = 4;

export function arrangePagesSpec(headDim: number): KernelSpec {
  return {
    name: `arrange_pages_hd${headDim}`,
    header: 'flashinfer/attention/arrange_pages.cuh',
    entry: `flashinfer::arrange_pages<flashinfer::ArrangePagesConfig<${headDim * 2}, ${headDimVoOf(headDim) * 2}, ${threads}, ${rowsAThread}>>`,
    params: [
      { name: 'k', type: 'ptr' },
      { name: 'v', type: 'ptr' },
      { name: 'arranged', type: 'ptr' },
      { name: 'kv_indices', type: 'ptr' },
      { name: 'k_stride_page', type: 'i64' },
      { name: 'k_stride_n', type: 'i64' },
      { name: 'k_stride_h', type: 'i64' },
      { name: 'v_stride_page', type: 'i64' },
      { name: 'v_stride_n', type: 'i64' },
      { name: 'v_stride_h', type: 'i64' },
      { name: 'page_size', type: 'i32' },
      { name: 'page_size_multiplier', type: 'u32' },
      { name: 'rows', type: 'u32' },
      { name: 'num_kv_heads', type: 'u32' },
      { name: 'heads_multiplier', type: 'u32' },
    ],
    threads,
    minBlocksPerSm: 4,
    minArch: 90,
    exactArch: 'sm_90a',
  };
}

/** Launches the copy; `pageList` is the address of the plan's page ids. */
export function arrangePages(
  caller: string,
  call: BatchCall,
  { spec, rows }: ArrangedPages,
  pageList: number,
): ArrangedKv {
  const { attention } = call.planned;
  const { headDim, numKvHeads, pageSize } = attention;
  const { deviceIndex } = call.q;
  const arranged = scratchAddress(caller, call.workspace, deviceIndex, arrangedBytes(attention, rows));
  const headDimVo = headDimVoOf(headDim);
  const { k, v } = call.kv;
  const own = {
    arranged,
    rows,
    k: k.ptr,
    v: v.ptr,
    kv_indices: pageList,
    k_stride_page: k.stridePage,
    k_stride_n: k.strideN,
    k_stride_h: k.strideH,
    v_stride_page: v.stridePage,
    v_stride_n: v.strideN,
    v_stride_h: v.strideH,
    page_size: pageSize,
    page_size_multiplier: divisionMultiplier(pageSize),
    num_kv_heads: numKvHeads,
    heads_multiplier: divisionMultiplier(numKvHeads),
  };
  const slots = Math.floor(threads / ((headDim + headDimVo) / 8));
  const blocks = Math.ceil((rows * numKvHeads) / (slots * rowsAThread));
  getKernel(spec, deviceIndex).launch([blocks, 1, 1], own, { stream: currentStream(deviceIndex) });
  return {
    rows,
    k: { ptr: arranged, strideN: headDim, strideH: rows * headDim },
    v: { ptr: arranged + rows * numKvHeads * headDim * 2, strideN: headDimVo, strideH: rows * headDimVo },
  };
}
