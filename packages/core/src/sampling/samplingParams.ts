// SPDX-License-Identifier: Apache-2.0
import type { ParamField } from '../jit/spec.ts';

/** What the kernels of include/flashinfer/sampling.cuh take, and those of held_sample.cuh. */
export const samplingParams: readonly ParamField[] = [
  { name: 'x', type: 'ptr' },
  { name: 'out', type: 'ptr' },
  { name: 'valid', type: 'ptr' },
  { name: 'indices', type: 'ptr' },
  { name: 'temperature', type: 'ptr' },
  { name: 'top_k', type: 'ptr' },
  { name: 'top_p', type: 'ptr' },
  { name: 'min_p', type: 'ptr' },
  { name: 'seed', type: 'ptr' },
  { name: 'offset', type: 'ptr' },
  { name: 'x_stride', type: 'i64' },
  { name: 'seed_value', type: 'u64' },
  { name: 'offset_value', type: 'u64' },
  { name: 'rows', type: 'i32' },
  { name: 'out_rows', type: 'i32' },
  { name: 'vocab', type: 'i32' },
  { name: 'segment', type: 'i32' },
  { name: 'stagger', type: 'i32' },
  { name: 'clusters_at_once', type: 'i32' },
  { name: 'filters', type: 'i32' },
  { name: 'temperature_value', type: 'f32' },
  { name: 'top_k_value', type: 'i32' },
  { name: 'top_p_value', type: 'f32' },
  { name: 'min_p_value', type: 'f32' },
  { name: 'seed_per_row', type: 'i32' },
  { name: 'offset_per_row', type: 'i32' },
];
