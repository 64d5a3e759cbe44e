// SPDX-License-Identifier: Apache-2.0
// Plans a batch of requests of any lengths: how each is cut for the blocks of a GPU. A pure function of host arrays, shapes
// and device limits; planWords.ts writes it down for the kernels.

/** One request's part of the batch, in tokens; `kvStart` is a row of ragged keys or an entry of the page list. */
export interface BatchRequests {
  readonly batchSize: number;
  readonly qoBegin: Int32Array;
  readonly qoLen: Int32Array;
  readonly kvStart: Int32Array;
  readonly kvLen: Int32Array;
}

export interface BatchShape {
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDimVo: number;
  /** Packed query rows of a block, and keys of a tile. */
  readonly tileRows: number;
  readonly kvTile: number;
  /** Blocks that the GPU holds at once. */
  readonly slots: number;
  /** A split is never shorter than this many tiles. */
  readonly minTiles: number;
  /** Decode merges in place and keeps 16 rows a state, and its items hold their requests; prefill merges in a second kernel. */
  readonly mergesInPlace: boolean;
  /** Of decode over pages. */
  readonly pageSize?: number;
  /** Of decode: it tells L2 to evict keys first, where all requests have at most so many tiles of them. */
  readonly evictedTiles?: number;
  /** Of pages that are copied first: a request's keys begin at so many rows for each entry of the page list before. */
  readonly arrangedPageSize?: number;
  /** The kernel has no partial states: requests are never cut. */
  readonly neverSplits?: boolean;
  readonly windowLeft: number;
}

export interface SplitOptions {
  /** Keys a split, rounded up to the KV tile: the same for every batch, so that results do not depend on it. */
  readonly fixedSplitSize?: number | undefined;
  readonly disableSplitKv?: boolean | undefined;
}

/** How a batch is cut. Its arrays are scratch: the next {@link cutBatch} writes over them. */
export interface BatchCut {
  /** Of each request: query tiles, splits, the first key tile, and key tiles from there on. */
  readonly tiles: Int32Array;
  readonly splits: Int32Array;
  readonly begins: Int32Array;
  readonly keyTiles: Int32Array;
  /** Key tiles of a full split. */
  readonly chunk: number;
  readonly numItems: number;
  readonly numMergeItems: number;
  /** Rows of partial states, and counters. */
  readonly partialRows: number;
  readonly numCounters: number;
}

/** Output elements merged by a block of batch_merge_splits. */
export const mergeElements = 512;

const makeScratch = (size: number) => ({
  tiles: new Int32Array(size),
  splits: new Int32Array(size),
  begins: new Int32Array(size),
  keyTiles: new Int32Array(size),
});
/** Fresh arrays would cost more than the rest of a plan. */
let scratch = makeScratch(256);

/**
 * Long requests are cut so that no block has more than its fair share of all keys, and none is cut where the batch fills
 * the GPU anyway.
 */
export function cutBatch(requests: BatchRequests, shape: BatchShape, options: SplitOptions = {}): BatchCut {
  const { batchSize } = requests;
  if (scratch.tiles.length < batchSize) scratch = makeScratch(batchSize * 2);
  const { tiles, splits, begins, keyTiles } = scratch;
  const group = shape.numQoHeads / shape.numKvHeads;
  for (let r = 0; r < batchSize; ++r) {
    tiles[r] = ceilQuotient(requests.qoLen[r]! * group, shape.tileRows);
    begins[r] = firstTile(requests.qoLen[r]!, requests.kvLen[r]!, shape);
    keyTiles[r] = Math.max(0, ceilQuotient(requests.kvLen[r]!, shape.kvTile) - begins[r]!);
  }
  const whole = shape.neverSplits === true ? { disableSplitKv: true } : options;
  const chunk = chunkTiles(batchSize, tiles, keyTiles, shape, whole);
  let numItems = 0;
  let numMergeItems = 0;
  let partialRows = 0;
  let numCounters = 0;
  for (let r = 0; r < batchSize; ++r) {
    const cuts = Math.max(1, ceilQuotient(keyTiles[r]!, chunk));
    splits[r] = cuts;
    numItems += tiles[r]! * cuts;
    if (cuts === 1) continue;
    partialRows += cuts * stateRows(tiles[r]!, requests.qoLen[r]!, shape);
    if (shape.mergesInPlace) numCounters += tiles[r]! * shape.numKvHeads;
    else numMergeItems += mergeBlocks(requests.qoLen[r]!, shape);
  }
  return { tiles, splits, begins, keyTiles, chunk, numItems, numMergeItems, partialRows, numCounters };
}

/**
 * Most items of any batch with at most so many requests and tokens. `fixedSplits`: those of {@link SplitOptions} may be
 * more than it says.
 */
export function mostItems(shape: BatchShape, batchSize: number, numTokens: number, fixedSplits: boolean): number {
  const { numQoHeads, numKvHeads, tileRows, slots } = shape;
  const group = numQoHeads / numKvHeads;
  const uncut = Math.min(
    batchSize + ceilQuotient(numTokens * group, tileRows),
    numTokens * ceilQuotient(group, tileRows),
  );
  if (shape.neverSplits === true) return uncut;
  const wave = Math.floor(slots / numKvHeads);
  return uncut <= wave && !fixedSplits ? wave : uncut + mostCuts(shape);
}

/** Most splits that are cut off, as chunks are half a fair share or more. */
export function mostCuts({ slots, numKvHeads }: BatchShape): number {
  return 2 * ceilQuotient(slots, numKvHeads);
}

/** Of whole numbers from 0 up; results below 2^31. V8 rounds with Math.ceil more slowly. */
function ceilQuotient(a: number, b: number): number {
  return ((a + b - 1) / b) | 0;
}

/** Rows of one split's partial states. */
export function stateRows(tiles: number, qoLen: number, shape: BatchShape): number {
  return shape.mergesInPlace ? tiles * shape.numKvHeads * shape.tileRows : qoLen * shape.numQoHeads;
}

/** Tiles before it are out of the window of the request's first row. */
function firstTile(qoLen: number, kvLen: number, { windowLeft, kvTile }: BatchShape): number {
  if (windowLeft < 0) return 0;
  return Math.floor(Math.min(Math.max(0, kvLen - qoLen - windowLeft), Math.max(0, kvLen - 1)) / kvTile);
}

/** Tiles a split. */
function chunkTiles(
  batchSize: number,
  tiles: Int32Array,
  keyTiles: Int32Array,
  { numKvHeads, slots, minTiles, kvTile }: BatchShape,
  { fixedSplitSize, disableSplitKv }: SplitOptions,
): number {
  let longest = 1;
  let total = 0;
  for (let r = 0; r < batchSize; ++r) {
    if (tiles[r]! === 0) continue;
    total += tiles[r]! * keyTiles[r]! * numKvHeads;
    if (keyTiles[r]! > longest) longest = keyTiles[r]!;
  }
  if (disableSplitKv === true) return longest;
  if (fixedSplitSize !== undefined) return Math.ceil(fixedSplitSize / kvTile);
  const share = total / slots;
  if (longest <= share) return longest;
  // One wave, if the whole batch fits into it; else halves of a fair share, which pack well behind each other.
  const least = Math.max(minTiles, Math.ceil(share / 2));
  return Math.min(longest, oneWaveChunk(batchSize, tiles, keyTiles, Math.floor(slots / numKvHeads), least) ?? least);
}

/** The smallest chunk from `least` on with at most `maxItems` items; undefined where even uncut requests are more. */
function oneWaveChunk(
  batchSize: number,
  tiles: Int32Array,
  keyTiles: Int32Array,
  maxItems: number,
  least: number,
): number | undefined {
  let longest = 1;
  let uncut = 0;
  let total = 0;
  for (let r = 0; r < batchSize; ++r) {
    uncut += tiles[r]!;
    total += tiles[r]! * keyTiles[r]!;
    if (keyTiles[r]! > longest) longest = keyTiles[r]!;
  }
  if (uncut > maxItems) return undefined;
  // Rounding up makes at most `uncut` items more of total / chunk.
  const most = uncut === maxItems ? longest : Math.ceil(total / (maxItems - uncut));
  let high = Math.min(longest, Math.max(least, most));
  let low = Math.min(Math.max(least, Math.ceil(total / maxItems)), high);
  while (low < high) {
    const middle = (low + high) >> 1;
    let items = 0;
    for (let r = 0; r < batchSize; ++r) items += tiles[r]! * Math.max(1, ceilQuotient(keyTiles[r]!, middle));
    if (items <= maxItems) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Blocks that merge the rows of a request. */
export function mergeBlocks(qoLen: number, { numQoHeads, headDimVo }: BatchShape): number {
  return Math.ceil((qoLen * numQoHeads * headDimVo) / mergeElements);
}
