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

/** Where the parts of a plan begin in its buffer, in int32 words; the work items come first. */
export interface PlanOffsets {
  /** Room for work items and for merge items; what a plan does not use is marked as nothing to do. */
  readonly items: number;
  readonly mergeItems: number;
  readonly records: number;
}

const itemWords = 4;
const recordWords = 12;
/** An item of decode: the item, its request's record, and page ids to the end of a 128-byte line. */
const decodeItemWords = 32;
const listedPages = decodeItemWords - itemWords - recordWords;

export function wordsOfItem({ mergesInPlace }: Pick<BatchShape, 'mergesInPlace'>): number {
  return mergesInPlace ? decodeItemWords : itemWords;
}

export function wordsOfRecord({ mergesInPlace }: Pick<BatchShape, 'mergesInPlace'>): number {
  return mergesInPlace ? 0 : recordWords;
}

/** Output elements merged by a block of batch_merge_splits. */
export const mergeElements = 512;

const makeScratch = (size: number) => ({
  tiles: new Int32Array(size),
  splits: new Int32Array(size),
  begins: new Int32Array(size),
  keyTiles: new Int32Array(size),
  order: new Int32Array(size),
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

/** Of whole numbers from 0 up; results below 2^31. V8 rounds with Math.ceil more slowly. */
function ceilQuotient(a: number, b: number): number {
  return ((a + b - 1) / b) | 0;
}

/** Rows of one split's partial states. */
function stateRows(tiles: number, qoLen: number, shape: BatchShape): number {
  return shape.mergesInPlace ? tiles * shape.numKvHeads * shape.tileRows : qoLen * shape.numQoHeads;
}

/** Work items, merge items and request records of `cut`, as batch.cuh lays them out; `pages` is the batch's page list. */
export function writePlan(
  words: Int32Array,
  offsets: PlanOffsets,
  cut: BatchCut,
  requests: BatchRequests,
  shape: BatchShape,
  pages: Int32Array,
): void {
  const stride = wordsOfItem(shape);
  const merges = offsets.items * stride;
  words.fill(-1, cut.numItems * stride, offsets.records);
  writeItems(words, cut, requests.batchSize, stride);
  if (shape.mergesInPlace) {
    completeDecodeItems(words, cut, requests, shape, pages);
    return;
  }
  writeRecords(words, offsets.records, requests, shape, cut);
  if (cut.numItems > 0) words[3] = cut.numItems;
  if (cut.numMergeItems > 0) writeMergeItems(words, merges, requests, cut.splits, shape);
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
  let high = uncut === maxItems ? longest : Math.min(longest, Math.ceil(total / (maxItems - uncut)));
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

/** Heavy items come first, so that light ones fill the end. The first one of prefill also says how many there are. */
function writeItems(words: Int32Array, cut: BatchCut, batchSize: number, stride: number): void {
  const { tiles, splits, keyTiles, chunk } = cut;
  const order = orderByCost(keyTiles, chunk, batchSize);
  let at = 0;
  // Splits of one request but the last are full; its light rest goes with the rest of its request.
  for (let i = 0; i < batchSize; ++i) {
    const r = order === undefined ? i : order[i]!;
    const cuts = splits[r]!;
    for (let tile = tiles[r]! - 1; tile >= 0; --tile) {
      for (let split = 0; split < cuts; ++split) {
        words[at] = r;
        words[at + 1] = tile;
        words[at + 2] = split;
        words[at + 3] = 0;
        at += stride;
      }
    }
  }
}

const costClasses = 256;
const classEnds = new Int32Array(costClasses + 1);

/** By classes of cost, the heaviest first; undefined where all cost the same. */
function orderByCost(keyTiles: Int32Array, chunk: number, batchSize: number): Int32Array | undefined {
  const shift = Math.max(0, 32 - Math.clz32(chunk) - Math.log2(costClasses));
  const first = Math.min(chunk, keyTiles[0]!);
  let differs = false;
  classEnds.fill(0);
  for (let r = 0; r < batchSize; ++r) {
    const cost = Math.min(chunk, keyTiles[r]!);
    classEnds[((chunk - cost) >> shift) + 1]! += 1;
    if (cost !== first) differs = true;
  }
  if (!differs) return undefined;
  for (let i = 1; i <= costClasses; ++i) classEnds[i]! += classEnds[i - 1]!;
  const { order } = scratch;
  for (let r = 0; r < batchSize; ++r) {
    const i = (chunk - Math.min(chunk, keyTiles[r]!)) >> shift;
    order[classEnds[i]!] = r;
    classEnds[i]! += 1;
  }
  return order;
}

function writeRecords(
  words: Int32Array,
  offset: number,
  requests: BatchRequests,
  shape: BatchShape,
  cut: BatchCut,
): void {
  let partialRows = 0;
  let numCounters = 0;
  let maskBytes = 0;
  let at = offset;
  for (let r = 0; r < requests.batchSize; ++r) {
    const qoLen = requests.qoLen[r]!;
    const kvLen = requests.kvLen[r]!;
    const cuts = cut.splits[r]!;
    words[at] = requests.qoBegin[r]!;
    words[at + 1] = qoLen;
    words[at + 2] = requests.kvStart[r]!;
    words[at + 3] = kvLen;
    words[at + 4] = cuts;
    words[at + 5] = Math.min(cut.chunk, Math.max(1, cut.keyTiles[r]!)) * shape.kvTile;
    words[at + 6] = cut.begins[r]! * shape.kvTile;
    words[at + 7] = partialRows;
    words[at + 8] = numCounters;
    words[at + 9] = maskBytes | 0; // the low word; a remainder would be a call
    words[at + 10] = Math.floor(maskBytes / 2 ** 32);
    words[at + 11] = 0;
    at += recordWords;
    maskBytes += Math.ceil((qoLen * kvLen) / 8);
    if (cuts === 1) continue;
    partialRows += cuts * stateRows(cut.tiles[r]!, qoLen, shape);
    if (shape.mergesInPlace) numCounters += cut.tiles[r]! * shape.numKvHeads;
  }
}

let records = new Int32Array(0);

/** Adds to each item of decode what its block reads first: the request's record, and the ids of the item's first pages. */
function completeDecodeItems(
  words: Int32Array,
  cut: BatchCut,
  requests: BatchRequests,
  shape: BatchShape,
  pages: Int32Array,
): void {
  const { batchSize, kvStart } = requests;
  if (records.length < batchSize * recordWords) records = new Int32Array(2 * batchSize * recordWords);
  writeRecords(records, 0, requests, shape, cut);
  const { pageSize = 0, evictedTiles = 0 } = shape;
  const evicts = evictsFirst(cut, batchSize, evictedTiles) ? 1 : 0;
  const end = cut.numItems * decodeItemWords;
  for (let at = 0; at < end; at += decodeItemWords) {
    const r = words[at]!;
    words[at + 3] = evicts;
    copyRecord(words, at + itemWords, r * recordWords);
    if (pageSize === 0) continue;
    const firstKey = words[at + itemWords + 6]! + words[at + 2]! * words[at + itemWords + 5]!;
    const firstEntry = (firstKey / pageSize) | 0;
    words[at + itemWords + recordWords - 1] = firstEntry;
    const first = kvStart[r]! + firstEntry;
    const count = Math.min(listedPages, pages.length - first);
    copyPages(words, at + itemWords + recordWords, pages, first, count);
  }
}

/** By fours: one by one it is half as long again. */
function copyPages(words: Int32Array, to: number, pages: Int32Array, from: number, count: number): void {
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    words[to + i] = pages[from + i]!;
    words[to + i + 1] = pages[from + i + 1]!;
    words[to + i + 2] = pages[from + i + 2]!;
    words[to + i + 3] = pages[from + i + 3]!;
  }
  for (; i < count; ++i) words[to + i] = pages[from + i]!;
}

/** All but the last word. Spelled out: as a loop it is a fifth of writing the plan of a large batch. */
function copyRecord(words: Int32Array, to: number, from: number): void {
  words[to] = records[from]!;
  words[to + 1] = records[from + 1]!;
  words[to + 2] = records[from + 2]!;
  words[to + 3] = records[from + 3]!;
  words[to + 4] = records[from + 4]!;
  words[to + 5] = records[from + 5]!;
  words[to + 6] = records[from + 6]!;
  words[to + 7] = records[from + 7]!;
  words[to + 8] = records[from + 8]!;
  words[to + 9] = records[from + 9]!;
  words[to + 10] = records[from + 10]!;
}

/** Not where the keys of a request serve several tiles of query rows: what L2 evicts would be read again. */
function evictsFirst({ tiles, keyTiles }: BatchCut, batchSize: number, most: number): boolean {
  let total = 0;
  for (let r = 0; r < batchSize; ++r) {
    if (tiles[r]! > 1) return false;
    total += keyTiles[r]!;
  }
  return total <= most;
}

function mergeBlocks(qoLen: number, { numQoHeads, headDimVo }: BatchShape): number {
  return Math.ceil((qoLen * numQoHeads * headDimVo) / mergeElements);
}

function writeMergeItems(
  words: Int32Array,
  offset: number,
  requests: BatchRequests,
  splits: Int32Array,
  shape: BatchShape,
): void {
  let at = offset;
  for (let r = 0; r < requests.batchSize; ++r) {
    if (splits[r]! === 1) continue;
    const blocks = mergeBlocks(requests.qoLen[r]!, shape);
    for (let block = 0; block < blocks; ++block) {
      words[at] = r;
      words[at + 1] = block;
      words[at + 2] = 0;
      words[at + 3] = 0;
      at += itemWords;
    }
  }
}
