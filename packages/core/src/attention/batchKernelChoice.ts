// SPDX-License-Identifier: Apache-2.0
// Which kernels and tiles serve a batch.

import { dtypes } from '../tensor/dtype.ts';
import type { PlannedAttention, PlannedKernels } from './batchCall.ts';
import { batchDecodeSpec, batchMergeSpec, batchPrefillSpec } from './batchKernel.ts';
import type { BatchRequests, BatchShape } from './batchPlan.ts';
import { chooseDecodeTile, decodeRows, decodeSharedBytes, decodeSlots } from './decodeKernel.ts';
import { blocksPerSm, type DeviceLimits, residencyBytes } from './deviceLimits.ts';
import { type HopperChoice, hopperKernels, prefersHopper } from './hopperBatch.ts';
import { hopperFp8Kernels } from './hopperFp8Batch.ts';
import type { PlanMaxima } from './planBuffer.ts';
import { choosePrefillTile, prefillSharedBytes } from './prefillKernel.ts';
import { headDimVoOf } from './request.ts';
import { cachedSpec } from './specCache.ts';

/** The template that the batch's lengths suggest, or this one, for so many packed rows (tokens × group) a request. */
export type KernelWish = 'auto' | { readonly template: 'decode' | 'prefill'; readonly packedRows: number };

/** Kernels and tiles of a plan. `maxima`: for any lengths within those of a graph, not for this plan's. */
export function chooseBatchKernels(
  caller: string,
  attention: PlannedAttention,
  requests: BatchRequests,
  wish: KernelWish,
  maxima: PlanMaxima | undefined,
  limits: DeviceLimits,
  choice: HopperChoice,
): PlannedKernels {
  if (attention.qDtype === 'float8_e4m3fn') return hopperFp8Kernels(attention, requests, maxima, limits);
  const group = attention.numQoHeads / attention.numKvHeads;
  const fits = wish === 'auto' || choice.backend === 'fa3';
  if (fits && prefersHopper(caller, attention, requests, maxima, limits, choice)) {
    return hopperKernels(attention, requests, maxima, limits, choice.scratch);
  }
  if (wish !== 'auto') {
    if (wish.template === 'prefill') return prefillKernels(attention, wish.packedRows, limits);
    return decodeKernels(attention, wish.packedRows, requests, maxima, limits);
  }
  if (maxima === undefined && longest(requests) * group <= decodeRows) {
    return decodeKernels(attention, group, requests, maxima, limits);
  }
  // By the average: short requests waste most of a 128-row tile.
  const rows = maxima === undefined ? averageRows(requests, group) : maxima.numTokens * group;
  return prefillKernels(attention, rows, limits);
}

function decodeKernels(
  attention: PlannedAttention,
  packedRows: number,
  requests: BatchRequests,
  maxima: PlanMaxima | undefined,
  limits: DeviceLimits,
): PlannedKernels {
  const { batchSize } = maxima ?? requests;
  const blocks = batchSize * Math.ceil(packedRows / decodeRows) * attention.numKvHeads;
  const tile = chooseDecodeTile(attention, limits, blocks);
  const fixedGrid = maxima !== undefined;
  const slots = decodeSlots(attention, limits, tile, blocks, fixedGrid);
  const needed = decodeSharedBytes(attention, tile);
  const sharedBytes = fixedGrid ? residencyBytes(limits, needed, slots / limits.numSms) : needed;
  const key = `batch_decode_${attention.pageSize > 0}_${tile.warps}_${tile.kvTile}_${tile.stages}`;
  const shape: BatchShape = {
    numQoHeads: attention.numQoHeads,
    numKvHeads: attention.numKvHeads,
    headDimVo: headDimVoOf(attention.headDim),
    windowLeft: attention.windowLeft,
    tileRows: decodeRows,
    kvTile: tile.kvTile,
    slots,
    minTiles: tile.warps,
    mergesInPlace: true,
    pageSize: attention.pageSize,
    evictedTiles: evictedTiles(attention, tile.kvTile, limits),
  };
  const spec = cachedSpec(attention, key, () => batchDecodeSpec(attention, tile, attention.pageSize > 0));
  return { spec, mergeSpec: undefined, sharedBytes, shape };
}

/**
 * Keys and values that a decode step reads once and no more shall not push what others want out of L2: there they replace
 * each other. On H200, single launches after 50 MB of writes that L2 still held, that took 25.9 us for 28.5 (67 MB of keys
 * and values), 19.3 for 20.8 (34 MB), 77.3 for 77.5 (270 MB); from 400 MB on it lost 3 to 5 %.
 */
function evictedTiles(
  { numKvHeads, headDim, kvDtype }: PlannedAttention,
  kvTile: number,
  limits: DeviceLimits,
): number {
  const tileBytes = kvTile * numKvHeads * (headDim + headDimVoOf(headDim)) * dtypes[kvDtype].bytes;
  return Math.floor((6 * limits.l2Bytes) / tileBytes);
}

function prefillKernels(attention: PlannedAttention, rows: number, limits: DeviceLimits): PlannedKernels {
  const paged = attention.pageSize > 0;
  const tile = choosePrefillTile(attention, rows, limits, paged);
  const sharedBytes = prefillSharedBytes(attention, tile, paged);
  const key = `batch_prefill_${paged}_${tile.mTiles}_${tile.kvTile}`;
  const shape: BatchShape = {
    numQoHeads: attention.numQoHeads,
    numKvHeads: attention.numKvHeads,
    headDimVo: headDimVoOf(attention.headDim),
    windowLeft: attention.windowLeft,
    tileRows: tile.mTiles * 64,
    kvTile: tile.kvTile,
    slots: limits.numSms * Math.min(2, blocksPerSm(limits, sharedBytes)),
    // Four tiles took 15 + 4 us where two take 11 + 5 (H200, 64 rows of 32 heads over 1024 keys).
    minTiles: 2,
    mergesInPlace: false,
  };
  return {
    spec: cachedSpec(attention, key, () => batchPrefillSpec(attention, tile, paged)),
    mergeSpec: cachedSpec(attention, 'batch_merge', () => batchMergeSpec(attention)),
    sharedBytes,
    shape,
  };
}

function longest({ qoLen, batchSize }: BatchRequests): number {
  let most = 0;
  for (let r = 0; r < batchSize; ++r) if (qoLen[r]! > most) most = qoLen[r]!;
  return most;
}

function averageRows({ qoLen, batchSize }: BatchRequests, group: number): number {
  let total = 0;
  for (let r = 0; r < batchSize; ++r) total += qoLen[r]!;
  return batchSize === 0 ? 0 : (total * group) / batchSize;
}
