// SPDX-License-Identifier: Apache-2.0
// Reading and checking a block sparse row matrix, and the masks within its blocks.
import { describeValue } from '../check/describeValue.ts';
import { MaskBits } from './blockMask.ts';
import { checkBooleans, hostIndices, hostIndptr, positiveInteger } from './hostArray.ts';
import type { BlockSparsePlanOptions } from './sparseOptions.ts';
import { invalidSparse } from './sparsePlan.ts';

/** Row i of blocks has the blocks `indices[indptr[i] .. indptr[i + 1]]`, each R rows by C columns. */
export interface Bsr {
  readonly indptr: Int32Array;
  readonly indices: Int32Array;
  readonly M: number;
  readonly N: number;
  readonly R: number;
  readonly C: number;
}

export function readBsr(caller: string, options: BlockSparsePlanOptions): Bsr {
  const [M, N, R, C] = (['M', 'N', 'R', 'C'] as const).map((name) => positiveInteger(caller, name, options[name])) as [
    number,
    number,
    number,
    number,
  ];
  if (M % R !== 0) throw invalidSparse(caller, `M=${M} is not a multiple of R=${R}; expected whole blocks; pad q`);
  if (N % C !== 0)
    throw invalidSparse(caller, `N=${N} is not a multiple of C=${C}; expected whole blocks; pad k and v`);
  const indptr = hostIndptr(caller, 'indptr', options.indptr, M / R);
  const all = hostIndices(caller, 'indices', options.indices);
  const used = indptr[M / R]!;
  if (all.length < used) {
    throw invalidSparse(
      caller,
      `indices has ${all.length} entries; expected at least indptr's last, ${used}; pass one for each block`,
    );
  }
  const indices = all.subarray(0, used);
  checkColumns(caller, indptr, indices, N / C);
  return { indptr, indices, M, N, R, C };
}

function checkColumns(caller: string, indptr: Int32Array, indices: Int32Array, numColumns: number): void {
  const lastRow = new Int32Array(numColumns).fill(-1);
  for (let r = 0; r + 1 < indptr.length; ++r) {
    for (let i = indptr[r]!; i < indptr[r + 1]!; ++i) {
      const column = indices[i]!;
      if (column < 0 || column >= numColumns) {
        throw invalidSparse(
          caller,
          `indices holds ${column} at ${i}; expected columns of blocks from 0 to N / C - 1 = ${numColumns - 1}; they ` +
            'count blocks, not keys',
        );
      }
      if (lastRow[column] === r) {
        throw invalidSparse(
          caller,
          `indices holds ${column} twice in row ${r} of blocks; expected each block once; leave one out`,
        );
      }
      lastRow[column] = r;
    }
  }
}

/** The bits of the blocks' masks, for each row of blocks `[R, blocks * C]`. */
export function blockMaskBits(caller: string, bsr: Bsr, options: BlockSparsePlanOptions): Uint8Array {
  const { mask, packedMask } = options;
  const { indptr, R, C } = bsr;
  const numBlocks = bsr.indices.length;
  const counts = Array.from({ length: indptr.length - 1 }, (_, r) => indptr[r + 1]! - indptr[r]!);
  if (packedMask !== undefined) {
    if (mask !== undefined) {
      throw invalidSparse(caller, 'mask and packedMask are given; expected one of them; leave one out');
    }
    const numBytes = counts.reduce((sum, count) => sum + Math.ceil((R * count * C) / 8), 0);
    if (packedMask instanceof Uint8Array && packedMask.length === numBytes) return packedMask;
    const given =
      packedMask instanceof Uint8Array ? `has ${packedMask.length} bytes` : `is ${describeValue(packedMask)}`;
    throw invalidSparse(
      caller,
      `packedMask ${given}; expected a Uint8Array of ${numBytes} bytes, for each row of blocks its bits in whole ` +
        'bytes; pack with segmentPackbits',
    );
  }
  const isArray = mask instanceof Uint8Array || Array.isArray(mask);
  if (!isArray || mask.length !== numBlocks * R * C) {
    const given = isArray ? `has ${mask.length} entries` : `is ${describeValue(mask)}`;
    throw invalidSparse(
      caller,
      `mask ${given}; expected a Uint8Array or boolean[] on the host, of blocks * R * C = ${numBlocks * R * C} entries; ` +
        'keep masks in host arrays',
    );
  }
  checkBooleans(caller, 'mask', mask);
  const bits = new MaskBits(counts.map((count) => R * count * C));
  for (const [r, count] of counts.entries()) {
    bits.align();
    for (let row = 0; row < R; ++row) {
      for (let block = indptr[r]!; block < indptr[r]! + count; ++block) {
        const first = (block * R + row) * C;
        for (let column = 0; column < C; ++column) bits.fill(Boolean(mask[first + column]), 1);
      }
    }
  }
  return bits.bytes;
}
