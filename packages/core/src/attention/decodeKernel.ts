// SPDX-License-Identifier: Apache-2.0
// Kernel and tiles for few query rows (include/flashinfer/attention/decode.cuh).
import type { KernelSpec } from '../jit/spec.ts';
import { dtypes } from '../tensor/dtype.ts';
import { blocksPerSm, type DeviceLimits } from './deviceLimits.ts';
import { type KernelOptions, optionsName, prelude, typeArguments, variantArguments } from './kernelName.ts';
import { type AttentionRequest, headDimVoOf } from './request.ts';
import { singleParamsOf } from './singleParams.ts';
import { firstVisibleKey, type KvSplit, splitKv } from './splitKv.ts';
import {
  asksForLittle,
  type DecodeTile,
  type DecodeTiles,
  decodeTiles,
  float8DecodeTiles,
  otherFloat8DecodeTiles,
  triedTiles,
} from './tiles.ts';

/** Packed query rows (tokens × heads of a group) of one block: the m16 tile of the tensor cores. */
export const decodeRows = 16;

/** Bytes of a warp's tile of keys and values. */
function stageBytes(o: KernelOptions, tile: DecodeTile): number {
  return tile.kvTile * (o.headDim + headDimVoOf(o.headDim)) * dtypes[o.kvDtype].bytes;
}

/** Bytes of dynamic shared memory; DecodeConfig::kSharedBytes says the same, and the kernel checks what it is given. */
export function decodeSharedBytes(o: KernelOptions, tile: DecodeTile): number {
  const headDimVo = headDimVoOf(o.headDim);
  const operands = dtypes[o.kvDtype].bytes === 1 ? stageBytes(o, tile) * 2 : 0;
  const query = decodeRows * o.headDim * 2;
  const frequencies = o.posEncodingMode === 'ROPE_LLAMA' ? (o.headDim / 2) * 8 : 0;
  const main = query + tile.warps * (tile.stages * stageBytes(o, tile) + operands) + frequencies;
  return Math.max(main, tile.warps * decodeRows * (headDimVo + 2) * 4);
}

function tilesOf(o: KernelOptions): DecodeTiles {
  if (dtypes[o.kvDtype].bytes > 1) return decodeTiles;
  return o.headDim === 128 ? float8DecodeTiles : otherFloat8DecodeTiles;
}

/** Blocks of a tile that the GPU holds at once. */
function residentBlocks(o: KernelOptions, limits: DeviceLimits, tile: DecodeTile): number {
  return limits.numSms * blocksPerSm(limits, decodeSharedBytes(o, tile));
}

/**
 * The tile for so many blocks without splits. Measured on H200, single launches, 1024 keys, 32/8 heads, d128, bf16, page
 * 16, µs: 24 requests 4×16×2 35.2, 4×16×3 35.5; 40 51.7, 2×16×2 52.6; 64 2×16×2 75.1, 2×16×3 75.9, 4×16×3 77.1; 80 90.4,
 * 94.4 with 4×16×2; 256 4×16×3 256.4, 4×16×2 259.7.
 */
export function chooseDecodeTile(o: KernelOptions, limits: DeviceLimits, blocks = 1): DecodeTile {
  if (triedTiles.decode !== undefined) return triedTiles.decode;
  const { large, oneWave, waves } = tilesOf(o);
  if (blocks > limits.numSms && residentBlocks(o, limits, waves) > limits.numSms) {
    return oneWave.find((tile) => blocks <= residentBlocks(o, limits, tile)) ?? waves;
  }
  // 64 bytes: the block's static shared memory (a flag) counts against the same limit.
  const fits = (tile: DecodeTile): boolean => decodeSharedBytes(o, tile) + 64 <= limits.sharedPerBlock;
  return large.find((tile) => fits(tile) && asksForLittle(tile, stageBytes(o, tile))) ?? large[large.length - 1]!;
}

/**
 * Blocks that requests of so many blocks without splits are cut for. `fixedGrid`: by a grid that has blocks without work,
 * see {@link residencyBytes}.
 */
export function decodeSlots(
  o: KernelOptions,
  limits: DeviceLimits,
  tile: DecodeTile,
  blocks: number,
  fixedGrid = false,
): number {
  const resident = residentBlocks(o, limits, tile);
  const { numSms } = limits;
  if (blocks <= numSms) return Math.min(resident, numSms * tilesOf(o).blocksPerSm);
  return fixedGrid ? Math.min(resident, numSms * Math.ceil(blocks / numSms)) : resident;
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
  const slots = decodeSlots(r, limits, tile, blocks);
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
