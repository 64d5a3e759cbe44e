// SPDX-License-Identifier: Apache-2.0
import { dtypes } from './dtype.ts';
import type { Tensor } from './tensor.ts';

/** The widest memory instruction, bytes. */
const maxAccessBytes = 16;

/**
 * Elements that kernels may move at once along the last dimension of all tensors: a power of two that divides `length`,
 * fills at most one access of the first tensor, and to whose size every row of every tensor is aligned.
 */
export function vectorWidth(length: number, tensors: readonly Tensor[]): number {
  let width = maxAccessBytes / dtypes[tensors[0]!.dtype].bytes;
  while (width > 1 && !(length % width === 0 && tensors.every((tensor) => rowsAreAligned(tensor, width)))) width /= 2;
  return width;
}

function rowsAreAligned({ ptr, shape, strides, dtype }: Tensor, width: number): boolean {
  if (ptr % Math.min(maxAccessBytes, width * dtypes[dtype].bytes) !== 0) return false;
  for (let d = 0; d < shape.length - 1; d++) if (shape[d]! > 1 && strides[d]! % width !== 0) return false;
  return true;
}
