// SPDX-License-Identifier: Apache-2.0
// Strides, in elements, as pure functions.

/** Elements of a shape; 1 for a scalar. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (const extent of shape) size *= extent;
  return size;
}

/** Row-major strides. */
export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    strides[d] = stride;
    stride *= Math.max(shape[d]!, 1);
  }
  return strides;
}

/** Whether elements lie in row-major order without gaps; strides of dims of extent 1 do not matter. */
export function stridesAreContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  if (shape.includes(0)) return true;
  let expected = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    const extent = shape[d]!;
    if (extent !== 1) {
      if (strides[d] !== expected) return false;
      expected *= extent;
    }
  }
  return true;
}

/**
 * Strides of the same elements under another shape of the same size, or undefined where they need a copy: a run of
 * dims that is contiguous in itself can be split and merged freely.
 */
export function viewStrides(
  shape: readonly number[],
  strides: readonly number[],
  target: readonly number[],
): number[] | undefined {
  if (sizeOf(shape) === 0) return contiguousStrides(target);
  const dims = shape.flatMap((extent, d) => (extent === 1 ? [] : [{ extent, stride: strides[d]! }]));
  const result = new Array<number>(target.length).fill(1);
  let t = target.length - 1;
  for (let d = dims.length - 1; d >= 0; d--) {
    // A run, from the innermost dim: each dim's stride continues the one inside it.
    const { stride } = dims[d]!;
    let run = dims[d]!.extent;
    while (d > 0 && dims[d - 1]!.stride === run * stride) run *= dims[--d]!.extent;
    let covered = 1;
    while (covered < run && t >= 0) {
      result[t] = covered * stride;
      covered *= target[t--]!;
    }
    if (covered !== run) return undefined;
  }
  return result;
}
