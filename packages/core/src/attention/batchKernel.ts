// SPDX-License-Identifier: Apache-2.0
// Kernels of batches (include/flashinfer/attention/batch.cuh), and the struct they are given.
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { decodeSharedBytes } from './decodeKernel.ts';
import {
  type KernelOptions,
  mergeArguments,
  optionsName,
  prelude,
  typeArguments,
  variantArguments,
} from './kernelName.ts';
import { mergeThreads, prefillSharedBytes } from './prefillKernel.ts';
import type { DecodeTile, PrefillTile } from './tiles.ts';
import type { AttentionVariant } from './variant.ts';
import { variantFields } from './variantSource.ts';

const batchParams: readonly ParamField[] = [
  { name: 'q', type: 'ptr' },
  { name: 'k', type: 'ptr' },
  { name: 'v', type: 'ptr' },
  { name: 'o', type: 'ptr' },
  { name: 'lse', type: 'ptr' },
  { name: 'custom_mask', type: 'ptr' },
  { name: 'alibi_slopes', type: 'ptr' },
  { name: 'sinks', type: 'ptr' },
  { name: 'kv_indices', type: 'ptr' },
  { name: 'partial_o', type: 'ptr' },
  { name: 'partial_lse', type: 'ptr' },
  { name: 'counters', type: 'ptr' },
  { name: 'work', type: 'ptr' },
  { name: 'requests', type: 'ptr' },
  { name: 'q_stride_n', type: 'i64' },
  { name: 'q_stride_h', type: 'i64' },
  { name: 'k_stride_n', type: 'i64' },
  { name: 'k_stride_h', type: 'i64' },
  { name: 'v_stride_n', type: 'i64' },
  { name: 'v_stride_h', type: 'i64' },
  { name: 'o_stride_n', type: 'i64' },
  { name: 'o_stride_h', type: 'i64' },
  { name: 'k_stride_page', type: 'i64' },
  { name: 'v_stride_page', type: 'i64' },
  { name: 'num_qo_heads', type: 'i32' },
  { name: 'group_size', type: 'i32' },
  { name: 'window_left', type: 'i32' },
  { name: 'page_size', type: 'i32' },
  { name: 'page_size_multiplier', type: 'u32' },
  { name: 'first_merge_item', type: 'i32' },
  { name: 'num_merge_items', type: 'i32' },
  { name: 'sm_scale', type: 'f32' },
  { name: 'logits_soft_cap', type: 'f32' },
  { name: 'rcp_logits_soft_cap', type: 'f32' },
  { name: 'rope_rcp_scale', type: 'f32' },
  { name: 'rope_log2_theta', type: 'f32' },
  { name: 'v_scale', type: 'f32' },
  { name: 'lse_factor', type: 'f32' },
];

/** The struct's fields, with those of a custom variant. */
export function batchParamsOf(variant: AttentionVariant | undefined): readonly ParamField[] {
  return variant === undefined ? batchParams : [...batchParams, ...variantFields(variant)];
}

const header = 'flashinfer/attention/batch.cuh';

/** Blocks a multiprocessor the registers of prefill are budgeted for. */
const prefillBlocksPerSm = 2;

const kvName = (paged: boolean): string => (paged ? 'paged' : 'ragged');
const kvArgument = (paged: boolean): string => (paged ? 'flashinfer::PagedKv' : 'flashinfer::ContiguousKv');
const minArch = (o: Pick<KernelOptions, 'qDtype'>): number => (o.qDtype === 'bfloat16' ? 80 : 75);

export function batchDecodeSpec(o: KernelOptions, tile: DecodeTile, paged: boolean): KernelSpec {
  const { warps, kvTile, stages } = tile;
  const tileArguments = `${warps}, ${kvTile}, ${stages}`;
  const config = `flashinfer::DecodeConfig<${typeArguments(o)}, ${tileArguments}, ${variantArguments(o)}, ${kvArgument(paged)}>`;
  return {
    name: `batch_decode_${kvName(paged)}_${optionsName(o)}_w${warps}_t${kvTile}_s${stages}`,
    header,
    entry: `flashinfer::batch_decode<${config}, ${paged}>`,
    ...prelude(o.variant, [
      `static_assert(${config}::kSharedBytes == ${decodeSharedBytes(o, tile)}, "planner and kernel disagree");`,
    ]),
    params: batchParamsOf(o.variant),
    threads: warps * 32,
    minArch: minArch(o),
  };
}

export function batchPrefillSpec(o: KernelOptions, tile: PrefillTile, paged: boolean): KernelSpec {
  const tileArguments = `${tile.mTiles}, ${tile.kvTile}`;
  const config = `flashinfer::PrefillConfig<${typeArguments(o)}, ${tileArguments}, ${variantArguments(o)}, ${kvArgument(paged)}>`;
  return {
    name: `batch_prefill_${kvName(paged)}_${optionsName(o)}_t${tile.mTiles * 64}x${tile.kvTile}`,
    header,
    entry: `flashinfer::batch_prefill<${config}, ${paged}>`,
    ...prelude(o.variant, [
      `static_assert(${config}::kSharedBytes == ${prefillSharedBytes(o, tile, paged)}, "planner and kernel disagree");`,
    ]),
    params: batchParamsOf(o.variant),
    threads: 128,
    minBlocksPerSm: prefillBlocksPerSm,
    minArch: minArch(o),
  };
}

export function batchMergeSpec(o: Pick<KernelOptions, 'qDtype' | 'headDim' | 'variant'>): KernelSpec {
  const { config, name } = mergeArguments(o);
  return {
    name: `batch_merge_splits_${name}`,
    header,
    entry: `flashinfer::batch_merge_splits<flashinfer::MergeConfig<${config}>>`,
    ...prelude(o.variant, []),
    params: batchParamsOf(o.variant),
    threads: mergeThreads,
    minArch: minArch(o),
  };
}
