// SPDX-License-Identifier: Apache-2.0
// Kernel and tiles for few query rows (include/flashinfer/attention/decode.cuh).
import type { KernelSpec } from '../jit/spec.ts';
import { dtypes } from '../tensor/dtype.ts';
import { blocksPerSm, type DeviceLimits } from './deviceLimits.ts';
import { type KernelOptions, optionsName, prelude, typeArguments, variantArguments } from './kernelName.ts';
import { type AttentionRequest, headDimVoOf } from './request.ts';
import { singleParamsOf } from './singleParams.ts';
import { firstVisibleKey, type KvSplit, splitKv } from './splitKv.ts';
import { type DecodeTile, decodeTiles, triedTiles } from './tiles.ts';

/** Packed query rows (tokens × heads of a group) of one block: the m16 tile of the tensor cores. */
export const decodeRows = 16;

/** Bytes of dynamic shared memory; DecodeConfig::kSharedBytes says the same, and the kernel checks what it is given. */
export function decodeSharedBytes(o: KernelOptions, tile: DecodeTile): number {
  const kvBytes = dtypes[o.kvDtype].bytes;
  const headDimVo = headDimVoOf(o.headDim);
  const keyAndValue = tile.kvTile * (o.headDim + headDimVo);
  const stage = keyAndValue * kvBytes;
  const operands = kvBytes === 1 ? keyAndValue * 2 : 0;
  const query = decodeRows * o.headDim * 2;
  const frequencies = o.posEncodingMode === 'ROPE_LLAMA' ? (o.headDim / 2) * 8 : 0;
  const main = query + tile.warps * (tile.stages * stage + operands) + frequencies;
  return Math.max(main, tile.warps * decodeRows * (headDimVo + 2) * 4);
}

/**
 * The tile for so many blocks without splits. More than the multiprocessors come in waves, where small tiles hide the
 * start of one block behind another: on H200, batches of 32/8 heads, d128, bf16, page 16, single launches, µs for 4×16×3
 * and 4×32×3: 64 × 1024 keys 81.8 and 85.4, 256 × 1024 263.9 and 271.9, 64 × 4096 262.4 and 263.6; but 16 × 1024 (128
 * blocks) 32.8 and 30.3. One wave of the smallest beats a full and a part one of small tiles: 40 × 1024 59.2 and 53.3, 64 ×
 * 1024 77.9 and 77.0, 64 × 4096 258.3 and 257.7; but 128 × 2048, two waves, 258.1 and 262.0.
 */
export function chooseDecodeTile(o: KernelOptions, limits: DeviceLimits, blocks = 1): DecodeTile {
  if (triedTiles.decode !== undefined) return triedTiles.decode;
  const { large, small: smallTile, smallest: smallestTile } = decodeTiles;
  const atOnce = (tile: DecodeTile): number => limits.numSms * blocksPerSm(limits, decodeSharedBytes(o, tile));
  const small = atOnce(smallTile);
  if (blocks > limits.numSms && small > limits.numSms) {
    return blocks > small && blocks <= atOnce(smallestTile) ? smallestTile : smallTile;
  }
  // 64 bytes: the block's static shared memory (a flag) counts against the same limit.
  const fits = large.find((tile) => decodeSharedBytes(o, tile) + 64 <= limits.sharedPerBlock);
  return fits ?? large[large.length - 1]!;
}

export function decodeSpec(o: KernelOptions, tile: DecodeTile): KernelSpec {
  const { warps, kvTile, stages } = tile;
  const config = `flashinfer::DecodeConfig<${typeArguments(o)}, ${warps}, ${kvTile}, ${stages}, ${variantArguments(o)}>`;
  return {
    name: `single_decode_${optionsName(o)}_w${warps}_t${kvTile}_s${stages}`,
    header: 'flashinfer/attention/decode.cuh',
    entry: `flashinfer::single_decode<${config}>`,
    ...prelude(o.variant, [
      `static_assert(${config}::kSharedBytes == ${decodeSharedBytes(o, tile)}, "planner and kernel disagree");`,
    ]),
    params: singleParamsOf(o.variant),
    threads: warps * 32,
    minArch: o.qDtype === 'bfloat16' ? 80 : 75,
  };
}

export interface DecodePlan extends KvSplit {
  readonly tile: DecodeTile;
  readonly sharedBytes: number;
  readonly kvBegin: number;
  readonly rowTiles: number;
  /** float32 elements of partial_o and partial_lse, and int32 counters; 0 where there is one split. */
  readonly partialO: number;
  readonly partialLse: number;
  readonly counters: number;
}

export function planDecode(r: AttentionRequest, limits: DeviceLimits): DecodePlan {
  const tile = chooseDecodeTile(r, limits);
  const sharedBytes = decodeSharedBytes(r, tile);
  const rowTiles = Math.ceil((r.qoLen * r.numQoHeads) / r.numKvHeads / decodeRows);
  const blocks = rowTiles * r.numKvHeads;
  const kvBegin = firstVisibleKey(r.qoLen, r.kvLen, r.windowLeft, tile.kvTile);
  const slots = limits.numSms * blocksPerSm(limits, sharedBytes);
  const split = splitKv({ kvBegin, kvLen: r.kvLen, kvTile: tile.kvTile }, blocks, slots, tile.warps);
  const states = split.numSplits > 1 ? blocks * split.numSplits * decodeRows : 0;
  return {
    numSplits: split.numSplits,
    kvChunk: split.kvChunk,
    tile,
    sharedBytes,
    kvBegin,
    rowTiles,
    partialO: states * headDimVoOf(r.headDim),
    partialLse: states,
    counters: split.numSplits > 1 ? blocks : 0,
  };
}
