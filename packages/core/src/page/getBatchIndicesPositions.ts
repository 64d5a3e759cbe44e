// SPDX-License-Identifier: Apache-2.0
import { type HostIndices, hostIndices, hostIndptr } from '../attention/hostArray.ts';
import { Checker } from '../check/checker.ts';
import { checkSeparate } from '../check/overlap.ts';
import { getKernel } from '../jit/kernel.ts';
import { logCall } from '../logging.ts';
import { native } from '../native/load.ts';
import { usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { currentStream } from '../runtime/stream.ts';
import { empty } from '../tensor/create.ts';
import type { DType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { batchIndicesPositionsSpec } from './pageKernel.ts';

/** Options of `getBatchIndicesPositions` with tensors. */
export interface BatchIndicesPositionsOptions {
  /** Where to write the requests, int32 `[nnz]`, for one address from call to call. Default: a new tensor. */
  batchIndices?: Tensor;
  /** Where to write the positions, int32 `[nnz]`. Default: a new tensor. */
  positions?: Tensor;
}

const name = 'getBatchIndicesPositions';
const optionNames: readonly (keyof BatchIndicesPositionsOptions)[] = ['batchIndices', 'positions'];
const int32 = { dtypes: ['int32'] as readonly DType[], contiguous: true };

/**
 * Request and position of each new token of a batch, as `appendPagedKVCache` takes them: the tokens of request r are its
 * last ones, so that token j has position `seqLens[r] - (appendIndptr[r + 1] - j)`.
 * @param appendIndptr first new token of each request, `[batchSize + 1]`: an Int32Array or number[], or an int32 tensor
 * @param seqLens tokens of each request with the new ones, `[batchSize]`, of the kind of appendIndptr
 * @param nnz length of the results; at least `appendIndptr[batchSize]`, more for a fixed length in CUDA graphs
 * @param options see {@link BatchIndicesPositionsOptions}; tensors only
 * @returns `[batchIndices, positions]`, `[nnz]`: Int32Arrays, or int32 tensors where tensors were given. Behind the new
 *   tokens they hold -1, which appends skip, and 0.
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device or option; of host arrays also on an indptr that falls
 *   and on requests with fewer tokens than new ones
 * @remarks With tensors asynchronous on the current stream, and fit for graph captures; their values are not checked.
 * @see FlashInfer `get_batch_indices_positions`
 * @example
 * ```ts
 * import { getBatchIndicesPositions } from '@flashinfer/core';
 *
 * const [batchIndices, positions] = getBatchIndicesPositions([0, 1, 4], [5, 9], 6);
 * console.log(batchIndices); // 0, 1, 1, 1, -1, -1
 * console.log(positions); // 4, 6, 7, 8, 0, 0
 * ```
 */
export function getBatchIndicesPositions(
  appendIndptr: HostIndices,
  seqLens: HostIndices,
  nnz: number,
): [batchIndices: Int32Array, positions: Int32Array];
export function getBatchIndicesPositions(
  appendIndptr: Tensor,
  seqLens: Tensor,
  nnz: number,
  options?: BatchIndicesPositionsOptions,
): [batchIndices: Tensor<'int32'>, positions: Tensor<'int32'>];
export function getBatchIndicesPositions(
  appendIndptr: HostIndices | Tensor,
  seqLens: HostIndices | Tensor,
  nnz: number,
  options: BatchIndicesPositionsOptions = {},
): [batchIndices: Int32Array | Tensor, positions: Int32Array | Tensor] {
  const check = new Checker(name).number('nnz', nnz, { integer: true, min: 0, max: 2 ** 31 - 1 });
  if (nnz === undefined) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'nnz is undefined; expected the number of new tokens; pass it',
    );
  }
  if (appendIndptr instanceof Tensor) return onDevice(check, appendIndptr, seqLens as Tensor, nnz, options);
  check.options(options, []);
  const indptr = hostIndptr(name, 'appendIndptr', appendIndptr);
  const lengths = hostIndices(name, 'seqLens', seqLens as HostIndices);
  checkLengths(check, indptr, lengths, nnz);
  logCall(name, { appendIndptr, seqLens, nnz });
  return onHost(indptr, lengths, nnz);
}

function checkLengths(check: Checker, indptr: Int32Array, lengths: Int32Array, nnz: number): void {
  check.bind('batchSize', indptr.length - 1, 'appendIndptr').bind('batchSize', lengths.length, 'seqLens');
  const last = indptr[indptr.length - 1]!;
  if (last > nnz) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `nnz is ${nnz}; expected at least appendIndptr's last, ${last}; pass the number of new tokens`,
    );
  }
  for (let r = 0; r < lengths.length; ++r) {
    const added = indptr[r + 1]! - indptr[r]!;
    if (lengths[r]! >= added) continue;
    throw check.error(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `seqLens holds ${lengths[r]} at ${r}; expected at least the ${added} new tokens of the request; count them in`,
    );
  }
}

function onHost(indptr: Int32Array, lengths: Int32Array, nnz: number): [Int32Array, Int32Array] {
  const batchIndices = new Int32Array(nnz).fill(-1);
  const positions = new Int32Array(nnz);
  for (let r = 0; r < lengths.length; ++r) {
    const end = indptr[r + 1]!;
    for (let token = indptr[r]!; token < end; ++token) {
      batchIndices[token] = r;
      positions[token] = lengths[r]! - (end - token);
    }
  }
  return [batchIndices, positions];
}

function onDevice(
  check: Checker,
  appendIndptr: Tensor,
  seqLens: Tensor,
  nnz: number,
  options: BatchIndicesPositionsOptions,
): [Tensor, Tensor] {
  check.tensor('appendIndptr', appendIndptr, ['batchSize + 1'], int32);
  const batchSize = appendIndptr.size - 1;
  check.tensor('seqLens', seqLens, [batchSize], int32).options(options, optionNames).bind('nnz', nnz, 'nnz');
  check.optionalTensor('batchIndices', options.batchIndices, ['nnz'], int32);
  check.optionalTensor('positions', options.positions, ['nnz'], int32);
  const { device, deviceIndex } = appendIndptr;
  const batchIndices = options.batchIndices ?? empty([nnz], { dtype: 'int32', device });
  const positions = options.positions ?? empty([nnz], { dtype: 'int32', device });
  checkSeparate(name, 'batchIndices', batchIndices, 'positions', positions);
  for (const [output, x] of [['batchIndices', batchIndices] as const, ['positions', positions] as const]) {
    checkSeparate(name, output, x, 'appendIndptr', appendIndptr);
    checkSeparate(name, output, x, 'seqLens', seqLens);
  }
  logCall(name, { appendIndptr, seqLens, nnz, options });
  if (nnz === 0) return [batchIndices, positions];
  if (deviceIndex < 0) {
    native().cpu.batchIndicesPositions(appendIndptr.ptr, seqLens.ptr, batchSize, batchIndices.ptr, positions.ptr, nnz);
    return [batchIndices, positions];
  }
  const args = {
    append_indptr: appendIndptr.ptr,
    seq_lens: seqLens.ptr,
    batch_indices: batchIndices.ptr,
    positions: positions.ptr,
    batch_size: batchSize,
    rows: nnz,
    requests_per_row: batchSize / nnz,
  };
  const grid = [Math.ceil(nnz / batchIndicesPositionsSpec.threads), 1, 1] as const;
  getKernel(batchIndicesPositionsSpec, deviceIndex).launch(grid, args, {
    stream: currentStream(deviceIndex),
    pdl: usesDependentLaunch(deviceIndex, undefined),
  });
  return [batchIndices, positions];
}
