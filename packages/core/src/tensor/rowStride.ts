// SPDX-License-Identifier: Apache-2.0

/**
 * Elements between consecutive rows (last dimension) of a tensor whose other dimensions count rows at one distance, as
 * in any slice of the last dimension of a contiguous tensor; undefined where there is no such distance.
 */
export function rowStride(shape: readonly number[], strides: readonly number[]): number | undefined {
  if (shape.includes(0)) return 0;
  let stride: number | undefined;
  let next = 0;
  for (let d = shape.length - 2; d >= 0; d--) {
    if (shape[d] === 1) continue;
    if (stride === undefined) stride = strides[d]!;
    else if (strides[d] !== next) return undefined;
    next = strides[d]! * shape[d]!;
  }
  return stride ?? 0;
}
