// SPDX-License-Identifier: Apache-2.0
// float8_e4m3fn queries, keys and values on the fa3 template: kernels (include/flashinfer/attention/hopper_fp8.cuh and
// fp8_values.cuh), tiles, and what their launches take.
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { dtypes } from '../tensor/dtype.ts';
import { batchParamsOf } from './batchKernel.ts';
import type { HeadScales } from './headScales.ts';
import { hopperFields, hopperRefusal, sharedBytesOf } from './hopperKernel.ts';
import { columnsMap } from './hopperMaps.ts';
import { type KernelOptions, optionsName, typeArguments, variantArguments } from './kernelName.ts';
import { singleParamsOf } from './singleParams.ts';

export type HopperFp8Options = KernelOptions & { readonly outDtype: 'float16' | 'bfloat16' };

/** Where keys and values come from: one request's tensors, ragged ones, or pages. */
export type Fp8Source = 'single' | 'ragged' | 'paged';

/** Keys a tile; docs/fa3.md has what was tried. */
export function hopperFp8Tile(headDim: number): number {
  return headDim === 256 ? 128 : 192;
}

/** Keys that lie side by side in a tile of values; HopperFp8Config::kColumns. */
function valueColumns(kvTile: number): 64 | 128 {
  return kvTile % 128 === 0 ? 128 : 64;
}

/** Warpgroups of the attention kernel that compute. */
export const fp8Warpgroups = 2;
const stages = 2;

/** Bytes of dynamic shared memory; HopperFp8Config::kSharedBytes says the same. */
export function hopperFp8SharedBytes(headDim: number, kvTile: number): number {
  return sharedBytesOf(fp8Warpgroups * 64 * headDim + stages * 2 * kvTile * headDim, stages, fp8Warpgroups);
}

/** Fields of both kernels besides those of the fa2 kernels; arranged keys and values are what one leaves for the other. */
const ownFields: readonly ParamField[] = [
  { name: 'q_scales', type: 'ptr' },
  { name: 'k_scales', type: 'ptr' },
  { name: 'v_scales', type: 'ptr' },
  { name: 'arranged_keys', type: 'ptr' },
  { name: 'arranged_values', type: 'ptr' },
  { name: 'columns', type: 'i32' },
  ...hopperFields,
];

function paramsOf(source: Fp8Source): readonly ParamField[] {
  return [...(source === 'single' ? singleParamsOf(undefined) : batchParamsOf(undefined)), ...ownFields];
}

const flags = (source: Fp8Source): string => `${source !== 'single'}, ${source === 'paged'}`;

export function hopperFp8Spec(o: HopperFp8Options, source: Fp8Source): KernelSpec {
  const kvTile = hopperFp8Tile(o.headDim);
  const out = dtypes[o.outDtype];
  const [, , headDim] = typeArguments(o).split(', ');
  const [variant, visible] = variantArguments(o).split(/, (?=flashinfer::(?:Visibility|PosEncodingMode))/);
  const config =
    `flashinfer::HopperFp8Config<flashinfer::${out.cpp}, ${headDim}, ${kvTile}, ${variant}, ${visible}, ` +
    `${flags(source)}>`;
  return {
    name: `prefill_fa3_${source}_${optionsName(o)}_o_${out.short}_t128x${kvTile}`,
    header: 'flashinfer/attention/hopper_fp8.cuh',
    entry: `flashinfer::hopper_fp8_prefill<${config}>`,
    prelude: `static_assert(${config}::kSharedBytes == ${hopperFp8SharedBytes(o.headDim, kvTile)}, "planner and kernel disagree");`,
    params: paramsOf(source),
    threads: 128 * (fp8Warpgroups + 1),
    minBlocksPerSm: 1,
    minArch: 90,
    exactArch: 'sm_90a',
  };
}

/** Transposes values, and copies keys out of pages. */
export function fp8ValuesSpec(headDim: number, source: Fp8Source): KernelSpec {
  return {
    name: `fp8_values_${source}_hd${headDim}`,
    header: 'flashinfer/attention/fp8_values.cuh',
    entry: `flashinfer::fp8_values<flashinfer::Fp8ValuesConfig<${headDim}, ${flags(source)}>>`,
    params: paramsOf(source),
    threads: 128,
    minBlocksPerSm: 6,
    minArch: 90,
    exactArch: 'sm_90a',
  };
}

/** What the kernels do not do; `undefined` where they serve. */
export function hopperFp8Refusal(
  o: KernelOptions & { numQoHeads: number; numKvHeads: number; backend: string; arch: number },
): string | undefined {
  if (o.backend === 'fa2') return "backend 'fa2'";
  if (o.arch !== 90) return `sm_${o.arch}`;
  if (o.headDim !== 128 && o.headDim !== 256) return `headDim ${o.headDim}`;
  if (o.variant !== undefined) return 'a custom variant';
  return hopperRefusal(o);
}

/** Columns that the keys of `requests` requests, `keys` in all, are arranged in: fp8_first_column in the header. */
export function fp8Columns(keys: number, requests: number): number {
  return Math.ceil(keys / 64) * 64 + requests * 320;
}

/** Bytes of scratch for so many columns. */
export function fp8ScratchBytes(
  { headDim, numKvHeads }: { headDim: number; numKvHeads: number },
  columns: number,
  source: Fp8Source,
): number {
  return columns * headDim * numKvHeads * (source === 'paged' ? 2 : 1);
}

/** Blocks that share the keys of an item: enough in all for every multiprocessor to hold several. */
export function fp8ValueParts(items: number, numKvHeads: number, numSms: number): number {
  return Math.max(1, Math.ceil((8 * numSms) / Math.max(1, items * numKvHeads)));
}

/** Arguments of the arranged values and, of pages, keys, which begin at `scratch`. */
export function fp8Arranged(
  o: { readonly headDim: number; readonly numKvHeads: number },
  scratch: number,
  columns: number,
  source: Fp8Source,
): Record<string, number | Uint8Array> {
  const { headDim, numKvHeads } = o;
  const kvTile = hopperFp8Tile(headDim);
  const keys = scratch + columns * headDim * numKvHeads;
  return {
    arranged_values: scratch,
    arranged_keys: source === 'paged' ? keys : 0,
    columns,
    v_map: columnsMap(scratch, { columns, headDim, heads: numKvHeads }, valueColumns(kvTile)),
  };
}

export function fp8Scales(scales: HeadScales | undefined): Record<string, number> {
  return { q_scales: scales?.q?.ptr ?? 0, k_scales: scales?.k?.ptr ?? 0, v_scales: scales?.v?.ptr ?? 0 };
}
