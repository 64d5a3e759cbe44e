// SPDX-License-Identifier: Apache-2.0
// Kernel and tiles for many query rows: the fa2 template (include/flashinfer/attention/prefill.cuh).
import type { KernelSpec } from '../jit/spec.ts';
import { dtypes } from '../tensor/dtype.ts';
import { blocksPerSm, type DeviceLimits } from './deviceLimits.ts';
import {
  type KernelOptions,
  mergeArguments,
  optionsName,
  prelude,
  typeArguments,
  variantArguments,
} from './kernelName.ts';
import { type AttentionRequest, headDimVoOf } from './request.ts';
import { singleParamsOf } from './singleParams.ts';
import { firstVisibleKey, type KvSplit, splitKv } from './splitKv.ts';
import { type PrefillTile, prefillKvTiles, triedTiles } from './tiles.ts';

const threads = 128;

/** Four groups of 128 threads share the splits; MergeConfig in include/flashinfer/attention/merge.cuh. */
export const mergeThreads = 512;

/** Blocks a multiprocessor the registers are budgeted for: 255 a thread. */
const minBlocksPerSm = 2;

/** Bytes of dynamic shared memory; PrefillConfig::kSharedBytes says the same, and the kernel checks what it is given. */
export function prefillSharedBytes(o: KernelOptions, tile: PrefillTile, paged = false): number {
  const query = tile.mTiles * 64 * o.headDim * 2;
  const keyAndValue = tile.kvTile * (o.headDim + headDimVoOf(o.headDim));
  const operands = keyAndValue * 2;
  const landing = dtypes[o.kvDtype].bytes === 1 ? keyAndValue : 0;
  const frequencies = o.posEncodingMode === 'ROPE_LLAMA' ? (o.headDim / 2) * 8 : 0;
  const rowLists = paged ? 2 * 2 * tile.kvTile * 8 : 0;
  return query + operands + landing + frequencies + rowLists;
}

/**
 * Two m16 tiles a warp halve the shared-memory traffic of K and V but need 128 accumulators with values of 128, and do
 * not fit at 256.
 */
export function choosePrefillTile(
  o: KernelOptions,
  packedRows: number,
  limits: DeviceLimits,
  paged = false,
): PrefillTile {
  if (triedTiles.prefill !== undefined) return triedTiles.prefill;
  const mTiles = headDimVoOf(o.headDim) <= 128 && packedRows > 64 ? 2 : 1;
  for (const kvTile of prefillKvTiles) {
    const tile = { mTiles, kvTile } as const;
    if (prefillSharedBytes(o, tile, paged) <= limits.sharedPerBlock) return tile;
  }
  return { mTiles: 1, kvTile: 16 };
}

export function prefillSpec(o: KernelOptions, tile: PrefillTile): KernelSpec {
  const config = `flashinfer::PrefillConfig<${typeArguments(o)}, ${tile.mTiles}, ${tile.kvTile}, ${variantArguments(o)}>`;
  return {
    name: `single_prefill_${optionsName(o)}_t${tile.mTiles * 64}x${tile.kvTile}`,
    header: 'flashinfer/attention/prefill.cuh',
    entry: `flashinfer::single_prefill<${config}>`,
    ...prelude(o.variant, [
      `static_assert(${config}::kSharedBytes == ${prefillSharedBytes(o, tile)}, "planner and kernel disagree");`,
    ]),
    params: singleParamsOf(o.variant),
    threads,
    minBlocksPerSm,
    minArch: o.qDtype === 'bfloat16' ? 80 : 75,
  };
}

/** Merges the states that split prefill writes. */
export function mergeSpec(o: Pick<KernelOptions, 'qDtype' | 'headDim' | 'variant'>): KernelSpec {
  const { config, name } = mergeArguments(o);
  return {
    name: `merge_splits_${name}`,
    header: 'flashinfer/attention/merge.cuh',
    entry: `flashinfer::merge_splits<flashinfer::MergeConfig<${config}>>`,
    ...prelude(o.variant, []),
    params: singleParamsOf(o.variant),
    threads: mergeThreads,
    minArch: o.qDtype === 'bfloat16' ? 80 : 75,
  };
}

/** Blocks of merge_splits: four threads, one of each group, merge four output elements. */
export function mergeBlocks(r: AttentionRequest): number {
  return Math.ceil((r.qoLen * r.numQoHeads * headDimVoOf(r.headDim)) / 4 / threads);
}

export interface PrefillPlan extends KvSplit {
  readonly tile: PrefillTile;
  readonly sharedBytes: number;
  readonly kvBegin: number;
  readonly queryTiles: number;
  readonly partialO: number;
  readonly partialLse: number;
}

export function planPrefill(r: AttentionRequest, limits: DeviceLimits): PrefillPlan {
  const packedRows = (r.qoLen * r.numQoHeads) / r.numKvHeads;
  const tile = choosePrefillTile(r, packedRows, limits);
  const sharedBytes = prefillSharedBytes(r, tile);
  const queryTiles = Math.ceil(packedRows / (tile.mTiles * 64));
  const slots = limits.numSms * Math.min(minBlocksPerSm, blocksPerSm(limits, sharedBytes));
  const kvBegin = firstVisibleKey(r.qoLen, r.kvLen, r.windowLeft, tile.kvTile);
  // Four tiles: a shorter split would spend more on loading queries and merging than it saves.
  const split = splitKv({ kvBegin, kvLen: r.kvLen, kvTile: tile.kvTile }, queryTiles * r.numKvHeads, slots, 4);
  const rows = split.numSplits > 1 ? split.numSplits * r.qoLen * r.numQoHeads : 0;
  const { numSplits, kvChunk } = split;
  return {
    numSplits,
    kvChunk,
    tile,
    sharedBytes,
    kvBegin,
    queryTiles,
    partialO: rows * headDimVoOf(r.headDim),
    partialLse: rows,
  };
}
