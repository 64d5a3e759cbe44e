// SPDX-License-Identifier: Apache-2.0
// One request on the fa3 template.
import { UnsupportedError } from '../errors.ts';
import { getKernel } from '../jit/kernel.ts';
import { smArch } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { zeroedCounters } from '../runtime/workspace.ts';
import { type DeviceLimits, deviceLimits } from './deviceLimits.ts';
import {
  chooseHopperTile,
  hopperHeadSection,
  hopperIsSlower,
  hopperRefusal,
  hopperRows,
  hopperSharedBytes,
  hopperSpec,
  hopperStagesOutput,
  hopperWarpgroupRows,
} from './hopperKernel.ts';
import { queryMap, rowsMap } from './hopperMaps.ts';
import { type AttentionRequest, headDimVoOf } from './request.ts';
import { singleArgs } from './singleParams.ts';
import { cachedSpec } from './specCache.ts';

const noSplit = { numSplits: 1, kvChunk: 0, kvBegin: 0, partialO: 0, partialLse: 0 };

/** Whether the template takes this request; a backend 'fa3' that it cannot serve is an error. */
export function singlePrefersHopper(functionName: string, r: AttentionRequest): boolean {
  const { backend } = r;
  if (backend === 'fa2' || (backend !== 'fa3' && smArch(r.q.deviceIndex) !== 90)) return false;
  const refusal = hopperRefusal(r);
  if (backend !== 'fa3')
    return refusal === undefined && !hopperIsSlower(r) && fillsGpu(r, deviceLimits(r.q.deviceIndex));
  if (refusal === undefined) return true;
  throw new UnsupportedError(
    'ERR_FLASHINFER_UNSUPPORTED',
    `${functionName}: backend 'fa3' has no kernel for ${refusal}; expected options that it has; use backend 'auto' or 'fa2'`,
  );
}

/** As for batches: without splits of keys, half of the multiprocessors need a query tile. */
function fillsGpu(r: AttentionRequest, limits: DeviceLimits): boolean {
  return 2 * tilesOf(r) * r.numKvHeads >= limits.numSms;
}

function tilesOf(r: AttentionRequest): number {
  const group = r.numQoHeads / r.numKvHeads;
  return Math.ceil((r.qoLen * group) / (chooseHopperTile(r, r.kvLen).warpgroups * hopperWarpgroupRows(group)));
}

export function launchHopper(r: AttentionRequest): void {
  const { device, deviceIndex } = r.q;
  const tile = chooseHopperTile(r, r.kvLen);
  const group = r.numQoHeads / r.numKvHeads;
  const rows = hopperRows(r);
  const items = tilesOf(r);
  const kernel = getKernel(
    cachedSpec(r, `single_fa3_${tile.warpgroups}_${tile.kvTile}_${tile.stages}`, () =>
      hopperSpec(r, tile, 'rows', false),
    ),
    deviceIndex,
  );
  const { qDtype: dtype, headDim } = r;
  const keys = { rows: Math.max(1, r.kvLen), heads: r.numKvHeads, dtype };
  // Without keys there is nothing to copy, but a map must still name some memory.
  const address = (ptr: number): number => (r.kvLen === 0 ? r.q.ptr : ptr);
  const queries = { tokens: r.qoLen, heads: r.numQoHeads, headDim, dtype };
  const box = { tokens: rows.warpgroup_tokens, heads: group };
  const q_map = queryMap({ ptr: r.q.ptr, strideN: r.qStrideN, strideH: r.qStrideH }, queries, box);
  const args = {
    ...singleArgs(r, { ...noSplit, counters: zeroedCounters(deviceIndex, 2) }, device),
    ...rows,
    head_section: hopperHeadSection(r, r.kvLen),
    num_items: items,
    q_map,
    o_map: hopperStagesOutput(r, tile)
      ? queryMap(
          { ptr: r.out.ptr, strideN: r.outStrideN, strideH: r.outStrideH },
          { ...queries, headDim: headDimVoOf(headDim) },
          box,
        )
      : q_map,
    k_map: rowsMap(
      { ptr: address(r.k.ptr), strideN: r.kStrideN, strideH: r.kStrideH },
      { ...keys, headDim },
      tile.kvTile,
    ),
    v_map: rowsMap(
      { ptr: address(r.v.ptr), strideN: r.vStrideN, strideH: r.vStrideH },
      { ...keys, headDim: headDimVoOf(headDim) },
      tile.kvTile,
    ),
  };
  const blocks = Math.min(deviceLimits(deviceIndex).numSms, items * r.numKvHeads);
  const options = { stream: currentStream(deviceIndex), sharedBytes: hopperSharedBytes(r, tile) };
  kernel.launch([blocks, 1, 1], args, options);
}
