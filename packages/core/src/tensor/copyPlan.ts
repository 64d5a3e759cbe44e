// SPDX-License-Identifier: Apache-2.0
// How a copy between two strided tensors is done: pure, so that it is tested without a device.

interface CopyDim {
  size: number;
  src: number;
  dst: number;
}

export interface CopyPlan {
  /**
   * `contiguous`: one block of memory. `rows`: the last dimension is the inner loop. `transposed`: the last dimension is
   * the fastest of dst, the one before it the fastest of src.
   */
  readonly kind: 'contiguous' | 'rows' | 'transposed';
  /** Bytes of one copied unit: of the element, or of up to 16 bytes where neighbours move together. */
  readonly unitBytes: number;
  /** Number of units. */
  readonly count: number;
  /** At least one dimension; sizes and strides in units. */
  readonly shape: readonly number[];
  readonly srcStrides: readonly number[];
  readonly dstStrides: readonly number[];
}

// Below this a tile would be mostly empty.
const minTransposedSize = 8;

/**
 * Drops dimensions of size 1, orders the others by the strides of dst, merges neighbours, and widens the unit while
 * sizes, strides and addresses allow it. Strides are in elements; `maxUnitBytes` is what the device moves at once.
 */
export function planCopy(
  shape: readonly number[],
  srcStrides: readonly number[],
  dstStrides: readonly number[],
  options: { elementBytes: number; maxUnitBytes: number; srcPtr: number; dstPtr: number },
): CopyPlan {
  const dims = mergeDims(orderDims(shape, srcStrides, dstStrides));
  const unitBytes = widenUnit(dims, options);
  const inner = dims[dims.length - 1] as CopyDim;
  let kind: CopyPlan['kind'] = 'rows';
  if (inner.src === 1 && inner.dst === 1) {
    if (dims.length === 1) kind = 'contiguous';
  } else if (inner.dst === 1 && inner.size >= minTransposedSize) {
    const across = dims.findIndex((dim) => dim.src === 1 && dim.size >= minTransposedSize);
    if (across >= 0) {
      dims.splice(dims.length - 2, 0, ...dims.splice(across, 1));
      kind = 'transposed';
    }
  }
  return {
    kind,
    unitBytes,
    count: dims.reduce((product, dim) => product * dim.size, 1),
    shape: dims.map((dim) => dim.size),
    srcStrides: dims.map((dim) => dim.src),
    dstStrides: dims.map((dim) => dim.dst),
  };
}

function orderDims(shape: readonly number[], srcStrides: readonly number[], dstStrides: readonly number[]): CopyDim[] {
  return shape
    .map((size, d) => ({ size, src: srcStrides[d] as number, dst: dstStrides[d] as number }))
    .filter((dim) => dim.size !== 1)
    .sort((a, b) => Math.abs(b.dst) - Math.abs(a.dst));
}

function mergeDims(ordered: CopyDim[]): CopyDim[] {
  const merged: CopyDim[] = [];
  for (const dim of ordered) {
    const outer = merged[merged.length - 1];
    if (outer && outer.src === dim.src * dim.size && outer.dst === dim.dst * dim.size) {
      merged[merged.length - 1] = { ...dim, size: outer.size * dim.size };
    } else {
      merged.push(dim);
    }
  }
  if (merged.length === 0) merged.push({ size: 1, src: 1, dst: 1 });
  return merged;
}

/** Divides sizes and strides in place; returns the new unit. */
function widenUnit(
  dims: CopyDim[],
  options: { elementBytes: number; maxUnitBytes: number; srcPtr: number; dstPtr: number },
): number {
  const { elementBytes, srcPtr, dstPtr } = options;
  const inner = dims[dims.length - 1] as CopyDim;
  if (inner.src !== 1 || inner.dst !== 1) return elementBytes;
  const outer = dims.slice(0, -1);
  for (let bytes = options.maxUnitBytes; bytes > elementBytes; bytes /= 2) {
    const factor = bytes / elementBytes;
    const fits =
      srcPtr % bytes === 0 &&
      dstPtr % bytes === 0 &&
      inner.size % factor === 0 &&
      outer.every((dim) => dim.src % factor === 0 && dim.dst % factor === 0);
    if (!fits) continue;
    inner.size /= factor;
    for (const dim of outer) {
      dim.src /= factor;
      dim.dst /= factor;
    }
    return bytes;
  }
  return elementBytes;
}
