// SPDX-License-Identifier: Apache-2.0
// Batches are planned by pure functions: what the items of decode tell their blocks is tested without a GPU.
import { describe, expect, it } from 'vitest';
import { type BatchShape, cutBatch, mostItems } from '../../src/attention/batchPlan.ts';
import { itemGrid } from '../../src/attention/planBuffer.ts';
import { writePlan } from '../../src/attention/planWords.ts';
import { uniformSource } from '../reference/random.ts';

const shape: BatchShape = {
  numQoHeads: 32,
  numKvHeads: 8,
  headDimVo: 128,
  tileRows: 16,
  kvTile: 32,
  slots: 132,
  minTiles: 4,
  mergesInPlace: true,
  windowLeft: -1,
  pageSize: 16,
  evictedTiles: 1000,
};
const itemWords = 32;

function planDecode(kvLens: readonly number[], change: Partial<BatchShape> = {}, qoLen = 1) {
  const planned = { ...shape, ...change };
  const { pageSize = 16 } = planned;
  const batchSize = kvLens.length;
  const counts = kvLens.map((length) => Math.ceil(length / pageSize));
  const kvStart = Int32Array.from({ length: batchSize }, (_, r) => counts.slice(0, r).reduce((a, b) => a + b, 0));
  const pages = Int32Array.from({ length: counts.reduce((a, b) => a + b, 0) }, (_, i) => 7 * i + 1);
  const qoBegin = Int32Array.from({ length: batchSize }, (_, r) => r * qoLen);
  const requests = {
    batchSize,
    qoBegin,
    qoLen: new Int32Array(batchSize).fill(qoLen),
    kvStart,
    kvLen: Int32Array.from(kvLens),
  };
  const cut = cutBatch(requests, planned);
  const items = cut.numItems + 3;
  const words = new Int32Array(items * itemWords).fill(12345);
  writePlan(words, { items, mergeItems: 0, records: items * itemWords }, cut, requests, planned, pages);
  const list = Array.from({ length: items }, (_, i) => words.subarray(i * itemWords, (i + 1) * itemWords));
  return { list, cut, pages, kvStart };
}

describe('items of decode', () => {
  it.each([1, 3, 16, 64])('hold each key once, and the ids of their first pages of %i', (pageSize) => {
    const uniform = uniformSource(5);
    for (let round = 0; round < 40; ++round) {
      const kvLens = Array.from({ length: 1 + Math.floor(uniform() * 40) }, () => Math.floor(uniform() ** 4 * 20_000));
      const { list, cut, pages, kvStart } = planDecode(kvLens, { pageSize });
      const seen = kvLens.map(() => 0);
      for (const item of list.slice(0, cut.numItems)) {
        const [request, tile, split] = item as unknown as [number, number, number];
        const [qoBegin, qoLen, start, kvLen, splits, chunk, begin] = item.subarray(4) as unknown as number[];
        expect([tile, qoBegin, qoLen, start, kvLen]).toEqual([0, request, 1, kvStart[request]!, kvLens[request]!]);
        expect(split).toBeLessThan(splits!);
        const first = begin! + split * chunk!;
        seen[request]! += Math.max(0, Math.min(kvLen!, first + chunk!) - first);
        const entry = Math.floor(first / pageSize);
        expect(item[15]).toBe(entry);
        const listed = pages.subarray(start! + entry, start! + Math.min(entry + 16, Math.ceil(kvLen! / pageSize)));
        expect(item.subarray(16, 16 + listed.length)).toEqual(listed);
      }
      expect(seen).toEqual(kvLens);
      for (const item of list.slice(cut.numItems)) expect(item[0]).toBe(-1);
    }
  });

  it('give each split state and counter a place of its own', () => {
    const { list, cut } = planDecode([9000, 10, 5000, 700]);
    const rows = new Set<number>();
    for (const item of list.slice(0, cut.numItems)) {
      const [split, splits, firstRow] = [item[2]!, item[8]!, item[11]!];
      if (splits === 1) continue;
      for (let i = 0; i < 8 * 16; ++i) {
        const row = firstRow + split * 8 * 16 + i;
        expect(rows.has(row)).toBe(false);
        rows.add(row);
      }
    }
    expect(rows.size).toBe(cut.partialRows);
    expect(Math.max(...rows)).toBe(cut.partialRows - 1);
  });

  it('tell L2 to evict keys that are read once, of batches that are not much larger', () => {
    const evicts = (kvLen: number, change: Partial<BatchShape> = {}, qoLen = 1) =>
      planDecode([kvLen, kvLen], change, qoLen).list[0]![3];
    expect(evicts(500 * 32)).toBe(1);
    expect(evicts(501 * 32)).toBe(0);
    expect(evicts(32, {}, 4)).toBe(1);
    expect(evicts(32, {}, 5)).toBe(0);
  });
});

describe('splits', () => {
  it('are as short as one wave allows, and no shorter than minTiles', () => {
    const uniform = uniformSource(6);
    const { kvTile, minTiles, numKvHeads, slots } = shape;
    const maxItems = Math.floor(slots / numKvHeads);
    for (let round = 0; round < 300; ++round) {
      const kvLens = Array.from({ length: 1 + Math.floor(uniform() * maxItems) }, () =>
        Math.floor(uniform() ** 3 * 20_000),
      );
      const keyTiles = kvLens.map((length) => Math.ceil(length / kvTile));
      const itemsOf = (chunk: number) =>
        keyTiles.reduce((sum, tiles) => sum + Math.max(1, Math.ceil(tiles / chunk)), 0);
      const longest = Math.max(1, ...keyTiles);
      const share = (keyTiles.reduce((a, b) => a + b, 0) * numKvHeads) / slots;
      let expected = Math.min(longest, Math.max(minTiles, Math.ceil(share / 2)));
      if (longest <= share) expected = longest;
      else while (itemsOf(expected) > maxItems) ++expected;
      expect(planDecode(kvLens).cut.chunk).toBe(expected);
    }
  });
});

describe('mostItems', () => {
  it.each([
    ['decode', shape],
    ['decode in many waves', { ...shape, slots: 24 }],
    ['prefill', { ...shape, tileRows: 128, kvTile: 64, slots: 264, minTiles: 2, mergesInPlace: false }],
    ['wide groups', { ...shape, numKvHeads: 1 }],
    ['that never splits', { ...shape, neverSplits: true }],
  ] as const)('bounds every batch of %s', (_name, planned) => {
    const uniform = uniformSource(9);
    for (let round = 0; round < 400; ++round) {
      const [batchSize, numTokens] = [1 + Math.floor(uniform() * 40), 1 + Math.floor(uniform() ** 2 * 3000)];
      const most = mostItems(planned, batchSize, numTokens, false);
      const requests = 1 + Math.floor(uniform() * Math.min(batchSize, numTokens));
      // What the requests leave of all tokens goes to one of them, or is not there.
      const qoLen = Int32Array.from({ length: requests }, () => Math.floor((uniform() * numTokens) / requests));
      const left = numTokens - qoLen.reduce((a, b) => a + b, 0);
      if (uniform() < 0.5) qoLen[0]! += left;
      const kvLen = Int32Array.from(qoLen, (length) => length + Math.floor(uniform() ** 4 * 50_000));
      const none = new Int32Array(requests);
      const batch = { batchSize: requests, qoBegin: none, qoLen, kvStart: none, kvLen };
      expect(cutBatch(batch, planned).numItems).toBeLessThanOrEqual(most);
    }
  });

  it('has no more than a wave where all requests fit into one, but with splits of a given size', () => {
    expect(mostItems(shape, 16, 16, false)).toBe(16);
    expect(mostItems(shape, 16, 16, true)).toBe(16 + 2 * 17);
    expect(mostItems(shape, 17, 17, false)).toBe(17 + 2 * 17);
    expect(mostItems({ ...shape, slots: 528 }, 64, 64, false)).toBe(66);
  });
});

describe('itemGrid', () => {
  it('has a block for each item, in y and z', () => {
    expect(itemGrid(1)).toEqual([1, 1]);
    expect(itemGrid(65_535)).toEqual([65_535, 1]);
    expect(itemGrid(65_536)).toEqual([32_768, 2]);
  });
});
