// SPDX-License-Identifier: Apache-2.0
// What decode and prefill share: names, work, buffers.
import { type DType, randn, type Tensor } from '@flashinfer/core';
import type { BenchContext, CaseDescription, DeviceKind } from './benchCase.ts';

export interface AttentionParams {
  readonly qoLen: number;
  readonly kvLen: number;
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly dtype: 'bfloat16' | 'float16' | 'float32';
  readonly causal: boolean;
}

const elementBytes = { bfloat16: 2, float16: 2, float32: 4 } as const;
const shortDtype = { bfloat16: 'bf16', float16: 'f16', float32: 'f32' } as const;

export function describe(
  family: 'decode' | 'prefill',
  params: AttentionParams,
  devices: DeviceKind[],
): CaseDescription {
  const { qoLen, kvLen, numQoHeads, numKvHeads, headDim, dtype, causal } = params;
  const lengths = family === 'decode' ? `kv${kvLen}` : `q${qoLen}_kv${kvLen}`;
  const mask = family === 'decode' ? '' : causal ? '_causal' : '_full';
  return {
    name: `${family}/${lengths}_h${numQoHeads}k${numKvHeads}_d${headDim}_${shortDtype[dtype]}${mask}`,
    params: { ...params },
    devices,
    peer: { op: 'attention', ...params },
  };
}

/** q and out once, k and v once. */
export function attentionBytes({ qoLen, kvLen, numQoHeads, numKvHeads, headDim, dtype }: AttentionParams): number {
  return elementBytes[dtype] * headDim * 2 * (qoLen * numQoHeads + kvLen * numKvHeads);
}

/** 4 Lq Lkv H D, half of it where a square causal mask hides half. */
export function attentionFlops(params: Omit<AttentionParams, 'numKvHeads' | 'dtype'>): number {
  const { qoLen, kvLen, numQoHeads, headDim, causal } = params;
  return (4 * qoLen * kvLen * numQoHeads * headDim) / (causal ? 2 : 1);
}

export interface AttentionBuffers {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly out: Tensor;
}

/** One set of tensors a rotation, filled with normal values: zeros would draw less power than real data. */
export function attentionBuffers(
  { device }: BenchContext,
  rotations: number,
  qShape: readonly number[],
  { kvLen, numKvHeads, headDim, dtype }: AttentionParams,
): AttentionBuffers[] {
  const draw = (shape: readonly number[], seed: number): Tensor =>
    randn(shape, { dtype: dtype as DType, device, seed });
  return Array.from({ length: rotations }, (_, n) => ({
    q: draw(qShape, 4 * n),
    k: draw([kvLen, numKvHeads, headDim], 4 * n + 1),
    v: draw([kvLen, numKvHeads, headDim], 4 * n + 2),
    out: draw(qShape, 4 * n + 3),
  }));
}

export function disposeBuffers(buffers: readonly AttentionBuffers[]): void {
  for (const { q, k, v, out } of buffers) for (const x of [q, k, v, out]) x.dispose();
}
