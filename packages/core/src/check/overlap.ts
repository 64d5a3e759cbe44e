// SPDX-License-Identifier: Apache-2.0
// Whether two tensors share elements; outputs must not be inputs that other threads still read.
import { InvalidArgumentError } from '../errors.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';

/**
 * Whether the tensors may share an element. Exact for tensors whose first dimension has the same stride, such as column
 * ranges of one buffer; otherwise by the addresses between their first and last elements.
 */
export function mayOverlap(a: Tensor, b: Tensor): boolean {
  if (a.size === 0 || b.size === 0 || a.deviceIndex !== b.deviceIndex) return false;
  const distance = b.ptr - a.ptr;
  if (distance >= span(a, 0) || -distance >= span(b, 0)) return false;
  const pitch = rowPitch(a);
  if (pitch === 0 || pitch !== rowPitch(b)) return true;
  const column = ((distance % pitch) + pitch) % pitch;
  return column < span(a, 1) || column + span(b, 1) > pitch;
}

/** Whether the tensors are the same elements in the same places: what elementwise operators may work on in place. */
export function sameElements(a: Tensor, b: Tensor): boolean {
  if (a.ptr !== b.ptr || a.dtype !== b.dtype) return false;
  return a.shape.every((extent, d) => extent === b.shape[d] && (extent === 1 || a.strides[d] === b.strides[d]));
}

/** @throws InvalidArgumentError unless `out` is apart from `input`, or is `input` itself */
export function checkOutput(functionName: string, out: Tensor, name: string, input: Tensor): void {
  if (!mayOverlap(out, input) || sameElements(out, input)) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${functionName}: out and ${name} overlap in memory; expected out to be ${name} itself or separate; ` +
      'pass another out or none',
  );
}

/** @throws InvalidArgumentError where two tensors that are both written, or read while the other is, share elements */
export function checkSeparate(functionName: string, a: string, x: Tensor, b: string, y: Tensor): void {
  if (!mayOverlap(x, y)) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${functionName}: ${a} and ${b} overlap in memory; expected separate tensors; copy one of them`,
  );
}

/** Bytes from the first to past the last element of dimensions `from` and up. */
function span(tensor: Tensor, from: number): number {
  let last = 0;
  for (let d = from; d < tensor.shape.length; ++d) last += (tensor.shape[d]! - 1) * tensor.strides[d]!;
  return (last + 1) * dtypes[tensor.dtype].bytes;
}

/** Bytes between the indices of the first dimension; 0 where its rows are interleaved or there is one row. */
function rowPitch(tensor: Tensor): number {
  const { shape, strides, dtype } = tensor;
  if (shape.length === 0 || shape[0] === 1) return 0;
  const pitch = strides[0]! * dtypes[dtype].bytes;
  return pitch >= span(tensor, 1) ? pitch : 0;
}
