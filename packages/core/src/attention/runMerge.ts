// SPDX-License-Identifier: Apache-2.0
// Merges checked attention states on their device.
import { getKernel } from '../jit/kernel.ts';
import { native } from '../native/load.ts';
import { usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { deviceProperties } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { vectorWidth } from '../tensor/vectorWidth.ts';
import { chooseMergeTile, mergeRows, mergeStatesSpec } from './mergeKernel.ts';

/** Values `[n, heads, dim]` and their log-sum-exps `[n, heads]`; of `many`, with the states in dimension 1. */
export interface MergeCall {
  readonly v: Tensor;
  readonly s: Tensor;
  /** The second state of a pair; absent: v and s hold any number of states. */
  readonly other: { readonly v: Tensor; readonly s: Tensor } | undefined;
  /** Where the merged state goes; may be v and s of a pair. Without lse it is not written. */
  readonly out: Tensor;
  readonly lse: Tensor | undefined;
  /** bool `[n]`: rows with false stay as they are. */
  readonly mask: Tensor | undefined;
  /** Of s and of lse: 1 for base 2, ln 2 for base e. */
  readonly lseInFactor: number;
  readonly lseOutFactor: number;
  /** On cuda int32 `[1]`, read when the kernel runs: how many n there are, of at most `maxRows`. */
  readonly count?: Tensor;
  readonly maxRows?: number;
  /** The work before comes from several streams, which a dependent launch cannot wait for. */
  readonly afterJoin?: boolean;
  /** Not of pairs: int32 `[numStates, n or more]` times float32 `[heads]` is added to the natural logarithms of s. */
  readonly alibi?: { readonly shifts: Tensor; readonly slopes: Tensor };
}

export function runMerge(call: MergeCall): void {
  if (call.out.size === 0) return;
  if (call.out.deviceIndex < 0) runOnCpu(call);
  else runOnCuda(call);
}

function runOnCpu({ v, s, other, out, lse, mask, lseInFactor, lseOutFactor, alibi }: MergeCall): void {
  const many = other === undefined ? 1 : 0;
  native().cpu.mergeStates({
    dtype: dtypes[out.dtype].code,
    v: v.ptr,
    vStrideN: v.strides[0]!,
    vStrideH: v.strides[1 + many]!,
    vStrideI: v.strides[1]!,
    s: s.ptr,
    sStrideN: s.strides[0]!,
    sStrideH: s.strides[1 + many]!,
    sStrideI: s.strides[1]!,
    vOther: other?.v.ptr ?? 0,
    vOtherStrideN: other?.v.strides[0] ?? 0,
    vOtherStrideH: other?.v.strides[1] ?? 0,
    sOther: other?.s.ptr ?? 0,
    sOtherStrideN: other?.s.strides[0] ?? 0,
    sOtherStrideH: other?.s.strides[1] ?? 0,
    out: out.ptr,
    outStrideN: out.strides[0]!,
    outStrideH: out.strides[1]!,
    lse: lse?.ptr ?? 0,
    lseStrideN: lse?.strides[0] ?? 0,
    lseStrideH: lse?.strides[1] ?? 0,
    mask: mask?.ptr ?? 0,
    shifts: alibi?.shifts.ptr ?? 0,
    shiftStrideI: alibi?.shifts.strides[0] ?? 0,
    slopes: alibi?.slopes.ptr ?? 0,
    rows: out.shape[0]!,
    heads: out.shape[1]!,
    length: out.shape[2]!,
    numStates: other === undefined ? v.shape[1]! : 2,
    lseInFactor: 1 / lseInFactor,
    lseOutFactor,
  });
}

function runOnCuda({
  v,
  s,
  other,
  out,
  lse,
  mask,
  lseInFactor,
  lseOutFactor,
  count,
  maxRows,
  alibi,
  afterJoin,
}: MergeCall): void {
  const { deviceIndex, shape } = out;
  const [n, heads, length] = shape as [number, number, number];
  const rows = (maxRows ?? n) * heads;
  const vec = vectorWidth(length, other === undefined ? [out, v] : [out, v, other.v]);
  const numStates = other === undefined ? v.shape[1]! : 2;
  const { multiProcessorCount } = deviceProperties(deviceIndex);
  const tile = chooseMergeTile(length, vec, rows, numStates, multiProcessorCount);
  const many = other === undefined ? 1 : 0;
  const args = {
    v: v.ptr,
    s: s.ptr,
    v_b: other?.v.ptr ?? 0,
    s_b: other?.s.ptr ?? 0,
    out: out.ptr,
    lse: lse?.ptr ?? 0,
    count: count?.ptr ?? 0,
    shifts: alibi?.shifts.ptr ?? 0,
    slopes: alibi?.slopes.ptr ?? 0,
    mask: mask?.ptr ?? 0,
    v_stride_n: v.strides[0]!,
    v_stride_h: v.strides[1 + many]!,
    v_stride_i: v.strides[1]!,
    s_stride_n: s.strides[0]!,
    s_stride_h: s.strides[1 + many]!,
    s_stride_i: s.strides[1]!,
    v_b_stride_n: other?.v.strides[0] ?? 0,
    v_b_stride_h: other?.v.strides[1] ?? 0,
    s_b_stride_n: other?.s.strides[0] ?? 0,
    s_b_stride_h: other?.s.strides[1] ?? 0,
    shift_stride_i: alibi?.shifts.strides[0] ?? 0,
    out_stride_n: out.strides[0]!,
    out_stride_h: out.strides[1]!,
    lse_stride_n: lse?.strides[0] ?? 0,
    lse_stride_h: lse?.strides[1] ?? 0,
    rows,
    heads,
    vectors: length / vec,
    num_states: numStates,
    lse_in_factor: 1 / lseInFactor,
    lse_out_factor: lseOutFactor,
  };
  const kernel = getKernel(mergeStatesSpec(other !== undefined, out.dtype, tile), deviceIndex);
  const blocks = Math.ceil(rows / mergeRows(tile));
  kernel.launch([blocks, 1, 1], args, {
    stream: currentStream(deviceIndex),
    pdl: afterJoin !== true && usesDependentLaunch(deviceIndex, undefined),
  });
}
