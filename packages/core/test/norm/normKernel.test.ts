// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { checkSpec } from '../../src/jit/spec.ts';
import {
  chooseNormTile,
  maxRowLength,
  type NormWork,
  normAhead,
  normBlocks,
  normSpec,
  normSpecs,
  splitsIntoHeads,
} from '../../src/norm/normKernel.ts';

const rms: NormWork = { kind: 'rms', add: false, dtype: 'bfloat16', outDtype: 'bfloat16' };
const layer: NormWork = { ...rms, kind: 'layer' };

describe('chooseNormTile', () => {
  it.each([
    // length, vec, rows → vecs a thread, threads a row, rows a block
    [64, 8, 100_000, [1, 8, 16]],
    [128, 8, 100_000, [1, 16, 8]],
    [128, 8, 32, [1, 16, 2]],
    [96, 8, 100_000, [1, 16, 8]],
    [512, 8, 100_000, [2, 32, 4]],
    [1024, 8, 100_000, [4, 32, 4]],
    [111, 1, 4096, [4, 32, 4]],
    [1, 1, 1, [1, 1, 32]],
    [4096, 8, 8192, [4, 128, 1]],
    [8192, 8, 8192, [4, 256, 1]],
    [3584, 8, 8192, [4, 128, 1]],
    [4096, 8, 1, [1, 512, 1]],
    [8192, 8, 64, [1, 1024, 1]],
    [16384, 8, 1, [2, 1024, 1]],
    [32768, 8, 8192, [4, 1024, 1]],
    [32768, 4, 8192, [8, 1024, 1]],
    [32767, 1, 1, [32, 1024, 1]],
  ])('length %i in vectors of %i, %i rows', (length, vec, numRows, [vecs, lanes, rows]) => {
    expect(chooseNormTile(length, vec, numRows, 132, layer)).toEqual({
      vec,
      vecs,
      lanes,
      rows,
      full: vec * vecs! * lanes! === length,
    });
  });

  it('covers every length with whole warps and at most 32 elements a thread', () => {
    for (let length = 1; length <= maxRowLength; length += length < 2000 ? 1 : 61) {
      for (const vec of [1, 2, 4, 8].filter((width) => length % width === 0)) {
        for (const numRows of [1, 132, 1_000_000]) {
          const { vecs, lanes, rows } = chooseNormTile(length, vec, numRows, 132, rms);
          const threads = lanes * rows;
          expect(vec * vecs * lanes, `${length}/${vec}`).toBeGreaterThanOrEqual(length);
          expect(vec * vecs).toBeLessThanOrEqual(32);
          expect(threads % 32 === 0 && threads <= 1024 && (lanes <= 32 || rows === 1)).toBe(true);
        }
      }
    }
  });
});

it('takes two accesses for four where the kernel is light, and of wide rows with the residual', () => {
  const tile = (work: Partial<NormWork>, length: number, vec = 8): readonly [number, number] => {
    const { vecs, lanes } = chooseNormTile(length, vec, 8192, 132, { ...rms, ...work });
    return [vecs, lanes];
  };
  expect(tile({}, 8192)).toEqual([2, 512]);
  expect(tile({}, 2048)).toEqual([2, 128]);
  expect(tile({}, 4092, 4)).toEqual([4, 256]);
  expect(tile({ dtype: 'float32', outDtype: 'float32' }, 4096, 4)).toEqual([4, 256]);
  expect(tile({ dtype: 'float32', outDtype: 'float32', add: true }, 4096, 4)).toEqual([2, 512]);
  expect(tile({ outDtype: 'float8_e4m3fn' }, 4096)).toEqual([4, 128]);
  expect(tile({ outDtype: 'float8_e4m3fn', add: true }, 4096)).toEqual([2, 256]);
  expect(tile({ kind: 'layer' }, 8192)).toEqual([4, 256]);
});

it('splits rows into heads unless one access, or most threads, of rows at one distance is all that a block has', () => {
  const splits = (length: number, rows: number, work: NormWork, oneDistance = true): boolean =>
    splitsIntoHeads(chooseNormTile(length, 8, rows, 132, work), oneDistance, work.add);
  const add = { ...rms, add: true };
  expect([splits(8192, 8192, rms), splits(16384, 8192, rms), splits(8192, 1, rms)]).toEqual([true, false, false]);
  expect([splits(4096, 8192, add), splits(8192, 8192, add)]).toEqual([true, false]);
  expect([splits(8192, 8192, layer), splits(128, 1, rms)]).toEqual([true, true]);
  expect([splits(8192, 1, rms, false), splits(8192, 8192, add, false)]).toEqual([true, true]);
});

it('gives each long row a block, and lets blocks of short rows stay', () => {
  expect(normBlocks(chooseNormTile(8192, 8, 8192, 132, rms), 8192, () => 396)).toBe(8192);
  expect(normBlocks(chooseNormTile(128, 8, 100_000, 132, rms), 100_000, () => 1584)).toBe(1584);
  expect(normBlocks(chooseNormTile(128, 8, 32, 132, rms), 32, () => 1584)).toBe(16);
});

describe('normAhead', () => {
  const tile = chooseNormTile(8192, 8, 8192, 132, rms);
  const never = (): number => {
    throw new Error('asked for the occupancy');
  };

  it.each([
    // rows, of a token, resident → distance in tokens, first, rows
    [8192, 1, 528, [198, 330, 7664]],
    [529, 1, 528, [198, 330, 1]],
    [528, 1, 528, [198, 330, 0]],
    [199, 1, 132, [198, 0, 1]],
    [198, 1, 132, [198, 0, 0]],
    [133, 1, 528, [198, 330, 0]],
    [3000, 3, 528, [66, 330, 2472]],
    [3000, 500, 528, [1, 28, 2472]],
  ])('of %i rows, %i a token, %i at once', (rows, rowsPerToken, resident, [distance, first, count]) => {
    const ahead = normAhead(tile, 16384, rows!, rowsPerToken!, 132, () => resident!);
    expect(ahead).toEqual({ distance, first, rows: count });
  });

  it('asks for nothing where rows are short or few, without a look at the occupancy', () => {
    const nothing = { distance: 0, first: 0, rows: 0 };
    expect(normAhead(chooseNormTile(4096, 8, 1, 132, rms), 8192, 1, 1, 132, never)).toEqual(nothing);
    expect(normAhead(chooseNormTile(128, 8, 100_000, 132, rms), 256, 100_000, 1, 132, never)).toEqual(nothing);
  });

  it('asks for no row past the last one', () => {
    for (const rowBytes of [4096, 8192, 65536]) {
      for (const rowsPerToken of [1, 7]) {
        for (let rows = 7; rows < 5000; rows += 7) {
          const ahead = normAhead(tile, rowBytes, rows, rowsPerToken, 132, () => 528);
          const last = ahead.first + ahead.rows + ahead.distance * rowsPerToken;
          expect(ahead.rows === 0 || last === rows, `${rowBytes} ${rowsPerToken} ${rows}`).toBe(true);
        }
      }
    }
  });
});

describe('normSpec', () => {
  it('is one valid object an instantiation', () => {
    const specs = normSpecs();
    for (const spec of specs) checkSpec(spec);
    expect(new Set(specs.map(({ name }) => name)).size).toBe(specs.length);
    const options = {
      kind: 'rms',
      add: true,
      dtype: 'bfloat16',
      weightDtype: 'bfloat16',
      outDtype: 'bfloat16',
      heads: false,
    } as const;
    const tile = chooseNormTile(8192, 8, 8192, 132, layer);
    expect(normSpec(options, tile)).toBe(normSpec({ ...options }, { ...tile }));
    expect(normSpec(options, tile).name).toBe('fused_add_rmsnorm_bf16_v8x4_256x1_full');
    expect(normSpec({ ...options, add: false, outDtype: 'float8_e5m2' }, tile).name).toBe(
      'rmsnorm_bf16_to_e5m2_v8x4_256x1_full',
    );
    expect(normSpec({ ...options, heads: true }, tile).name).toBe('fused_add_rmsnorm_bf16_v8x4_256x1_full_heads');
  });
});
