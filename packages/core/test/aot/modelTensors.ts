// SPDX-License-Identifier: Apache-2.0
// Tensors of the calls of models, which live until the next release.
import { cuda, type DType, empty, type Shape, type Tensor } from '../../src/index.ts';
import { testDevice as device } from '../device.ts';

const owned: Tensor[] = [];

/** Results of calls, to be released. */
export function own(...results: readonly (Tensor | readonly Tensor[])[]): void {
  for (const result of results) owned.push(...(Array.isArray(result) ? result : [result]));
}

/** Of any values: the driver computes nothing. */
export function make(shape: Shape, dtype: DType): Tensor {
  const x = empty(shape, { dtype, device });
  owned.push(x);
  return x;
}

export function release(): void {
  for (const x of owned.splice(0)) x.dispose();
  cuda.synchronizeSync();
}
