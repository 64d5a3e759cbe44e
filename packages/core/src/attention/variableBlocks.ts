// SPDX-License-Identifier: Apache-2.0
// Reading blocks of different sizes, and listing the keys that each row of blocks of each head sees.
import { describeValue } from '../check/describeValue.ts';
import { commonForm, isHidden, type KeyRun, MaskBits, type MaskedRows } from './blockMask.ts';
import { checkBooleans, hostIndices } from './hostArray.ts';
import type { VariableBlockSparsePlanOptions } from './sparseOptions.ts';
import { invalidSparse } from './sparsePlan.ts';

/** Of each head `rowsPerHead` rows of blocks and `columnsPerHead` columns; `rows` queries and `columns` keys. */
export interface VariableBlocks {
  readonly numHeads: number;
  readonly rowsPerHead: number;
  readonly columnsPerHead: number;
  readonly rowSizes: Int32Array;
  readonly columnSizes: Int32Array;
  readonly map: Uint8Array | readonly boolean[];
  readonly rows: number;
  readonly columns: number;
}

export function readBlocks(caller: string, options: VariableBlockSparsePlanOptions, numHeads: number): VariableBlocks {
  const rowSizes = hostIndices(caller, 'blockRowSz', options.blockRowSz);
  const columnSizes = hostIndices(caller, 'blockColSz', options.blockColSz);
  const rows = sizeOfHeads(caller, 'blockRowSz', rowSizes, numHeads);
  const columns = sizeOfHeads(caller, 'blockColSz', columnSizes, numHeads);
  const [rowsPerHead, columnsPerHead] = [rowSizes.length / numHeads, columnSizes.length / numHeads];
  const { blockMaskMap: map } = options;
  const isArray = map instanceof Uint8Array || Array.isArray(map);
  const expected = numHeads * rowsPerHead * columnsPerHead;
  if (!isArray || map.length !== expected) {
    const given = isArray ? `has ${map.length} entries` : `is ${describeValue(map)}`;
    throw invalidSparse(
      caller,
      `blockMaskMap ${given}; expected a Uint8Array or boolean[] on the host, of numKvHeads * rows * columns of blocks = ` +
        `${numHeads} * ${rowsPerHead} * ${columnsPerHead} = ${expected} entries; keep masks in host arrays`,
    );
  }
  checkBooleans(caller, 'blockMaskMap', map);
  return { numHeads, rowsPerHead, columnsPerHead, rowSizes, columnSizes, map, rows, columns };
}

/** What the sizes of each head add up to. */
function sizeOfHeads(caller: string, name: string, sizes: Int32Array, numHeads: number): number {
  const each = sizes.length / numHeads;
  if (!Number.isInteger(each) || each === 0) {
    throw invalidSparse(
      caller,
      `${name} has ${sizes.length} entries; expected the same number for each of numKvHeads=${numHeads}; flatten it`,
    );
  }
  let total = 0;
  for (let head = 0; head < numHeads; ++head) {
    let sum = 0;
    for (let i = head * each; i < (head + 1) * each; ++i) {
      if (sizes[i]! < 0) throw invalidSparse(caller, `${name} holds ${sizes[i]} at ${i}; expected sizes of 0 or more`);
      sum += sizes[i]!;
    }
    if (head > 0 && sum !== total) {
      throw invalidSparse(
        caller,
        `${name} adds up to ${sum} for head ${head}; expected ${total} as for head 0; every head covers all of q or k`,
      );
    }
    total = sum;
  }
  return total;
}

/** A page list as of a batch, a request for each row of blocks of each head. */
interface ListedKeys {
  readonly pageSize: number;
  readonly pages: Int32Array;
  readonly indptr: Int32Array;
  readonly kvLen: Int32Array;
  readonly form: 'none' | 'causal' | 'bits';
  readonly bits: Uint8Array | undefined;
}

export function listKeys(blocks: VariableBlocks, causal: boolean, posEncodingMode: string): ListedKeys {
  const { numHeads, rowsPerHead, rowSizes, columns, rows } = blocks;
  const pageSize = blocks.columnSizes.reduce(greatestCommonDivisor, 0) || 1;
  const batchSize = numHeads * rowsPerHead;
  const requests: MaskedRows[] = [];
  const runs: KeyRun[][] = [];
  const indptr = new Int32Array(batchSize + 1);
  const kvLen = new Int32Array(batchSize);
  for (let r = 0, rowBegin = 0; r < batchSize; ++r) {
    if (r % rowsPerHead === 0) rowBegin = 0;
    const of = { rowBegin, rowEnd: rowBegin + rowSizes[r]!, rows, columns };
    rowBegin = of.rowEnd;
    const seen = visibleRuns(blocks, r).filter((run) => !causal || posEncodingMode !== 'NONE' || !isHidden(of, run));
    requests.push(of);
    runs.push(seen);
    for (const { begin, end } of seen) kvLen[r]! += end - begin;
    indptr[r + 1] = indptr[r]! + kvLen[r]! / pageSize;
  }
  const pages = new Int32Array(indptr[batchSize]!);
  let at = 0;
  for (const [r, seen] of runs.entries()) {
    const first = Math.floor(r / rowsPerHead) * columns;
    for (const { begin, end } of seen) {
      for (let page = (first + begin) / pageSize; page < (first + end) / pageSize; ++page) pages[at++] = page;
    }
  }
  const form = causal ? commonForm(requests, (r) => runs[r]!) : 'none';
  let bits: MaskBits | undefined;
  if (form === 'bits') {
    bits = new MaskBits(kvLen.map((keys, r) => keys * rowSizes[r]!));
    for (const [r, of] of requests.entries()) bits.appendCausal(of, runs[r]!);
  }
  return { pageSize, pages, indptr, kvLen, form, bits: bits?.bytes };
}

/** Of row of blocks `row`, counted through all heads. */
function visibleRuns({ rowsPerHead, columnsPerHead, columnSizes, map }: VariableBlocks, row: number): KeyRun[] {
  const firstColumn = Math.floor(row / rowsPerHead) * columnsPerHead;
  const runs: KeyRun[] = [];
  let begin = 0;
  for (let column = 0; column < columnsPerHead; ++column) {
    const end = begin + columnSizes[firstColumn + column]!;
    if (end > begin && map[row * columnsPerHead + column]) runs.push({ begin, end });
    begin = end;
  }
  return runs;
}

function greatestCommonDivisor(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y !== 0) [x, y] = [y, x % y];
  return x;
}
