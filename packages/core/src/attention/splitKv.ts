// SPDX-License-Identifier: Apache-2.0
// Cutting the keys of one request into splits, so that few query rows still occupy the whole GPU.

export interface KvRange {
  /** First key any row can see, rounded down to the KV tile. */
  readonly kvBegin: number;
  readonly kvLen: number;
  readonly kvTile: number;
}

export interface KvSplit {
  readonly numSplits: number;
  readonly kvChunk: number;
}

/** First key that the window leaves visible to row 0, the earliest row. */
export function firstVisibleKey(qoLen: number, kvLen: number, windowLeft: number, kvTile: number): number {
  if (windowLeft < 0) return 0;
  const first = Math.max(0, kvLen - qoLen - windowLeft);
  return Math.min(first, Math.max(0, kvLen - 1)) - (Math.min(first, Math.max(0, kvLen - 1)) % kvTile);
}

/**
 * As many splits as fill `slots` resident blocks once, but none shorter than `minTiles` tiles. Depends on shapes and
 * the GPU alone: the same call always sums in the same order.
 */
export function splitKv({ kvBegin, kvLen, kvTile }: KvRange, blocks: number, slots: number, minTiles: number): KvSplit {
  const tiles = Math.ceil((kvLen - kvBegin) / kvTile);
  const wanted = Math.min(Math.floor(slots / blocks), Math.ceil(tiles / minTiles));
  if (wanted <= 1) return { numSplits: 1, kvChunk: Math.max(1, tiles) * kvTile };
  const chunkTiles = Math.ceil(tiles / wanted);
  return { numSplits: Math.ceil(tiles / chunkTiles), kvChunk: chunkTiles * kvTile };
}
