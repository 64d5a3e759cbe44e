// SPDX-License-Identifier: Apache-2.0
// Batches of float8_e4m3fn queries, keys and values on the fa3 template.
import { getKernel } from '../jit/kernel.ts';
import { currentStream } from '../runtime/stream.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { BatchCall, PlannedAttention, PlannedKernels } from './batchCall.ts';
import type { BatchRequests } from './batchPlan.ts';
import { scratchAddress } from './callerWorkspace.ts';
import { type DeviceLimits, deviceLimits } from './deviceLimits.ts';
import {
  type Fp8Source,
  fp8Arranged,
  fp8Columns,
  fp8Scales,
  fp8ScratchBytes,
  fp8ValueParts,
  fp8ValuesSpec,
  fp8Warpgroups,
  type HopperFp8Options,
  hopperFp8SharedBytes,
  hopperFp8Spec,
  hopperFp8Tile,
} from './hopperFp8Kernel.ts';
import { hopperHeadSection, hopperRows } from './hopperKernel.ts';
import { queryMap, rowsMap } from './hopperMaps.ts';
import type { PlanMaxima } from './planBuffer.ts';
import { cachedSpec } from './specCache.ts';

const sourceOf = ({ pageSize }: PlannedAttention): Fp8Source => (pageSize > 0 ? 'paged' : 'ragged');

export function hopperFp8Kernels(
  attention: PlannedAttention,
  requests: BatchRequests,
  maxima: PlanMaxima | undefined,
  limits: DeviceLimits,
): PlannedKernels {
  const { headDim, numQoHeads, numKvHeads, windowLeft } = attention;
  const outDtype = attention.outDtype as HopperFp8Options['outDtype'];
  const kvTile = hopperFp8Tile(headDim);
  const rows = hopperRows(attention);
  const source = sourceOf(attention);
  let longest = 0;
  for (let r = 0; r < requests.batchSize; ++r) longest = Math.max(longest, requests.kvLen[r]!);
  return {
    spec: cachedSpec(attention, `fa3_fp8_${source}_${outDtype}`, () =>
      hopperFp8Spec({ ...attention, outDtype }, source),
    ),
    mergeSpec: undefined,
    fp8Values: {
      spec: cachedSpec(attention, `fp8_values_${source}`, () => fp8ValuesSpec(headDim, source)),
      requests: maxima?.batchSize ?? requests.batchSize,
      keys: arrangedKeys(attention, requests, maxima),
    },
    sharedBytes: hopperFp8SharedBytes(headDim, kvTile),
    shape: {
      numQoHeads,
      numKvHeads,
      headDimVo: headDim,
      windowLeft,
      tileRows: fp8Warpgroups * rows.warpgroup_rows,
      kvTile,
      slots: limits.numSms,
      minTiles: 1,
      mergesInPlace: false,
      neverSplits: true,
    },
    hopper: { kv: 'rows', kvTile, rows, stagesOutput: false, headSection: hopperHeadSection(attention, longest / 2) },
  };
}

/** Keys to leave room for. Of a graph's ragged keys only the tensor of its capture knows how many there may be. */
function arrangedKeys(
  { pageSize }: PlannedAttention,
  { kvStart, batchSize }: BatchRequests,
  maxima: PlanMaxima | undefined,
): number | undefined {
  if (pageSize > 0) return (maxima?.numPages ?? kvStart[batchSize]!) * pageSize;
  return maxima === undefined ? kvStart[batchSize]! : undefined;
}

/** Bytes of scratch that a run needs, of whose ragged keys there are `rows`. */
export function fp8WorkspaceBytes(attention: PlannedAttention, kernels: PlannedKernels, rows: number): number {
  return fp8ScratchBytes(attention, columnsOf(kernels, rows), sourceOf(attention));
}

function columnsOf({ fp8Values }: PlannedKernels, rows: number): number {
  return fp8Columns(fp8Values!.keys ?? rows, fp8Values!.requests);
}

/** Launches both kernels; `args` are those that all batch kernels take. */
export function launchHopperFp8Batch(
  caller: string,
  call: BatchCall,
  args: Record<string, number | bigint | Uint8Array>,
  graph: boolean,
): void {
  const { planned, q, kv } = call;
  const { attention, numItems } = planned;
  const kernels = planned.kernels!;
  const { deviceIndex } = q;
  const { numQoHeads, numKvHeads, headDim, qDtype: dtype, kvLayout } = attention;
  const { rows: ownRows, headSection, kvTile } = kernels.hopper!;
  const source = sourceOf(attention);
  const held = (Object.values(kv.tensors)[0] as Tensor).shape;
  const rows = source === 'paged' ? 0 : held[kvLayout === 'HND' ? 1 : 0]!;
  const columns = columnsOf(kernels, rows);
  const bytes = fp8ScratchBytes(attention, columns, source);
  const scratch = scratchAddress(caller, call.workspace, deviceIndex, bytes);
  const keys = { heads: numKvHeads, dtype, headDim };
  const arranged = fp8Arranged(attention, scratch, columns, source);
  // Ragged keys without rows need no map, but the kernel takes one: that of the values' scratch will do.
  const k_map =
    source === 'paged'
      ? rowsMap(
          { ptr: arranged.arranged_keys as number, strideN: headDim, strideH: columns * headDim },
          { ...keys, rows: columns },
          kvTile,
        )
      : rows === 0
        ? arranged.v_map!
        : rowsMap(kv.k, { ...keys, rows }, kvTile);
  Object.assign(args, fp8Scales(call.headScales), arranged, {
    ...ownRows,
    head_section: headSection,
    num_items: numItems,
    q_map: queryMap(
      { ptr: q.ptr, strideN: q.strides[0]!, strideH: q.strides[1]! },
      { tokens: q.shape[0]!, heads: numQoHeads, headDim, dtype },
      { tokens: ownRows.warpgroup_tokens, heads: numQoHeads / numKvHeads },
    ),
    k_map,
  });
  const { numSms } = deviceLimits(deviceIndex);
  const stream = currentStream(deviceIndex);
  const parts = fp8ValueParts(numItems, numKvHeads, numSms);
  getKernel(kernels.fp8Values!.spec, deviceIndex).launch([numItems, numKvHeads, parts], args, { stream });
  const blocks = graph ? numSms : Math.min(numSms, numItems * numKvHeads);
  getKernel(kernels.spec, deviceIndex).launch([blocks, 1, 1], args, { stream, sharedBytes: kernels.sharedBytes });
}
