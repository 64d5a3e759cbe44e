// SPDX-License-Identifier: Apache-2.0
// Index arrays of the page operators: on the host, where they are checked, or already on the device.
import { type HostIndices, hostIndices } from '../attention/hostArray.ts';
import type { Checker } from '../check/checker.ts';
import type { Device } from '../runtime/device.ts';
import { tensor } from '../tensor/create.ts';
import type { DType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';

/** An Int32Array or number[], or an int32 tensor on the device of the call. */
export type PageIndices = HostIndices | Tensor;

const rule = { dtypes: ['int32'] as readonly DType[], contiguous: true };

/** Checks one dimension, whose extent gets the name `dim`; number[] becomes an Int32Array. */
export function readIndices(check: Checker, name: string, value: PageIndices, dim: string): Int32Array | Tensor {
  if (value instanceof Tensor) {
    check.tensor(name, value, [dim], rule);
    return value;
  }
  const array = hostIndices(check.functionName, name, value);
  check.bind(dim, array.length, name);
  return array;
}

/** The values, where the host has them. */
export function knownValues(indices: Int32Array | Tensor): Int32Array | undefined {
  if (!(indices instanceof Tensor)) return indices;
  return indices.deviceIndex < 0 ? (indices.toArraySync() as Int32Array) : undefined;
}

/** Runs `fn` with the indices on the device; what was copied there for it is disposed of after. */
export function withIndicesOn(
  device: Device,
  arrays: readonly (Int32Array | Tensor)[],
  fn: (tensors: readonly Tensor[]) => void,
): void {
  const copies: Tensor[] = [];
  try {
    fn(
      arrays.map((array) => {
        if (array instanceof Tensor) return array;
        const copy = tensor(array, { dtype: 'int32', device });
        copies.push(copy);
        return copy;
      }),
    );
  } finally {
    for (const copy of copies) copy.dispose();
  }
}
