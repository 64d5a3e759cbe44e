// SPDX-License-Identifier: Apache-2.0
// The tiles of attention kernels that measurements chose, all of them. `node packages/bench/dist/main.js --device cuda:0
// tuning` measures beside them everything that could stand here (tileCandidates.ts); docs/fa3.md and docs/decode.md have
// what was found.

/** Of the decode kernel: each warp takes tiles of so many keys by turns. */
export interface DecodeTile {
  readonly warps: number;
  readonly kvTile: number;
  readonly stages: number;
}

/** Of the fa2 template. */
export interface PrefillTile {
  /** m16 tiles a warp; a block has four warps. */
  readonly mTiles: 1 | 2;
  readonly kvTile: number;
}

/** Of the fa3 template. */
export interface HopperTile {
  /** Warpgroups that compute, each 64 query rows; one more loads. */
  readonly warpgroups: 2 | 3;
  readonly kvTile: number;
  readonly stages: number;
}

const decode = (warps: number, kvTile: number, stages: number): DecodeTile => ({ warps, kvTile, stages });

/**
 * `large`: for few blocks, in order of preference; the first that fits is taken. On H200 (d128, bf16, 65536 keys, 32/8
 * heads): 4×32×2 3520 GB/s, 4×32×3 3493, 8×16×3 3474, 4×16×4 3468, and two or three smaller blocks a multiprocessor 3341
 * and 3289. `small` and `smallest`: two blocks a multiprocessor at headDim 128, and four: one streams while another starts
 * or ends.
 */
export const decodeTiles = {
  large: [
    decode(4, 32, 3),
    decode(4, 32, 2),
    decode(4, 16, 3),
    decode(4, 16, 2),
    decode(2, 16, 2),
    decode(1, 16, 2), // headDim 256 in sm_75's 64 KiB
  ],
  small: decode(4, 16, 3),
  smallest: decode(2, 16, 3),
} as const;

/**
 * Keys a tile, in order of preference; the first that fits is taken. Measured on H200, L8192, full, bf16, TFLOP/s, m16
 * tiles a warp × keys: d128 2×64 417, 2×48 400, 2×32 369, 1×64 331; d64 2×64 323; d256 1×64 344, 1×32 299.
 */
export const prefillKvTiles: readonly number[] = [64, 32, 16];

const hopper = (warpgroups: 2 | 3, kvTile: number, stages: number): HopperTile => ({ warpgroups, kvTile, stages });

interface HopperTiles {
  readonly full: readonly [short: HopperTile, long: HopperTile];
  readonly causal: readonly [short: HopperTile, long: HopperTile];
}

/** Keys of a request up to which it is short: the diagonal's tile is much of its work. */
export const hopperShortKeys = 2048;

/** By headDim of queries and keys. */
export const hopperTiles: Readonly<Record<number, HopperTiles>> = {
  64: { full: [hopper(3, 128, 2), hopper(3, 128, 2)], causal: [hopper(2, 128, 3), hopper(3, 128, 2)] },
  128: { full: [hopper(2, 128, 2), hopper(2, 128, 2)], causal: [hopper(2, 128, 2), hopper(2, 128, 2)] },
  192: { full: [hopper(2, 128, 2), hopper(2, 128, 2)], causal: [hopper(2, 128, 2), hopper(2, 128, 2)] },
  256: { full: [hopper(2, 80, 2), hopper(2, 80, 2)], causal: [hopper(2, 64, 2), hopper(2, 64, 2)] },
};

/** Tiles in place of those above, for everything planned from now on. */
export interface TriedTiles {
  readonly decode?: DecodeTile;
  readonly prefill?: PrefillTile;
  readonly hopper?: HopperTile;
}

export let triedTiles: TriedTiles = {};

/** For the `tuning` benchmark alone; `{}` ends it. */
export function tryTiles(tiles: TriedTiles): void {
  triedTiles = tiles;
}
