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

/** Of the decode kernel: for few blocks, for so many that the GPU holds them at once, and for more. */
export interface DecodeTiles {
  /** In order of preference: the first that fits and asks for at most `bytesAhead` of keys and values at once. */
  readonly large: readonly DecodeTile[];
  /** The first of which the GPU holds all blocks at once; one block streams while another starts or ends. */
  readonly oneWave: readonly DecodeTile[];
  readonly waves: DecodeTile;
  /** Most blocks a multiprocessor that few requests are cut for. */
  readonly blocksPerSm: number;
}

const fourWarps = decode(4, 16, 2);
const fourOfThree = decode(4, 16, 3);
const smallest: readonly DecodeTile[] = [
  decode(2, 16, 2),
  decode(1, 16, 2), // headDim 256 in sm_75's 64 KiB
];

/**
 * An H200 needs some 64 KiB a multiprocessor on their way; more of them make writes that L2 still holds leave it sooner, and
 * a few warps with long tiles end later than many with short ones: 65536 keys, 32/8 heads, 8×16×2 3445 GB/s, 4×32×2 3420,
 * 4×16×3 3410, 8×16×3 3384, 4×32×3 3362. More blocks a multiprocessor are more states to merge.
 */
const bytesAhead = 96 * 1024;

export const decodeTiles: DecodeTiles = {
  large: [decode(8, 16, 3), decode(8, 16, 2), fourOfThree, fourWarps, ...smallest],
  oneWave: [fourWarps, decode(2, 16, 2)],
  waves: fourOfThree,
  blocksPerSm: 1,
};

/** Of float8 keys and values, headDim 128: there warps hide each other's conversions. */
export const float8DecodeTiles: DecodeTiles = {
  large: [fourWarps, ...smallest],
  oneWave: [fourWarps, decode(2, 16, 3)],
  waves: fourWarps,
  blocksPerSm: 3,
};

/** Of float8 keys and values of other sizes, for which nothing else has been measured. */
export const otherFloat8DecodeTiles: DecodeTiles = {
  large: [decode(4, 32, 3), decode(4, 32, 2), fourOfThree, fourWarps, ...smallest],
  oneWave: [fourOfThree, decode(2, 16, 3)],
  waves: fourOfThree,
  blocksPerSm: Infinity,
};

/** Whether a block of so many bytes of keys and values a stage asks for few enough at once. */
export function asksForLittle({ warps, stages }: DecodeTile, stageBytes: number): boolean {
  return warps * (stages - 1) * stageBytes <= bytesAhead;
}

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
