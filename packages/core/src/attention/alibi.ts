// SPDX-License-Identifier: Apache-2.0
// ALiBi slopes (arXiv:2108.12409, and its authors' code for head counts that are no power of two).
import type { Device } from '../runtime/device.ts';
import { tensor } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';

/** Slope of each head: 2^(-8(i+1)/n) for the largest power of two n, then every other slope of 2n. */
export function alibiSlopeValues(numHeads: number): Float32Array {
  const closest = 2 ** Math.floor(Math.log2(numHeads));
  return Float32Array.from({ length: numHeads }, (_, head) =>
    head < closest ? 2 ** ((-8 * (head + 1)) / closest) : 2 ** ((-4 * (2 * (head - closest) + 1)) / closest),
  );
}

const cached = new Map<string, Tensor>();

/** The slopes as a float32 tensor `[numHeads]`; made once a device and head count, and kept. */
export function alibiSlopes(numHeads: number, device: Device): Tensor {
  const key = `${device}/${numHeads}`;
  let slopes = cached.get(key);
  if (slopes === undefined) {
    slopes = tensor(alibiSlopeValues(numHeads), { device });
    cached.set(key, slopes);
  }
  return slopes;
}
