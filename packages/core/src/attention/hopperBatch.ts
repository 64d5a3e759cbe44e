// SPDX-License-Identifier: Apache-2.0
// Batches on the fa3 template: when it serves, its tile, and what its launch takes besides the fa2 kernels' arguments.
import { UnsupportedError } from '../errors.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type ArrangedKv, arrangePagesSpec, rowsToArrange } from './arrangePages.ts';
import type { BatchCall, HopperLaunch, PlannedAttention, PlannedKernels } from './batchCall.ts';
import type { BatchRequests, SplitOptions } from './batchPlan.ts';
import type { DeviceLimits } from './deviceLimits.ts';
import {
  chooseHopperTile,
  hopperHeadSection,
  hopperIsSlower,
  hopperKv,
  hopperPagedTile,
  hopperRefusal,
  hopperRows,
  hopperSharedBytes,
  hopperSpec,
  hopperStagesOutput,
  hopperWarpgroupRows,
} from './hopperKernel.ts';
import { pagesMap, queryMap, rowsMap } from './hopperMaps.ts';
import type { AttentionBackend } from './options.ts';
import type { PlanMaxima } from './planBuffer.ts';
import { headDimVoOf } from './request.ts';
import { cachedSpec } from './specCache.ts';

/** Of the queue of items: places taken, and blocks that are done. */
export const hopperCounters = 2;

export interface HopperChoice {
  readonly backend: AttentionBackend;
  /** Compute capability, e.g. 90. */
  readonly arch: number;
  readonly split: SplitOptions;
  /** Bytes of the caller's scratch, if it brought some. */
  readonly scratch: number | undefined;
}

/** Whether the template takes a prefill plan. `maxima`: decided once for all plans of a graph. */
export function prefersHopper(
  caller: string,
  attention: PlannedAttention,
  requests: BatchRequests,
  maxima: PlanMaxima | undefined,
  limits: DeviceLimits,
  { backend, arch, split }: HopperChoice,
): boolean {
  if (backend === 'fa2' || (backend === 'auto' && arch !== 90)) return false;
  const refusal = hopperRefusal(attention);
  if (backend === 'fa3') {
    if (refusal === undefined) return true;
    throw new UnsupportedError(
      'ERR_FLASHINFER_UNSUPPORTED',
      `${caller}: backend 'fa3' has no kernel for ${refusal}; expected options that it has; use backend 'auto' or 'fa2'`,
    );
  }
  // Bits that do not depend on the batch must come from one template, whatever the batch.
  const { fixedSplitSize, disableSplitKv = false } = split;
  if (refusal !== undefined || hopperIsSlower(attention) || fixedSplitSize !== undefined || disableSplitKv)
    return false;
  return fillsGpu(attention, requests, maxima, limits);
}

/**
 * The template does not split keys, so it needs query tiles for at least half of the multiprocessors: there its twofold
 * speed makes up for the idle ones. Rows of short requests fill its tiles badly.
 */
function fillsGpu(
  attention: PlannedAttention,
  requests: BatchRequests,
  maxima: PlanMaxima | undefined,
  limits: DeviceLimits,
): boolean {
  const { numQoHeads, numKvHeads } = attention;
  const group = numQoHeads / numKvHeads;
  const rows = chooseHopperTile(attention, expectedKeys(requests, maxima)).warpgroups * hopperWarpgroupRows(group);
  let tiles = 0;
  let packed = 0;
  if (maxima === undefined) {
    for (let r = 0; r < requests.batchSize; ++r) {
      tiles += Math.ceil((requests.qoLen[r]! * group) / rows);
      packed += requests.qoLen[r]! * group;
    }
  } else {
    packed = maxima.numTokens * group;
    tiles = Math.ceil(packed / rows);
  }
  return 2 * tiles * numKvHeads >= limits.numSms && 2 * packed >= tiles * rows;
}

export function hopperKernels(
  attention: PlannedAttention,
  requests: BatchRequests,
  maxima: PlanMaxima | undefined,
  limits: DeviceLimits,
  scratch?: number,
): PlannedKernels {
  const { headDim, numQoHeads, numKvHeads, pageSize, windowLeft } = attention;
  const wanted = chooseHopperTile(attention, expectedKeys(requests, maxima));
  const pagedTile = pageSize === 0 ? wanted : hopperPagedTile(wanted, headDim, pageSize);
  const pagedKv = hopperKv(pageSize, pagedTile.kvTile);
  // A graph's launches may not change from plan to plan.
  const arrangedRows = maxima === undefined ? rowsToArrange(attention, requests, pagedKv, scratch) : 0;
  const arranged =
    arrangedRows > 0
      ? { spec: cachedSpec(attention, 'arrange_pages', () => arrangePagesSpec(headDim)), rows: arrangedRows }
      : undefined;
  const tile = arranged === undefined ? pagedTile : wanted;
  const kv = arranged === undefined ? pagedKv : 'rows';
  const rows = hopperRows(attention);
  const key = `fa3_${kv}_${tile.warpgroups}_${tile.kvTile}_${tile.stages}`;
  return {
    spec: cachedSpec(attention, key, () => hopperSpec(attention, tile, kv, true)),
    mergeSpec: undefined,
    arranged,
    sharedBytes: hopperSharedBytes(attention, tile),
    shape: {
      numQoHeads,
      numKvHeads,
      headDimVo: headDimVoOf(headDim),
      windowLeft,
      tileRows: tile.warpgroups * rows.warpgroup_rows,
      kvTile: tile.kvTile,
      slots: limits.numSms,
      minTiles: 1,
      arrangedPageSize: arranged === undefined ? 1 : pageSize,
      mergesInPlace: false,
      neverSplits: true,
    },
    hopper: {
      kv,
      kvTile: tile.kvTile,
      rows,
      stagesOutput: hopperStagesOutput(attention, tile),
      headSection: hopperHeadSection(attention, longest(requests)),
    },
  };
}

/**
 * Keys of a request that the tile is chosen for. All plans of a graph must get the same tile, so there the maxima decide:
 * the queries of a request when the graph is full, which in prefill is about the number of its keys.
 */
function expectedKeys(requests: BatchRequests, maxima: PlanMaxima | undefined): number {
  return maxima === undefined ? longest(requests) : maxima.numTokens / Math.max(1, maxima.batchSize);
}

function longest({ kvLen, batchSize }: BatchRequests): number {
  let most = 0;
  for (let r = 0; r < batchSize; ++r) if (kvLen[r]! > most) most = kvLen[r]!;
  return most;
}

/** The template's own arguments. */
export function hopperArgs(
  { rows, stagesOutput, headSection, kv, kvTile }: HopperLaunch,
  call: BatchCall,
  arranged: ArrangedKv | undefined,
): Record<string, number | Uint8Array> {
  const { attention, numItems } = call.planned;
  const { numQoHeads, numKvHeads, headDim, qDtype: dtype, pageSize } = attention;
  const { q, out } = call;
  const box = { tokens: rows.warpgroup_tokens, heads: numQoHeads / numKvHeads };
  const q_map = queryMap(
    { ptr: q.ptr, strideN: q.strides[0]!, strideH: q.strides[1]! },
    { tokens: q.shape[0]!, heads: numQoHeads, headDim, dtype },
    box,
  );
  const vDim = headDimVoOf(headDim);
  const o_map = stagesOutput
    ? queryMap(
        { ptr: out.ptr, strideN: out.strides[0]!, strideH: out.strides[1]! },
        { tokens: out.shape[0]!, heads: numQoHeads, headDim: vDim, dtype },
        box,
      )
    : q_map;
  const shape = { heads: numKvHeads, dtype };
  const fields = { ...rows, head_section: headSection, num_items: numItems, q_map, o_map };
  const { k, v, tensors } = call.kv;
  // Of the tensor itself: a captured run may be replayed for other pages or rows than those of its plan.
  const held = (Object.values(tensors)[0] as Tensor).shape;
  const extent = held[kv === 'rows' && attention.kvLayout === 'HND' ? 1 : 0]!;
  // Gathered rows need no maps; tensors without rows have none, since the driver refuses a dimension of zero.
  if (kv === 'gather' || kv === 'tokens' || extent === 0) return { ...fields, k_map: q_map, v_map: q_map };
  if (kv === 'pages') {
    const pages = { ...shape, pages: extent, pageSize };
    return {
      ...fields,
      k_map: pagesMap(k, { ...pages, headDim }, kvTile),
      v_map: pagesMap(v, { ...pages, headDim: vDim }, kvTile),
    };
  }
  const ragged = { ...shape, rows: arranged?.rows ?? extent };
  return {
    ...fields,
    k_map: rowsMap(arranged?.k ?? k, { ...ragged, headDim }, kvTile),
    v_map: rowsMap(arranged?.v ?? v, { ...ragged, headDim: vDim }, kvTile),
  };
}

/** Blocks that stay: one a multiprocessor, or fewer where there is less to do. */
export function hopperGrid(call: BatchCall, graph: boolean, limits: DeviceLimits): readonly [number, number, number] {
  const { numItems, attention } = call.planned;
  return [graph ? limits.numSms : Math.min(limits.numSms, numItems * attention.numKvHeads), 1, 1];
}
