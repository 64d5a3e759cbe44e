// SPDX-License-Identifier: Apache-2.0
// Reading and checking the page table of a plan.
import { InvalidArgumentError } from '../errors.ts';
import { native } from '../native/load.ts';
import type { PageTable } from './batchOptions.ts';
import { hostIndices, hostIndptr, positiveInteger } from './hostArray.ts';

export interface ReadPageTable {
  readonly batchSize: number;
  readonly pageSize: number;
  readonly pages: Int32Array;
  readonly indptr: Int32Array;
  /** Keys of each request. */
  readonly kvLen: Int32Array;
  /** One more than the largest page id. */
  readonly numPages: number;
}

/** Kernels count tokens in 31 bits. */
const maxLength = 2 ** 31 - 1;

export function readPageTable(functionName: string, table: PageTable): ReadPageTable {
  const pageSize = positiveInteger(functionName, 'pageSize', table.pageSize);
  const indptr = hostIndptr(functionName, 'pagedKvIndptr', table.pagedKvIndptr);
  const batchSize = indptr.length - 1;
  const indices = hostIndices(functionName, 'pagedKvIndices', table.pagedKvIndices);
  const lastPageLen = hostIndices(functionName, 'pagedKvLastPageLen', table.pagedKvLastPageLen);
  const used = indptr[batchSize]!;
  if (indices.length < used) {
    throw invalid(
      functionName,
      `pagedKvIndices has ${indices.length} entries`,
      `at least pagedKvIndptr's last, ${used}`,
    );
  }
  if (lastPageLen.length !== batchSize) {
    throw invalid(functionName, `pagedKvLastPageLen has ${lastPageLen.length} entries`, `batchSize=${batchSize}`);
  }
  const kvLen = new Int32Array(batchSize);
  for (let r = 0; r < batchSize; ++r) {
    const numPages = indptr[r + 1]! - indptr[r]!;
    if (numPages === 0) continue;
    const last = lastPageLen[r]!;
    if (last < 1 || last > pageSize) {
      throw invalid(functionName, `pagedKvLastPageLen holds ${last} at ${r}`, `1 to pageSize=${pageSize} (a count)`);
    }
    const length = (numPages - 1) * pageSize + last;
    if (length > maxLength) {
      throw invalid(functionName, `request ${r} has ${length} tokens in ${numPages} pages`, `at most ${maxLength}`);
    }
    kvLen[r] = length;
  }
  const pages = indices.length === used ? indices : indices.subarray(0, used);
  const numPages = countPages(functionName, pages);
  return { batchSize, pageSize, pages, indptr, kvLen, numPages };
}

/** One more than the largest id. */
function countPages(functionName: string, pages: Int32Array): number {
  if (pages.length === 0) return 0;
  const largest = native().cpu.maxUint32(pages);
  if (largest < 2 ** 31) return largest + 1;
  const wrong = pages.findIndex((page) => page < 0);
  throw invalid(functionName, `pagedKvIndices holds ${pages[wrong]} at ${wrong}`, 'page ids from 0 up');
}

function invalid(functionName: string, given: string, expected: string): InvalidArgumentError {
  return new InvalidArgumentError('ERR_FLASHINFER_INVALID_ARGUMENT', `${functionName}: ${given}; expected ${expected}`);
}
