// SPDX-License-Identifier: Apache-2.0
// Plans a batch of requests of any lengths: which block does what. A pure function of host arrays, shapes and device
// limits; its result is one int32 buffer that the kernels of include/flashinfer/attention/batch.cuh read.

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
  readonly headDim: number;
  /** Packed query rows of a block, and keys of a tile. */
  readonly tileRows: number;
  readonly kvTile: number;
  /** Blocks that the GPU holds at once. */
  readonly slots: number;
  /** A split is never shorter than this many tiles. */
  readonly minTiles: number;
  /** Decode merges in place and keeps 16 rows a state; prefill merges in a second kernel. */
  readonly mergesInPlace: boolean;
  readonly windowLeft: number;
}

export interface SplitOptions {
  /** Keys a split, rounded up to the KV tile: the same for every batch, so that results do not depend on it. */
  readonly fixedSplitSize?: number | undefined;
  readonly disableSplitKv?: boolean | undefined;
}

export interface BatchPlan {
  /** `work` items, merge items, then request records, as batch.cuh lays them out. */
  readonly words: Int32Array;
  readonly numItems: number;
  readonly numMergeItems: number;
  /** First int32 of the request records. */
  readonly requestsOffset: number;
  /** Rows of partial states, and counters. */
  readonly partialRows: number;
  readonly numCounters: number;
}

const itemWords = 4;
const recordWords = 12;
/** Output elements merged by a block of batch_merge_splits. */
const mergeElements = 512;

/**
 * Long requests are cut so that no block has more than its fair share of all keys, and none is cut where the batch fills
 * the GPU anyway. Heavy items come first, so that light ones fill the end.
 */
export function planBatch(requests: BatchRequests, shape: BatchShape, options: SplitOptions = {}): BatchPlan {
  const { batchSize } = requests;
  const tiles = new Int32Array(batchSize);
  const keyTiles = new Int32Array(batchSize);
  const begins = new Int32Array(batchSize);
  const group = shape.numQoHeads / shape.numKvHeads;
  for (let r = 0; r < batchSize; ++r) {
    tiles[r] = Math.ceil((requests.qoLen[r]! * group) / shape.tileRows);
    begins[r] = firstTile(requests.qoLen[r]!, requests.kvLen[r]!, shape);
    keyTiles[r] = Math.max(0, Math.ceil(requests.kvLen[r]! / shape.kvTile) - begins[r]!);
  }
  const chunk = chunkTiles(tiles, keyTiles, shape, options);
  const splits = new Int32Array(batchSize);
  let numItems = 0;
  let mergeItems = 0;
  for (let r = 0; r < batchSize; ++r) {
    splits[r] = Math.max(1, Math.ceil(keyTiles[r]! / chunk));
    numItems += tiles[r]! * splits[r]!;
    if (splits[r]! > 1 && !shape.mergesInPlace) mergeItems += mergeBlocks(requests.qoLen[r]!, shape);
  }
  const requestsOffset = (numItems + mergeItems) * itemWords;
  const words = new Int32Array(requestsOffset + batchSize * recordWords);
  writeItems(words, tiles, splits, keyTiles, chunk);
  const scratch = writeRecords(words, requestsOffset, requests, shape, { tiles, splits, begins, keyTiles, chunk });
  if (mergeItems > 0) writeMergeItems(words, numItems, requests, splits, shape);
  return { words, numItems, numMergeItems: mergeItems, requestsOffset, ...scratch };
}

/** Tiles before it are out of the window of the request's first row. */
function firstTile(qoLen: number, kvLen: number, { windowLeft, kvTile }: BatchShape): number {
  if (windowLeft < 0) return 0;
  return Math.floor(Math.min(Math.max(0, kvLen - qoLen - windowLeft), Math.max(0, kvLen - 1)) / kvTile);
}

/** Tiles a split. */
function chunkTiles(
  tiles: Int32Array,
  keyTiles: Int32Array,
  { numKvHeads, slots, minTiles, kvTile }: BatchShape,
  { fixedSplitSize, disableSplitKv }: SplitOptions,
): number {
  let longest = 1;
  let total = 0;
  for (let r = 0; r < tiles.length; ++r) {
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
  return Math.min(longest, oneWaveChunk(tiles, keyTiles, Math.floor(slots / numKvHeads), least) ?? least);
}

/** The smallest chunk from `least` on with at most `maxItems` items; undefined where even uncut requests are more. */
function oneWaveChunk(tiles: Int32Array, keyTiles: Int32Array, maxItems: number, least: number): number | undefined {
  let high = 1;
  let uncut = 0;
  for (let r = 0; r < tiles.length; ++r) {
    uncut += tiles[r]!;
    if (keyTiles[r]! > high) high = keyTiles[r]!;
  }
  if (uncut > maxItems) return undefined;
  let low = Math.min(least, high);
  while (low < high) {
    const middle = (low + high) >> 1;
    let items = 0;
    for (let r = 0; r < tiles.length; ++r) items += tiles[r]! * Math.max(1, Math.ceil(keyTiles[r]! / middle));
    if (items <= maxItems) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Items by falling length: counted into buckets of equal length, since a comparison sort would cost most of the plan. */
function writeItems(
  words: Int32Array,
  tiles: Int32Array,
  splits: Int32Array,
  keyTiles: Int32Array,
  chunk: number,
): void {
  const order = Array.from(tiles.keys());
  const cost = (r: number): number => Math.min(chunk, keyTiles[r]!);
  if (order.some((r) => cost(r) !== cost(0))) order.sort((a, b) => cost(b) - cost(a) || a - b);
  let at = 0;
  // Splits of one request but the last are full; its light rest goes with the rest of its request.
  for (const r of order) {
    for (let tile = tiles[r]! - 1; tile >= 0; --tile) {
      for (let split = 0; split < splits[r]!; ++split) {
        words[at] = r;
        words[at + 1] = tile;
        words[at + 2] = split;
        at += itemWords;
      }
    }
  }
}

interface Cut {
  readonly tiles: Int32Array;
  readonly splits: Int32Array;
  readonly begins: Int32Array;
  readonly keyTiles: Int32Array;
  readonly chunk: number;
}

function writeRecords(
  words: Int32Array,
  offset: number,
  requests: BatchRequests,
  shape: BatchShape,
  { tiles, splits, begins, keyTiles, chunk }: Cut,
): Pick<BatchPlan, 'partialRows' | 'numCounters'> {
  let partialRows = 0;
  let numCounters = 0;
  let maskBytes = 0;
  for (let r = 0; r < requests.batchSize; ++r) {
    const at = offset + r * recordWords;
    words[at] = requests.qoBegin[r]!;
    words[at + 1] = requests.qoLen[r]!;
    words[at + 2] = requests.kvStart[r]!;
    words[at + 3] = requests.kvLen[r]!;
    words[at + 4] = splits[r]!;
    words[at + 5] = Math.min(chunk, Math.max(1, keyTiles[r]!)) * shape.kvTile;
    words[at + 6] = begins[r]! * shape.kvTile;
    words[at + 7] = partialRows;
    words[at + 8] = numCounters;
    words[at + 9] = (maskBytes % 2 ** 32) | 0;
    words[at + 10] = Math.floor(maskBytes / 2 ** 32);
    maskBytes += Math.ceil((requests.qoLen[r]! * requests.kvLen[r]!) / 8);
    if (splits[r]! === 1) continue;
    const states = tiles[r]! * shape.numKvHeads;
    partialRows += splits[r]! * (shape.mergesInPlace ? states * shape.tileRows : requests.qoLen[r]! * shape.numQoHeads);
    if (shape.mergesInPlace) numCounters += states;
  }
  return { partialRows, numCounters };
}

function mergeBlocks(qoLen: number, { numQoHeads, headDim }: BatchShape): number {
  return Math.ceil((qoLen * numQoHeads * headDim) / mergeElements);
}

function writeMergeItems(
  words: Int32Array,
  firstItem: number,
  requests: BatchRequests,
  splits: Int32Array,
  shape: BatchShape,
): void {
  let at = firstItem * itemWords;
  for (let r = 0; r < requests.batchSize; ++r) {
    if (splits[r]! === 1) continue;
    const blocks = mergeBlocks(requests.qoLen[r]!, shape);
    for (let block = 0; block < blocks; ++block) {
      words[at] = r;
      words[at + 1] = block;
      at += itemWords;
    }
  }
}
