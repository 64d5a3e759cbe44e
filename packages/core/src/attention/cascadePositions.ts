// SPDX-License-Identifier: Apache-2.0
// Where a row is among the keys of each level. A level's kernel counts positions by its own request, as if the keys of
// the other levels were not there; for windows and position encodings the difference has to be made good.
import { MaskBits } from './blockMask.ts';

/** One level's requests; all levels have the same query rows. */
export interface LevelRequests {
  readonly batchSize: number;
  readonly qoBegin: Int32Array;
  readonly qoLen: Int32Array;
  readonly kvLen: Int32Array;
}

/** Of one level, an entry a query row. */
export interface LevelPositions {
  /** Keys of the levels before. */
  readonly offset: Int32Array;
  /** The row among those of its request. */
  readonly index: Int32Array;
  /** The row's position, from the level's first key, with the keys of all levels in their order. */
  readonly place: Int32Array;
  /** What the kernel takes for it: kvLen - qoLen + index. */
  readonly planned: Int32Array;
}

export function levelPositions(levels: readonly LevelRequests[], numTokens: number): LevelPositions[] {
  const total = new Int32Array(numTokens);
  const positions = levels.map((level): LevelPositions => {
    const offset = total.slice();
    const index = new Int32Array(numTokens);
    const planned = new Int32Array(numTokens);
    for (let r = 0; r < level.batchSize; ++r) {
      const [begin, qoLen, kvLen] = [level.qoBegin[r]!, level.qoLen[r]!, level.kvLen[r]!];
      for (let i = 0; i < qoLen; ++i) {
        index[begin + i] = i;
        planned[begin + i] = kvLen - qoLen + i;
        total[begin + i]! += kvLen;
      }
    }
    return { offset, index, place: new Int32Array(numTokens), planned };
  });
  const last = positions[positions.length - 1]!;
  for (let t = 0; t < numTokens; ++t) {
    const global = last.offset[t]! + last.planned[t]!;
    for (const { place, offset } of positions) place[t] = global - offset[t]!;
  }
  return positions;
}

/** The bits of a level before the last, whose keys are all in the past: those that the window leaves. */
export function windowBits(level: LevelRequests, { place }: LevelPositions, windowLeft: number): Uint8Array {
  const { batchSize, qoBegin, qoLen, kvLen } = level;
  const bits = new MaskBits(Array.from({ length: batchSize }, (_, r) => qoLen[r]! * kvLen[r]!));
  for (let r = 0; r < batchSize; ++r) {
    bits.align();
    for (let i = 0; i < qoLen[r]!; ++i) {
      const hidden = Math.max(0, Math.min(kvLen[r]!, place[qoBegin[r]! + i]! - windowLeft));
      bits.fill(false, hidden);
      bits.fill(true, kvLen[r]! - hidden);
    }
  }
  return bits.bytes;
}

/** Positions by which a level's rows are to be rotated before the kernel does, row by row. */
export function rotations({ place, planned }: LevelPositions): Int32Array {
  return place.map((position, t) => position - planned[t]!);
}

/** What the kernel's ALiBi leaves out: it takes (key of the level - row of the level's request) for the distance. */
export function alibiShifts({ offset, index }: LevelPositions, last: LevelPositions): Int32Array {
  return offset.map((keys, t) => keys + index[t]! - last.index[t]!);
}
