// SPDX-License-Identifier: Apache-2.0
// What planners need to know of a GPU; a plain record, so that plans are tested without one.
import { deviceProperties } from '../runtime/device.ts';

export interface DeviceLimits {
  readonly numSms: number;
  /** Most dynamic shared memory of one block, bytes. */
  readonly sharedPerBlock: number;
  /** Shared memory of a multiprocessor, bytes. */
  readonly sharedPerSm: number;
  readonly l2Bytes: number;
}

const known = new Map<number, DeviceLimits>();

export function deviceLimits(deviceIndex: number): DeviceLimits {
  let limits = known.get(deviceIndex);
  if (limits === undefined) {
    const properties = deviceProperties(deviceIndex);
    limits = {
      numSms: properties.multiProcessorCount,
      sharedPerBlock: properties.sharedMemPerBlockOptin,
      sharedPerSm: properties.sharedMemPerMultiprocessor,
      l2Bytes: properties.l2CacheBytes,
    };
    known.set(deviceIndex, limits);
  }
  return limits;
}

/** Shared memory the system keeps for itself in every block (CUDA programming guide, table of technical specifications). */
export const reservedSharedBytes = 1024;

/** Blocks of a multiprocessor as shared memory allows. */
export function blocksPerSm(limits: DeviceLimits, sharedBytes: number): number {
  return Math.max(1, Math.floor(limits.sharedPerSm / (sharedBytes + reservedSharedBytes)));
}

/**
 * `sharedBytes`, or as many more as leave a multiprocessor no room for more than `most` blocks. The grid of a graph has a
 * block for every item that any plan may have, and those without one end at once. The GPU then deals the others unevenly
 * as long as there is room: 512 blocks without others are three or four a multiprocessor on an H200, with 280 more that
 * end at once up to five, which all others wait for.
 */
export function residencyBytes(limits: DeviceLimits, sharedBytes: number, most: number): number {
  if (blocksPerSm(limits, sharedBytes) <= most) return sharedBytes;
  const oneTooMany = limits.sharedPerSm / (most + 1) - reservedSharedBytes;
  return (Math.floor(oneTooMany / 128) + 1) * 128; // what shared memory is given out by
}
