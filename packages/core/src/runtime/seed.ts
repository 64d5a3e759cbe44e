// SPDX-License-Identifier: Apache-2.0
// Seeds for random operators that are given none.
import { randomBytes } from 'node:crypto';
import { describeValue } from '../check/describeValue.ts';
import { InvalidArgumentError } from '../errors.ts';

let state: bigint | undefined;

const mask = (1n << 64n) - 1n;

/**
 * Makes random operators that are given no `seed` repeat: the same calls after it draw the same values.
 * @example
 * ```ts
 * import { manualSeed, randn } from '@flashinfer/core';
 *
 * manualSeed(42);
 * const x = randn([4]); // the same values in every run
 * ```
 */
export function manualSeed(seed: number | bigint): void {
  state = toSeed(seed, 'manualSeed');
}

/** @internal A new 64-bit seed. splitmix64 (Steele, Lea, Flood 2014), so that neighbouring states give unlike seeds. */
export function drawSeed(): bigint {
  state ??= randomBytes(8).readBigUInt64LE();
  state = (state + 0x9e3779b97f4a7c15n) & mask;
  let z = state;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
  return z ^ (z >> 31n);
}

/** @internal A caller's seed as 64 bits; negative numbers wrap. */
export function toSeed(seed: number | bigint, caller: string): bigint {
  if (typeof seed === 'bigint' || Number.isSafeInteger(seed)) return BigInt(seed) & mask;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${caller}: seed is ${describeValue(seed)}; expected an integer or a bigint; round it, or leave it out`,
  );
}
