// SPDX-License-Identifier: Apache-2.0
// What the blocks of a rotary embedding ask L2 for while they rotate their own tokens.
import { dtypes } from '../tensor/dtype.ts';
import type { RopeTile } from './ropeKernel.ts';
import type { RopeCall, RopeHeads } from './runRope.ts';

/** Measured on an H200 (8192 tokens of 10 KiB): 24 KiB 46.1 us, 32 46.0, 40 46.1; 2048 tokens in graphs 12.58, 12.53, 12.67. */
const bytesPerSm = 32 * 1024;
/**
 * So many times that distance, in tokens, start at once, and would ask for what others already read (1024 tokens: 5.15 us
 * for 4.74 in a graph; 2048 tokens: 12.4 for 12.5).
 */
const distancesAtOnce = 3;

/**
 * Tokens from a block's own to those whose heads it asks for; as many as there are: none. They are one run of memory,
 * so heads lie together and all of their elements are read; accesses below 16 bytes mean that addresses or sizes are no
 * multiples of 16. Kernels for few tokens do not ask.
 */
export function ropeAhead(
  { q, k, headDim, rotaryDim }: Pick<RopeCall, 'q' | 'k' | 'headDim' | 'rotaryDim'>,
  inPlace: boolean,
  { vec, ahead: asks }: Pick<RopeTile, 'vec' | 'ahead'>,
  numSms: number,
): number {
  const tokens = q.x.shape[0]!;
  const { bytes } = dtypes[q.x.dtype];
  const runs = headsLieTogether(q, headDim) && headsLieTogether(k, headDim) && (rotaryDim === headDim || !inPlace);
  if (!asks || vec * bytes < 16 || !runs) return tokens;
  const ahead = Math.ceil((numSms * bytesPerSm) / ((q.heads + k.heads) * headDim * bytes));
  return tokens <= distancesAtOnce * ahead ? tokens : ahead;
}

const headsLieTogether = ({ x: { shape, strides }, heads }: RopeHeads, headDim: number): boolean =>
  heads > 0 && (shape.length === 2 || heads === 1 || strides[1] === headDim);
