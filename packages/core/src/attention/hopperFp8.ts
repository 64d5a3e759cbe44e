// SPDX-License-Identifier: Apache-2.0
// float8_e4m3fn queries, keys and values on the fa3 template (include/flashinfer/attention/hopper_fp8.cuh): one request.
import { UnsupportedError } from '../errors.ts';
import { getKernel } from '../jit/kernel.ts';
import type { KernelSpec } from '../jit/spec.ts';
import { smArch } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { zeroedCounters } from '../runtime/workspace.ts';
import { dtypes } from '../tensor/dtype.ts';
import { deviceLimits } from './deviceLimits.ts';
import { hopperFields, hopperHeadSection, hopperRefusal, hopperWarpgroupRows } from './hopperKernel.ts';
import { queryMap, rowsMap } from './hopperMaps.ts';
import { type KernelOptions, optionsName, typeArguments, variantArguments } from './kernelName.ts';
import type { AttentionRequest } from './request.ts';
import { singleArgs, singleParamsOf } from './singleParams.ts';
import { cachedSpec } from './specCache.ts';

export type HopperFp8Options = KernelOptions & { readonly outDtype: 'float16' | 'bfloat16' };

/** Keys a tile; docs/fa3.md has what was tried. */
export function hopperFp8Tile(headDim: number): number {
  return headDim === 256 ? 96 : 192;
}

/** Bytes of dynamic shared memory; HopperFp8Config::kSharedBytes says the same. */
export function hopperFp8SharedBytes(headDim: number, kvTile: number): number {
  const tiles = 2 * headDim * (2 * kvTile + Math.ceil(kvTile / 128) * 128);
  return Math.ceil((2 * 64 * headDim + tiles + 14 * 8 + 2 * 32 + 16) / 1024) * 1024 + 1024;
}

export function hopperFp8Spec(o: HopperFp8Options, batch: boolean): KernelSpec {
  const kvTile = hopperFp8Tile(o.headDim);
  const out = dtypes[o.outDtype];
  const [, , headDim] = typeArguments(o).split(', ');
  const [variant, visible] = variantArguments(o).split(/, (?=flashinfer::(?:Visibility|PosEncodingMode))/);
  const config = `flashinfer::HopperFp8Config<flashinfer::${out.cpp}, ${headDim}, ${kvTile}, ${variant}, ${visible}, ${batch}>`;
  return {
    name: `single_prefill_fa3_rows_${optionsName(o)}_o_${out.short}_t128x${kvTile}`,
    header: 'flashinfer/attention/hopper_fp8.cuh',
    entry: `flashinfer::hopper_fp8_prefill<${config}>`,
    prelude: `static_assert(${config}::kSharedBytes == ${hopperFp8SharedBytes(o.headDim, kvTile)}, "planner and kernel disagree");`,
    params: [
      ...singleParamsOf(undefined),
      { name: 'q_scales', type: 'ptr' },
      { name: 'k_scales', type: 'ptr' },
      { name: 'v_scales', type: 'ptr' },
      ...hopperFields,
    ],
    threads: 384,
    minBlocksPerSm: 1,
    minArch: 90,
    exactArch: 'sm_90a',
  };
}

function refusal(r: AttentionRequest): string | undefined {
  if (r.backend === 'fa2') return "backend 'fa2'";
  const arch = smArch(r.q.deviceIndex);
  if (arch !== 90) return `sm_${arch}`;
  if (r.headDim !== 128 && r.headDim !== 256) return `headDim ${r.headDim}`;
  if (r.variant !== undefined) return 'a custom variant';
  return hopperRefusal(r);
}

export function checkHopperFp8(functionName: string, r: AttentionRequest): void {
  const reason = refusal(r);
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
  const rows = hopperWarpgroupRows(group);
  const items = Math.ceil((r.qoLen * group) / (2 * rows));
  const kernel = getKernel(
    cachedSpec(r, `single_fa3_fp8_${outDtype}`, () => hopperFp8Spec({ ...r, outDtype }, false)),
    deviceIndex,
  );
  const keys = { rows: Math.max(1, r.kvLen), heads: numKvHeads, dtype, headDim };
  // Without keys there is nothing to copy, but a map must still name some memory.
  const address = (ptr: number): number => (r.kvLen === 0 ? r.q.ptr : ptr);
  const args = {
    ...singleArgs(r, { ...noSplit, counters: zeroedCounters(deviceIndex, 2) }, device),
    q_scales: r.headScales?.q?.ptr ?? 0,
    k_scales: r.headScales?.k?.ptr ?? 0,
    v_scales: r.headScales?.v?.ptr ?? 0,
    warpgroup_rows: rows,
    head_section: hopperHeadSection(r, r.kvLen / 2),
    num_items: items,
    q_map: queryMap(
      { ptr: r.q.ptr, strideN: r.qStrideN, strideH: r.qStrideH },
      { tokens: r.qoLen, heads: r.numQoHeads, headDim, dtype },
      { tokens: rows / group, heads: group },
    ),
    k_map: rowsMap({ ptr: address(r.k.ptr), strideN: r.kStrideN, strideH: r.kStrideH }, keys, kvTile),
    v_map: rowsMap({ ptr: address(r.v.ptr), strideN: r.vStrideN, strideH: r.vStrideH }, keys, kvTile),
  };
  const blocks = Math.min(deviceLimits(deviceIndex).numSms, items * numKvHeads);
  kernel.launch([blocks, 1, 1], args, {
    stream: currentStream(deviceIndex),
    sharedBytes: hopperFp8SharedBytes(headDim, kvTile),
  });
}
