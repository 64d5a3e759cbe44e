// SPDX-License-Identifier: Apache-2.0
// Which tokens an append writes where: the part of its options that says so, and its checks.
import { hostIndptr } from '../attention/hostArray.ts';
import type { Checker } from '../check/checker.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { knownValues, type PageIndices, readIndices } from './indexArrays.ts';

/**
 * Index arrays of an append, each an Int32Array or number[], or an int32 tensor on the device of the cache. Host arrays,
 * and tensors on the cpu, are checked; inside a graph capture only tensors are possible.
 */
export interface AppendIndices {
  /** Request of each new token, `[nnz]`; tokens of -1 are skipped. */
  batchIndices: PageIndices;
  /** Position of each new token in its request, `[nnz]`, from 0. */
  positions: PageIndices;
  /** Page ids of all requests, one after the other. */
  kvIndices: PageIndices;
  /** First entry of kvIndices of each request, `[batchSize + 1]`. */
  kvIndptr: PageIndices;
  /** Tokens in each request's last page, `[batchSize]`. Not needed: positions say where tokens go. */
  kvLastPageLen?: PageIndices;
}

export const appendIndexNames: readonly (keyof AppendIndices)[] = [
  'batchIndices',
  'positions',
  'kvIndices',
  'kvIndptr',
  'kvLastPageLen',
];

export interface AppendTable {
  readonly batchIndices: Int32Array | Tensor;
  readonly positions: Int32Array | Tensor;
  readonly kvIndices: Int32Array | Tensor;
  readonly kvIndptr: Int32Array | Tensor;
}

export interface CacheExtent {
  readonly pageSize: number;
  readonly numPages: number;
}

/** `nnz` is bound before. */
export function readAppendTable(check: Checker, options: AppendIndices, cache: CacheExtent): AppendTable {
  const batchIndices = readIndices(check, 'batchIndices', options.batchIndices, 'nnz');
  const positions = readIndices(check, 'positions', options.positions, 'nnz');
  const kvIndices = readIndices(check, 'kvIndices', options.kvIndices, 'numIndices');
  const kvIndptr = readIndices(check, 'kvIndptr', options.kvIndptr, 'batchSize + 1');
  const batchSize = check.dim('batchSize + 1') - 1;
  if (batchSize < 0) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      'kvIndptr is empty; expected batchSize + 1 entries, 0 first; pass the first entry of each request',
    );
  }
  if (options.kvLastPageLen !== undefined) {
    check.bind('batchSize', batchSize, 'kvIndptr');
    readIndices(check, 'kvLastPageLen', options.kvLastPageLen, 'batchSize');
  }
  const table = { batchIndices, positions, kvIndices, kvIndptr };
  checkValues(check, table, batchSize, cache);
  return table;
}

/** Everything that the host can see; kernels skip what is wrong in the rest. */
function checkValues(check: Checker, table: AppendTable, batchSize: number, cache: CacheExtent): void {
  const requests = knownValues(table.batchIndices);
  const positions = knownValues(table.positions);
  const indptr = knownValues(table.kvIndptr);
  if (indptr !== undefined) hostIndptr(check.functionName, 'kvIndptr', indptr);
  if (requests !== undefined) {
    for (let i = 0; i < requests.length; ++i) {
      if (requests[i]! < -1 || requests[i]! >= batchSize) {
        throw wrongValue(check, 'batchIndices', requests[i]!, i, `-1 to ${batchSize - 1} for batchSize=${batchSize}`);
      }
    }
  }
  if (requests === undefined || positions === undefined) return;
  const pages = knownValues(table.kvIndices);
  for (let i = 0; i < positions.length; ++i) {
    const request = requests[i]!;
    if (request < 0) continue;
    if (positions[i]! < 0) throw wrongValue(check, 'positions', positions[i]!, i, 'positions from 0 up');
    if (indptr === undefined) continue;
    const page = indptr[request]! + Math.floor(positions[i]! / cache.pageSize);
    if (page >= indptr[request + 1]!) {
      const held = (indptr[request + 1]! - indptr[request]!) * cache.pageSize;
      const expected = `less than the ${held} tokens of the pages of request ${request}`;
      throw wrongValue(check, 'positions', positions[i]!, i, expected, 'add pages to kvIndices before appending');
    }
    if (pages !== undefined) checkPage(check, pages, page, cache.numPages);
  }
}

function checkPage(check: Checker, pages: Int32Array, index: number, numPages: number): void {
  if (index >= pages.length) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `kvIndices has ${pages.length} entries; expected entry ${index} too, which kvIndptr names; pass all page ids`,
    );
  }
  const page = pages[index]!;
  if (page < 0 || page >= numPages) {
    throw wrongValue(check, 'kvIndices', page, index, `0 to ${numPages - 1}, the pages of the cache`);
  }
}

function wrongValue(
  check: Checker,
  name: string,
  value: number,
  at: number,
  expected: string,
  fix = 'check how it is made',
): Error {
  return check.error(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${name} holds ${value} at ${at}; expected ${expected}; ${fix}`,
  );
}
