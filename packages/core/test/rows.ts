// SPDX-License-Identifier: Apache-2.0
// Tensors whose rows do not lie together, and what lies between their rows.
import { expect } from 'vitest';
import { full, type Tensor, tensor } from '../src/index.ts';
import type { DType } from '../src/tensor/dtype.ts';
import { testDevice } from './device.ts';
import { normalArray } from './reference/random.ts';

export interface PaddedTensor {
  readonly tensor: Tensor;
  /** The buffer that the tensor is a part of: its last dimension, without the last `padding` elements. */
  readonly buffer: Tensor;
}

/** NaN everywhere, also in the `padding` elements behind each row. */
export function poisonedRows(shape: readonly number[], dtype: DType, padding: number): PaddedTensor {
  const last = shape.length - 1;
  const buffer = full(shape.with(last, shape[last]! + padding), Number.NaN, { dtype, device: testDevice });
  return { tensor: padding === 0 ? buffer : buffer.slice(last, 0, shape[last]!), buffer };
}

/** The values, with NaN behind each row. */
export function paddedRows(
  values: Float32Array,
  shape: readonly number[],
  dtype: DType,
  padding: number,
): PaddedTensor {
  const padded = poisonedRows(shape, dtype, padding);
  padded.tensor.copy_(tensor(values, { shape, dtype, device: testDevice }));
  return padded;
}

/** Normal values on the tested device. */
export function randomRows(
  shape: readonly number[],
  dtype: DType,
  stream: number,
  { padding = 0, scale = 1 } = {},
): PaddedTensor {
  const size = shape.reduce((a, b) => a * b, 1);
  return paddedRows(normalArray(size, stream, scale), shape, dtype, padding);
}

/** What the tensor holds, exactly. */
export function held(x: Tensor): Float64Array {
  return Float64Array.from(x.toArraySync() as Float32Array);
}

/** Bit by bit but for NaN, all of which count as one; a comparison of arrays by expect() takes a second. */
export function expectSameValues(x: Tensor, values: Float64Array): void {
  const found = held(x);
  expect(found.length).toBe(values.length);
  const different = found.findIndex((value, i) => !Object.is(value, values[i]));
  expect(different, `first difference: ${found[different]} for ${values[different]}`).toBe(-1);
}

/** That nothing was written behind the rows. */
export function expectPaddingKept({ tensor: rows, buffer }: PaddedTensor): void {
  const last = rows.shape.length - 1;
  if (buffer.shape[last] === rows.shape[last]) return;
  const padding = buffer.slice(last, rows.shape[last]!, buffer.shape[last]!);
  expect([...held(padding)].every(Number.isNaN), 'padding behind the rows').toBe(true);
}
