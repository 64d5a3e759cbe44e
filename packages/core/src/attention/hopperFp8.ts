// SPDX-License-Identifier: Apache-2.0
// One request of float8_e4m3fn queries, keys and values on the fa3 template.
import { UnsupportedError } from '../errors.ts';
import { getKernel } from '../jit/kernel.ts';
import { smArch } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { workspace, zeroedCounters } from '../runtime/workspace.ts';
import { deviceLimits } from './deviceLimits.ts';
import {
  fp8Arranged,
  fp8Columns,
  fp8Scales,
  fp8ScratchBytes,
  fp8ValueParts,
  fp8ValuesSpec,
  fp8Warpgroups,
  type HopperFp8Options,
  hopperFp8Refusal,
  hopperFp8SharedBytes,
  hopperFp8Spec,
  hopperFp8Tile,
} from './hopperFp8Kernel.ts';
import { hopperHeadSection, hopperRows } from './hopperKernel.ts';
import { queryMap, rowsMap } from './hopperMaps.ts';
import type { KernelOptions } from './kernelName.ts';
import type { AttentionRequest } from './request.ts';
import { singleArgs } from './singleParams.ts';
import { cachedSpec } from './specCache.ts';

type Fp8Wish = KernelOptions & { numQoHeads: number; numKvHeads: number; backend: string };

/** Refuses what has no kernel. */
export function checkHopperFp8(functionName: string, wish: Fp8Wish, deviceIndex: number): void {
  const { qDtype, kvDtype, headDim, maskMode, posEncodingMode, windowLeft, logitsSoftCap, variant } = wish;
  const { numQoHeads, numKvHeads, backend } = wish;
  const options = { qDtype, kvDtype, headDim, maskMode, posEncodingMode, windowLeft, logitsSoftCap, variant };
  const reason = hopperFp8Refusal({ ...options, numQoHeads, numKvHeads, backend, arch: smArch(deviceIndex) });
  if (reason === undefined) return;
  throw new UnsupportedError(
    'ERR_FLASHINFER_UNSUPPORTED',
    `${functionName}: q is float8_e4m3fn with ${reason}, which has no kernel; expected headDim 128 or 256 on a Hopper ` +
      "GPU (sm_90) without custom mask, variant and ROPE_LLAMA; use q.to('float16')",
  );
}

const noSplit = { numSplits: 1, kvChunk: 0, kvBegin: 0, partialO: 0, partialLse: 0 };

export function launchHopperFp8(r: AttentionRequest): void {
  const { device, deviceIndex } = r.q;
  const { headDim, numKvHeads, qDtype: dtype } = r;
  const outDtype = r.out.dtype as HopperFp8Options['outDtype'];
  const kvTile = hopperFp8Tile(headDim);
  const group = r.numQoHeads / numKvHeads;
  const rows = hopperRows(r);
  const items = Math.ceil((r.qoLen * group) / (fp8Warpgroups * rows.warpgroup_rows));
  const kernel = getKernel(
    cachedSpec(r, `single_fa3_fp8_${outDtype}`, () => hopperFp8Spec({ ...r, outDtype }, 'single')),
    deviceIndex,
  );
  const values = getKernel(
    cachedSpec(r, 'fp8_values_single', () => fp8ValuesSpec(headDim, 'single')),
    deviceIndex,
  );
  const columns = fp8Columns(r.kvLen, 1);
  const scratch = workspace(deviceIndex, fp8ScratchBytes(r, columns, 'single'));
  const keys = { rows: Math.max(1, r.kvLen), heads: numKvHeads, dtype, headDim };
  // Without keys there is nothing to copy, but a map must still name some memory.
  const keyAddress = r.kvLen === 0 ? r.q.ptr : r.k.ptr;
  const args = {
    ...singleArgs(r, { ...noSplit, counters: zeroedCounters(deviceIndex, 2) }, device),
    ...fp8Scales(r.headScales),
    ...fp8Arranged(r, scratch, columns, 'single'),
    ...rows,
    head_section: hopperHeadSection(r, r.kvLen / 2),
    num_items: items,
    q_map: queryMap(
      { ptr: r.q.ptr, strideN: r.qStrideN, strideH: r.qStrideH },
      { tokens: r.qoLen, heads: r.numQoHeads, headDim, dtype },
      { tokens: rows.warpgroup_tokens, heads: group },
    ),
    k_map: rowsMap({ ptr: keyAddress, strideN: r.kStrideN, strideH: r.kStrideH }, keys, kvTile),
  };
  const { numSms } = deviceLimits(deviceIndex);
  const stream = currentStream(deviceIndex);
  values.launch([items, numKvHeads, fp8ValueParts(items, numKvHeads, numSms)], args, { stream });
  const blocks = Math.min(numSms, items * numKvHeads);
  kernel.launch([blocks, 1, 1], args, { stream, sharedBytes: hopperFp8SharedBytes(headDim, kvTile) });
}
