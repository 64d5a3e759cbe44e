// SPDX-License-Identifier: Apache-2.0
import type { Checker } from '../check/checker.ts';
import type { CacheExtent } from './appendTable.ts';

/** The kernel counts tokens and pages in 31 bits, and heads by blocks along the grid's y, of which there may be 65535. */
const maxCount = 2 ** 31 - 1;
const maxHeads = 2 ** 14;

/** Reads `pageSize` and `numPages`, bound before, and checks what the kernel counts. */
export function checkCacheExtent(check: Checker, tokens: number, heads: number): CacheExtent {
  const pageSize = check.dim('pageSize');
  const numPages = check.dim('numPages');
  if (pageSize === 0) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      'the cache has pageSize=0; expected at least 1; check the order of its dimensions',
    );
  }
  if (tokens > maxCount || numPages > maxCount || pageSize > maxCount || heads > maxHeads) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `the call has nnz=${tokens}, ${heads} heads, numPages=${numPages} and pageSize=${pageSize}; expected at most ` +
        `${maxHeads} heads and ${maxCount} of the others; call it on slices`,
    );
  }
  return { pageSize, numPages };
}
