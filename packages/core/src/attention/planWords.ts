// SPDX-License-Identifier: Apache-2.0
// A plan as the kernels of include/flashinfer/attention/batch.cuh read it: work items, merge items and records of the
// requests in one int32 buffer.
import { type BatchCut, type BatchRequests, type BatchShape, mergeBlocks, stateRows } from './batchPlan.ts';

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

/** Heavy items come first, so that light ones fill the end. The first one of prefill also says how many there are. */
function writeItems(words: Int32Array, cut: BatchCut, batchSize: number, stride: number): void {
  const { tiles, splits, keyTiles, chunk } = cut;
  const requests = orderByCost(keyTiles, chunk, batchSize);
  let at = 0;
  // Splits of one request but the last are full; its light rest goes with the rest of its request.
  for (let i = 0; i < batchSize; ++i) {
    const r = requests === undefined ? i : requests[i]!;
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
let order = new Int32Array(0);

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
  if (order.length < batchSize) order = new Int32Array(2 * batchSize);
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
  const { arrangedPageSize = 1 } = shape;
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
    words[at + 2] = requests.kvStart[r]! * arrangedPageSize;
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
