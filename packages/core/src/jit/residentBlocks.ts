// SPDX-License-Identifier: Apache-2.0
import { deviceProperties } from '../runtime/device.ts';
import type { Kernel } from './kernel.ts';

const known = new WeakMap<Kernel, number>();

/** Blocks without dynamic shared memory that run on the whole device at once: the grid of kernels that loop over it. */
export function residentBlocks(kernel: Kernel, deviceIndex: number): number {
  let blocks = known.get(kernel);
  if (blocks === undefined) {
    blocks = Math.max(1, kernel.occupancy(0)) * deviceProperties(deviceIndex).multiProcessorCount;
    known.set(kernel, blocks);
  }
  return blocks;
}
