// SPDX-License-Identifier: Apache-2.0
import { type HostIndices, hostIndices, hostIndptr, positiveInteger } from '../attention/hostArray.ts';
import { Checker } from '../check/checker.ts';
import { getKernel } from '../jit/kernel.ts';
import { logCall } from '../logging.ts';
import { native } from '../native/load.ts';
import { usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { currentStream } from '../runtime/stream.ts';
import { empty } from '../tensor/create.ts';
import type { DType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { seqLensSpec } from './pageKernel.ts';

const name = 'getSeqLens';
const int32 = { dtypes: ['int32'] as readonly DType[], contiguous: true };

/**
 * Tokens of each request of a page table: `max(numPages - 1, 0) * pageSize + lastPageLen`.
 * @param kvIndptr first page of each request, `[batchSize + 1]`: an Int32Array or number[], or an int32 tensor
 * @param kvLastPageLen tokens in the last page of each request, `[batchSize]`, of the kind of kvIndptr; 0 for a request
 *   without pages
 * @param pageSize tokens a page
 * @returns `[batchSize]`: an Int32Array, or an int32 tensor where tensors were given
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device or pageSize; of host arrays also on an indptr that falls and
 *   on page lengths out of range
 * @remarks With tensors asynchronous on the current stream, and fit for graph captures; their values are not checked.
 * @see FlashInfer `get_seq_lens`
 * @example
 * ```ts
 * import { getSeqLens } from '@flashinfer/core';
 *
 * console.log(getSeqLens([0, 2, 3, 3], [4, 16, 0], 16)); // 20, 16, 0
 * ```
 */
export function getSeqLens(kvIndptr: HostIndices, kvLastPageLen: HostIndices, pageSize: number): Int32Array;
export function getSeqLens(kvIndptr: Tensor, kvLastPageLen: Tensor, pageSize: number): Tensor<'int32'>;
export function getSeqLens(
  kvIndptr: HostIndices | Tensor,
  kvLastPageLen: HostIndices | Tensor,
  pageSize: number,
): Int32Array | Tensor<'int32'> {
  const check = new Checker(name);
  positiveInteger(name, 'pageSize', pageSize);
  if (kvIndptr instanceof Tensor) return onDevice(check, kvIndptr, kvLastPageLen as Tensor, pageSize);
  const indptr = hostIndptr(name, 'kvIndptr', kvIndptr);
  const last = hostIndices(name, 'kvLastPageLen', kvLastPageLen as HostIndices);
  check.bind('batchSize', indptr.length - 1, 'kvIndptr').bind('batchSize', last.length, 'kvLastPageLen');
  logCall(name, { kvIndptr, kvLastPageLen, pageSize });
  return last.map((length, r) => tokensOf(check, r, indptr[r + 1]! - indptr[r]!, length, pageSize));
}

function tokensOf(check: Checker, r: number, numPages: number, last: number, pageSize: number): number {
  const least = numPages > 0 ? 1 : 0;
  if (last < least || last > pageSize) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `kvLastPageLen holds ${last} at ${r}; expected ${least} to pageSize=${pageSize}, for ${numPages} pages; it counts ` +
        'the tokens of the last page',
    );
  }
  const tokens = Math.max(numPages - 1, 0) * pageSize + last;
  if (tokens < 2 ** 31) return tokens;
  throw check.error(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `kvIndptr gives request ${r} ${numPages} pages of ${pageSize}, ${tokens} tokens; expected at most 2^31 - 1; check ` +
      'pageSize',
  );
}

function onDevice(check: Checker, kvIndptr: Tensor, kvLastPageLen: Tensor, pageSize: number): Tensor<'int32'> {
  check.tensor('kvIndptr', kvIndptr, ['batchSize + 1'], int32);
  const batchSize = kvIndptr.size - 1;
  check.tensor('kvLastPageLen', kvLastPageLen, [batchSize], int32);
  logCall(name, { kvIndptr, kvLastPageLen, pageSize });
  const { device, deviceIndex } = kvIndptr;
  const seqLens = empty([batchSize], { dtype: 'int32', device });
  if (batchSize === 0) return seqLens;
  if (deviceIndex < 0) {
    native().cpu.seqLens(kvIndptr.ptr, kvLastPageLen.ptr, batchSize, pageSize, seqLens.ptr);
    return seqLens;
  }
  const args = {
    kv_indptr: kvIndptr.ptr,
    kv_last_page_len: kvLastPageLen.ptr,
    seq_lens: seqLens.ptr,
    batch_size: batchSize,
    page_size: pageSize,
  };
  const grid = [Math.ceil(batchSize / seqLensSpec.threads), 1, 1] as const;
  getKernel(seqLensSpec, deviceIndex).launch(grid, args, {
    stream: currentStream(deviceIndex),
    pdl: usesDependentLaunch(deviceIndex, undefined),
  });
  return seqLens;
}
