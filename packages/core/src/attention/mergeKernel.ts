// SPDX-License-Identifier: Apache-2.0
// Kernels of include/flashinfer/attention/merge_states.cuh: how rows are spread over threads, and their specs.
import { namedSpec } from '../jit/namedSpec.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { cppType, type DType, dtypes } from '../tensor/dtype.ts';

/** Template arguments VEC, LANES and GROUPS of MergeStatesConfig. */
export interface MergeTile {
  readonly vec: number;
  readonly lanes: number;
  readonly groups: number;
}

const threads = 128;

/** Rows of a block. */
export function mergeRows({ lanes, groups }: MergeTile): number {
  return threads / (lanes * groups);
}

/**
 * Where there are many states and too few rows to fill the device, groups of threads share a row's states: a thread
 * would wait for one read after the other.
 */
export function chooseMergeTile(
  length: number,
  vec: number,
  numRows: number,
  numStates: number,
  numSms: number,
): MergeTile {
  const lanes = Math.min(32, 2 ** Math.ceil(Math.log2(length / vec)));
  const shares = numStates >= 8 && numRows * lanes < numSms * 1024;
  return { vec, lanes, groups: shares ? threads / lanes : 1 };
}

const params: readonly ParamField[] = [
  { name: 'v', type: 'ptr' },
  { name: 's', type: 'ptr' },
  { name: 'v_b', type: 'ptr' },
  { name: 's_b', type: 'ptr' },
  { name: 'out', type: 'ptr' },
  { name: 'lse', type: 'ptr' },
  { name: 'mask', type: 'ptr' },
  { name: 'count', type: 'ptr' },
  { name: 'shifts', type: 'ptr' },
  { name: 'slopes', type: 'ptr' },
  { name: 'v_stride_n', type: 'i64' },
  { name: 'v_stride_h', type: 'i64' },
  { name: 'v_stride_i', type: 'i64' },
  { name: 's_stride_n', type: 'i64' },
  { name: 's_stride_h', type: 'i64' },
  { name: 's_stride_i', type: 'i64' },
  { name: 'v_b_stride_n', type: 'i64' },
  { name: 'v_b_stride_h', type: 'i64' },
  { name: 's_b_stride_n', type: 'i64' },
  { name: 's_b_stride_h', type: 'i64' },
  { name: 'shift_stride_i', type: 'i64' },
  { name: 'out_stride_n', type: 'i64' },
  { name: 'out_stride_h', type: 'i64' },
  { name: 'lse_stride_n', type: 'i64' },
  { name: 'lse_stride_h', type: 'i64' },
  { name: 'rows', type: 'i32' },
  { name: 'heads', type: 'i32' },
  { name: 'vectors', type: 'i32' },
  { name: 'num_states', type: 'i32' },
  { name: 'lse_in_factor', type: 'f32' },
  { name: 'lse_out_factor', type: 'f32' },
];

/** `pair`: two tensors, else any number in one. */
export function mergeStatesSpec(pair: boolean, dtype: DType, { vec, lanes, groups }: MergeTile): KernelSpec {
  const name = `merge_${pair ? 'state' : 'states'}_${dtypes[dtype].short}_v${vec}_${lanes}x${groups}`;
  return namedSpec(name, () => ({
    name,
    header: 'flashinfer/attention/merge_states.cuh',
    entry: `flashinfer::merge_state_rows<flashinfer::MergeStatesConfig<${cppType(dtype)}, ${vec}, ${lanes}, ${groups}, ${pair}>>`,
    params,
    threads,
  }));
}

/** Each dtype, pairs and many states, with and without shared rows, for prebuilt kernels and compile checks. */
export function mergeStatesSpecs(): KernelSpec[] {
  return [
    mergeStatesSpec(true, 'float16', chooseMergeTile(128, 8, 4096, 2, 132)),
    mergeStatesSpec(true, 'bfloat16', chooseMergeTile(128, 8, 4096, 2, 132)),
    mergeStatesSpec(true, 'bfloat16', chooseMergeTile(256, 8, 4096, 2, 132)),
    mergeStatesSpec(true, 'float32', chooseMergeTile(80, 4, 4096, 2, 132)),
    mergeStatesSpec(false, 'bfloat16', chooseMergeTile(128, 8, 65536, 3, 132)),
    mergeStatesSpec(false, 'float16', chooseMergeTile(128, 8, 32, 100, 132)),
    mergeStatesSpec(false, 'float16', chooseMergeTile(33, 1, 32, 100, 132)),
  ];
}

/** Of heads whose rows are aligned: pairs, few states (levels of a cascade) and many. */
export function mergeModelSpecs(dtype: DType, headDim: number): KernelSpec[] {
  const vec = 16 / dtypes[dtype].bytes;
  const tile = chooseMergeTile(headDim, vec, Number.MAX_SAFE_INTEGER, 2, 1);
  return [
    mergeStatesSpec(true, dtype, tile),
    mergeStatesSpec(false, dtype, tile),
    mergeStatesSpec(false, dtype, { ...tile, groups: threads / tile.lanes }),
  ];
}
