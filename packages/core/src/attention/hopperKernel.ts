// SPDX-License-Identifier: Apache-2.0
// Kernels and tiles of the fa3 template (include/flashinfer/attention/hopper.cuh): prefill on sm_90a.
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { batchParamsOf } from './batchKernel.ts';
import { type KernelOptions, optionsName, prelude, typeArguments, variantArguments } from './kernelName.ts';
import { headDimVoOf } from './request.ts';
import { singleParamsOf } from './singleParams.ts';
import { type HopperTile, hopperShortKeys, hopperTiles, triedTiles } from './tiles.ts';

/** How keys and values are loaded; HopperKv in the header. */
export type HopperKv = 'rows' | 'pages' | 'gather' | 'tokens';

const kvArguments: Record<HopperKv, string> = {
  rows: 'kRows',
  pages: 'kPages',
  gather: 'kGather',
  tokens: 'kTokens',
};

/** Fields besides those of the fa2 kernels. The maps of keys and values are the queries' where none are used. */
export const hopperFields: readonly ParamField[] = [
  { name: 'warpgroup_rows', type: 'i32' },
  { name: 'warpgroup_tokens', type: 'i32' },
  { name: 'group_multiplier', type: 'i32' },
  { name: 'num_kv_heads', type: 'i32' },
  { name: 'head_section', type: 'i32' },
  { name: 'num_items', type: 'i32' },
  { name: 'q_map', type: 'tensormap' },
  { name: 'k_map', type: 'tensormap' },
  { name: 'v_map', type: 'tensormap' },
];

/** The queries' where hopperStagesOutput says no. */
const outputField: ParamField = { name: 'o_map', type: 'tensormap' };

/** What the template does not do; `undefined` where it serves. */
export function hopperRefusal(o: KernelOptions & { numQoHeads: number; numKvHeads: number }): string | undefined {
  if (o.kvDtype !== o.qDtype) return `${o.kvDtype} keys with ${o.qDtype} queries`;
  if (o.posEncodingMode === 'ROPE_LLAMA') return "posEncodingMode 'ROPE_LLAMA'";
  if (o.maskMode === 'custom') return 'custom masks';
  if (o.variant?.hooks.queryTransform !== undefined) return 'a variant with queryTransform';
  if (o.numQoHeads / o.numKvHeads > 64) return 'groups of more than 64 query heads';
  return undefined;
}

/**
 * Whether 'auto' leaves the template to those who ask for it. Hooks that read per head or call precise functions took 1.4
 * to 1.6 times as long as on fa2 (H200, L8192 full: ALiBi by a hook 208 against 338 TFLOP/s), cheap ones less.
 */
export function hopperIsSlower(o: KernelOptions): boolean {
  return o.variant !== undefined;
}

/** Packed query rows of a warpgroup: whole tokens, so that a box of the copy engine is whole too. */
export function hopperWarpgroupRows(group: number): number {
  return Math.floor(64 / group) * group;
}

/** What kernels would have to divide for. A row below 64 belongs to the token row * group_multiplier >> 12. */
export interface HopperRows {
  readonly warpgroup_rows: number;
  readonly warpgroup_tokens: number;
  readonly group_multiplier: number;
  readonly num_kv_heads: number;
}

export function hopperRows({ numQoHeads, numKvHeads }: { numQoHeads: number; numKvHeads: number }): HopperRows {
  const group = numQoHeads / numKvHeads;
  const rows = hopperWarpgroupRows(group);
  return {
    warpgroup_rows: rows,
    warpgroup_tokens: rows / group,
    group_multiplier: Math.ceil(4096 / group),
    num_kv_heads: numKvHeads,
  };
}

/** Bytes of dynamic shared memory; HopperConfig::kSharedBytes says the same. */
export function hopperSharedBytes(o: SharedOptions, tile: HopperTile): number {
  return sharedBytes(o.headDim, tile, itemBuffers(o, tile), hopperStagesOutput(o, tile));
}

type SharedOptions = Pick<KernelOptions, 'headDim' | 'variant'>;

/** Two items' queries, where they fit. */
function itemBuffers({ headDim }: SharedOptions, tile: HopperTile): 1 | 2 {
  return sharedBytes(headDim, tile, 2, false) <= mostSharedBytes ? 2 : 1;
}

/** Whether the copy engine stores the output: the kernel then takes a map of it. */
export function hopperStagesOutput(o: SharedOptions, tile: HopperTile): boolean {
  if (o.variant?.transformsOutput) return false;
  return sharedBytes(o.headDim, tile, itemBuffers(o, tile), true) <= mostSharedBytes;
}

/** What a block may have on the only architecture that has the template. */
const mostSharedBytes = 227 * 1024;

function sharedBytes(
  headDim: number,
  { warpgroups, kvTile, stages }: HopperTile,
  buffers: number,
  stagesOutput: boolean,
): number {
  const slots = buffers * warpgroups;
  const headDimVo = headDimVoOf(headDim);
  const rows = slots * headDim + (stagesOutput ? warpgroups * headDimVo : 0);
  return sharedBytesOf(rows * 64 * 2 + stages * kvTile * (headDim + headDimVo) * 2, stages, slots);
}

/** With so many bytes of tiles; hopper_shared_bytes in the header. */
export function sharedBytesOf(tiles: number, stages: number, slots: number): number {
  return Math.ceil((tiles + (4 * stages + 2 * slots) * 8 + slots * 32 + 16) / 1024) * 1024 + 1024;
}

/** The tile for requests of so many keys. */
export function chooseHopperTile(o: Pick<KernelOptions, 'headDim' | 'maskMode'>, keys: number): HopperTile {
  if (triedTiles.hopper !== undefined) return triedTiles.hopper;
  const { full, causal } = hopperTiles[o.headDim]!;
  const [short, long] = o.maskMode === 'none' ? full : causal;
  return keys > hopperShortKeys ? long : short;
}

/** Pages that tiles are made of, or that are made of tiles, are copied by box; rows of others are gathered. */
export function pagesFit(pageSize: number, kvTile: number): boolean {
  if (pageSize % 8 !== 0) return false;
  return pageSize <= kvTile ? kvTile % pageSize === 0 : pageSize % kvTile === 0;
}

/** How keys and values in pages of so many rows, 0 if in none, are loaded. */
export function hopperKv(pageSize: number, kvTile: number): HopperKv {
  if (pageSize === 0) return 'rows';
  if (pageSize === 1) return 'tokens';
  return pagesFit(pageSize, kvTile) ? 'pages' : 'gather';
}

/** `tile`, or for pages that do not fit it a tile of 64 keys fewer or more that they do. */
export function hopperPagedTile(tile: HopperTile, headDim: number, pageSize: number): HopperTile {
  if (pagesFit(pageSize, tile.kvTile)) return tile;
  const kvTile = headDim === 256 ? 64 : 128;
  return pagesFit(pageSize, kvTile) ? { ...tile, kvTile } : tile;
}

/** Heads whose keys and values are at work at the same time: half of what the second-level cache holds of them, about. */
export function hopperHeadSection(o: Pick<KernelOptions, 'headDim'> & { numKvHeads: number }, keys: number): number {
  const headBytes = Math.max(1, keys) * (o.headDim + headDimVoOf(o.headDim)) * 2;
  return Math.max(1, Math.min(o.numKvHeads, Math.floor(sectionBytes / headBytes)));
}

const sectionBytes = 16.8e6;

export function hopperSpec(o: KernelOptions, tile: HopperTile, kv: HopperKv, batch: boolean): KernelSpec {
  const { warpgroups, kvTile, stages } = tile;
  const [t, , headDimQk, headDimVo] = typeArguments(o).split(', ');
  const [variant, visible] = variantArguments(o).split(/, (?=flashinfer::(?:Visibility|PosEncodingMode))/);
  const config =
    `flashinfer::HopperConfig<${t}, ${headDimQk}, ${headDimVo}, ${kvTile}, ${warpgroups}, ${stages}, ${variant}, ` +
    `${visible}, flashinfer::HopperKv::${kvArguments[kv]}, ${batch}>`;
  return {
    name: `${batch ? 'batch' : 'single'}_prefill_fa3_${kv}_${optionsName(o)}_t${warpgroups * 64}x${kvTile}_s${stages}`,
    header: 'flashinfer/attention/hopper.cuh',
    entry: `flashinfer::hopper_prefill<${config}>`,
    ...prelude(o.variant, [
      `static_assert(${config}::kSharedBytes == ${hopperSharedBytes(o, tile)}, "planner and kernel disagree");`,
    ]),
    params: [...(batch ? batchParamsOf(o.variant) : singleParamsOf(o.variant)), ...hopperFields, outputField],
    threads: (warpgroups + 1) * 128,
    minBlocksPerSm: 1,
    minArch: 90,
    exactArch: 'sm_90a',
  };
}
