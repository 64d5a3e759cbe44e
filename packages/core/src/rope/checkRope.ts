// SPDX-License-Identifier: Apache-2.0
// The checks that all rotary embeddings share.
import type { Checker } from '../check/checker.ts';
import { empty } from '../tensor/create.ts';
import type { DType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { RopeHeads, RopePositions } from './runRope.ts';

export const ropeDtypes: readonly DType[] = ['float16', 'bfloat16', 'float32'];
const indexDtypes: readonly DType[] = ['int32', 'int64'];
const qDims: readonly string[] = ['nnz', 'numQoHeads', 'headDim'];
const kDims: readonly string[] = ['nnz', 'numKvHeads', 'headDim'];

/** The kernel counts tokens in 31 bits, and heads by blocks along the grid's y, of which there may be 65535. */
const maxTokens = 2 ** 31 - 1;
const maxHeads = 2 ** 14;

export function checkQk(check: Checker, q: Tensor, k: Tensor): void {
  check.tensor('q', q, qDims, { dtypes: ropeDtypes, lastDimContiguous: true });
  check.tensor('k', k, kDims, { dtypes: [q.dtype], lastDimContiguous: true });
  checkCounts(check, q.shape[0]!, q.shape[1]! + k.shape[1]!);
}

export function checkCounts(check: Checker, tokens: number, heads: number): void {
  if (tokens <= maxTokens && heads <= maxHeads) return;
  throw check.error(
    'ERR_FLASHINFER_INVALID_SHAPE',
    `q and k have nnz=${tokens} and ${heads} heads together; expected at most ${maxTokens} and ${maxHeads}; ` +
      'call it on slices',
  );
}

/** One position a token. */
export function checkPosIds(check: Checker, name: string, posIds: Tensor): RopePositions {
  check.tensor(name, posIds, ['nnz'], { dtypes: indexDtypes, lastDimContiguous: true });
  return { indptr: undefined, values: posIds };
}

/** Requests one after the other. */
export function checkRequests(check: Checker, indptr: Tensor, offsets: Tensor): RopePositions {
  check.tensor('indptr', indptr, ['batchSize + 1'], { dtypes: indexDtypes, lastDimContiguous: true });
  check.tensor('offsets', offsets, ['batchSize'], { dtypes: [indptr.dtype], lastDimContiguous: true });
  if (indptr.size === offsets.size + 1 && offsets.size > 0) return { indptr, values: offsets };
  throw check.error(
    'ERR_FLASHINFER_INVALID_SHAPE',
    `indptr has ${indptr.size} elements and offsets ${offsets.size}; expected batchSize + 1 and batchSize, at least one ` +
      'request; indptr starts with 0 and ends with nnz',
  );
}

/** x and where its rotation goes: x itself, or a new tensor. */
export function rotationOf(x: Tensor, heads: number, inPlace: boolean): RopeHeads {
  return { x, heads, out: inPlace ? x : empty(x.shape, { dtype: x.dtype, device: x.device }) };
}
