// SPDX-License-Identifier: Apache-2.0
// The parameter struct of the single-request kernels (single_prefill, single_decode, merge_splits) and its values.
import type { KernelArgs } from '../jit/packer.ts';
import type { ParamField } from '../jit/spec.ts';
import type { Device } from '../runtime/device.ts';
import { alibiSlopes } from './alibi.ts';
import type { AttentionRequest } from './request.ts';
import type { AttentionVariant } from './variant.ts';
import { variantFields } from './variantSource.ts';

/** Addresses of the scratch memory that KV splits meet in; zeros where there is one split. */
export interface SplitState {
  readonly numSplits: number;
  /** Keys a split, a multiple of the kernel's KV tile. */
  readonly kvChunk: number;
  /** First key of split 0: keys before it are out of every row's window. */
  readonly kvBegin: number;
  readonly partialO: number;
  readonly partialLse: number;
  readonly counters: number;
}

const singleParams: readonly ParamField[] = [
  { name: 'q', type: 'ptr' },
  { name: 'k', type: 'ptr' },
  { name: 'v', type: 'ptr' },
  { name: 'o', type: 'ptr' },
  { name: 'lse', type: 'ptr' },
  { name: 'custom_mask', type: 'ptr' },
  { name: 'alibi_slopes', type: 'ptr' },
  { name: 'sinks', type: 'ptr' },
  { name: 'partial_o', type: 'ptr' },
  { name: 'partial_lse', type: 'ptr' },
  { name: 'counters', type: 'ptr' },
  { name: 'q_stride_n', type: 'i64' },
  { name: 'q_stride_h', type: 'i64' },
  { name: 'k_stride_n', type: 'i64' },
  { name: 'k_stride_h', type: 'i64' },
  { name: 'v_stride_n', type: 'i64' },
  { name: 'v_stride_h', type: 'i64' },
  { name: 'o_stride_n', type: 'i64' },
  { name: 'o_stride_h', type: 'i64' },
  { name: 'qo_len', type: 'i32' },
  { name: 'kv_len', type: 'i32' },
  { name: 'num_qo_heads', type: 'i32' },
  { name: 'group_size', type: 'i32' },
  { name: 'num_splits', type: 'i32' },
  { name: 'kv_chunk', type: 'i32' },
  { name: 'kv_begin', type: 'i32' },
  { name: 'window_left', type: 'i32' },
  { name: 'sm_scale', type: 'f32' },
  { name: 'logits_soft_cap', type: 'f32' },
  { name: 'rcp_logits_soft_cap', type: 'f32' },
  { name: 'rope_rcp_scale', type: 'f32' },
  { name: 'rope_log2_theta', type: 'f32' },
  { name: 'v_scale', type: 'f32' },
  { name: 'lse_factor', type: 'f32' },
];

/** The struct's fields, with those of a custom variant. */
export function singleParamsOf(variant: AttentionVariant | undefined): readonly ParamField[] {
  return variant === undefined ? singleParams : [...singleParams, ...variantFields(variant)];
}

export function singleArgs(r: AttentionRequest, split: SplitState, device: Device): KernelArgs {
  const args: Record<string, number | bigint> = {
    q: r.q.ptr,
    k: r.k.ptr,
    v: r.v.ptr,
    o: r.out.ptr,
    lse: r.lse?.ptr ?? 0,
    custom_mask: r.customMask?.ptr ?? 0,
    alibi_slopes: r.posEncodingMode === 'ALIBI' ? alibiSlopes(r.numQoHeads, device).ptr : 0,
    sinks: r.sinks?.ptr ?? 0,
    partial_o: split.partialO,
    partial_lse: split.partialLse,
    counters: split.counters,
    q_stride_n: r.qStrideN,
    q_stride_h: r.qStrideH,
    k_stride_n: r.kStrideN,
    k_stride_h: r.kStrideH,
    v_stride_n: r.vStrideN,
    v_stride_h: r.vStrideH,
    o_stride_n: r.outStrideN,
    o_stride_h: r.outStrideH,
    qo_len: r.qoLen,
    kv_len: r.kvLen,
    num_qo_heads: r.numQoHeads,
    group_size: r.numQoHeads / r.numKvHeads,
    num_splits: split.numSplits,
    kv_chunk: split.kvChunk,
    kv_begin: split.kvBegin,
    window_left: r.windowLeft,
    sm_scale: r.smScale,
    logits_soft_cap: r.logitsSoftCap,
    rcp_logits_soft_cap: r.logitsSoftCap > 0 ? 1 / r.logitsSoftCap : 0,
    rope_rcp_scale: 1 / r.ropeScale,
    rope_log2_theta: Math.log2(r.ropeTheta),
    v_scale: r.vScale,
    lse_factor: r.lseFactor,
  };
  for (const name in r.variantArgs) args[name] = r.variantArgs[name]!;
  return args;
}
