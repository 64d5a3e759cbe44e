// SPDX-License-Identifier: Apache-2.0
// What the blocks of an append ask L2 for while they move their own tokens.
import { dtypes } from '../tensor/dtype.ts';
import type { AppendTile } from './pageKernel.ts';
import type { AppendHalf } from './runAppend.ts';

/** Measured on an H200 (16 x 1024 tokens of 4 KiB): 8 KiB 37.7 us, 16 to 32 37.0 to 37.6, 48 38.2. */
const bytesPerSm = 24 * 1024;

export interface AppendAhead {
  /** Tokens from a block's own to those it asks for; as many as there are: none. */
  readonly tokens: number;
  /** Tokens that a thread asks for. */
  readonly run: number;
  /** Of a token; 0: k and v are not asked for. */
  readonly kBytes: number;
  readonly vBytes: number;
}

/**
 * What a thread asks for is one run of memory: all tokens of a block where they lie together, else one of them. The heads of
 * a token have to; accesses below 16 bytes mean that addresses or sizes are no multiples of 16.
 */
export function appendAhead(
  k: AppendHalf,
  v: AppendHalf,
  rows: number,
  heads: number,
  accessBytes: number,
  tile: AppendTile,
  numSms: number,
): AppendAhead {
  const { bytes } = dtypes[k.x.dtype];
  const together = heads === 1 || (k.strideH === k.width && v.strideH === v.width);
  if (tile.rows === 1 || accessBytes < 16 || !together) {
    return { tokens: rows, run: 1, kBytes: 0, vBytes: 0 };
  }
  const kBytes = heads * k.width * bytes;
  const vBytes = heads * v.width * bytes;
  const dense = k.strideN * bytes === kBytes && v.strideN * bytes === vBytes;
  const tokens = Math.ceil((numSms * bytesPerSm) / (kBytes + vBytes));
  return { tokens, run: dense ? tile.slots * tile.rows : 1, kBytes, vBytes };
}
