// SPDX-License-Identifier: Apache-2.0
// Batched decode attention over a paged KV-cache.
import { Checker } from '../check/checker.ts';
import { checkOptions } from '../check/options.ts';
import type { DType, OutputDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { KernelWish } from './batchKernelChoice.ts';
import {
  type BatchDecodePlanOptions,
  type BatchDecodeWrapperOptions,
  type BatchRunOptions,
  batchPlanNames,
  decodeWrapperOptionNames,
  type PagedKVCache,
} from './batchOptions.ts';
import { BatchWrapper } from './batchWrapper.ts';
import { decodeRows } from './decodeKernel.ts';
import { positiveInteger } from './hostArray.ts';
import { readPageTable } from './pageTable.ts';

const planNames: ReadonlySet<string> = new Set<keyof BatchDecodePlanOptions>([
  'pagedKvIndptr',
  'pagedKvIndices',
  'pagedKvLastPageLen',
  'pageSize',
  ...batchPlanNames,
  'variant',
  'qLenPerReq',
]);

interface QueryRows {
  readonly qoBegin: Int32Array;
  readonly qoLen: Int32Array;
}

/** By the rows of a request. Never written again once made, so all plans share them; they may be longer than the batch. */
const rows = new Map<number, QueryRows>();

function uniformRows(batchSize: number, qLenPerReq: number): QueryRows {
  let known = rows.get(qLenPerReq);
  if (known === undefined || known.qoBegin.length < batchSize) {
    const length = Math.max(256, batchSize * 2);
    const qoBegin = Int32Array.from({ length }, (_, r) => r * qLenPerReq);
    known = { qoBegin, qoLen: new Int32Array(length).fill(qLenPerReq) };
    rows.set(qLenPerReq, known);
  }
  return known;
}

/**
 * Decode attention of a batch: one query token a request, or a few with `qLenPerReq`, over a paged KV-cache.
 * `plan()` once for the lengths and pages of a step, `run()` once a layer.
 * @throws {InvalidArgumentError} from plan and run on wrong page tables, shapes, dtypes, devices, strides or options
 * @remarks `plan()` works on host arrays and copies once, asynchronously; `run()` is asynchronous on the current stream.
 *   With `useCudaGraph` a captured `run()` replays correctly after every new plan within the maxima.
 * @see FlashInfer `BatchDecodeWithPagedKVCacheWrapper`; arXiv:2501.01005
 * @example
 * ```ts
 * import { BatchDecodeWithPagedKVCacheWrapper, randn } from '@flashinfer/core';
 *
 * const decode = new BatchDecodeWithPagedKVCacheWrapper();
 * decode.plan({
 *   pagedKvIndptr: [0, 2, 3], pagedKvIndices: [0, 1, 2], pagedKvLastPageLen: [5, 16], pageSize: 16,
 *   numQoHeads: 32, numKvHeads: 8, headDimQk: 128,
 * });
 * const q = randn([2, 32, 128], { dtype: 'float16' });
 * const cache = randn([3, 2, 16, 8, 128], { dtype: 'float16' });
 * const o = decode.run(q, cache); // [2, 32, 128]
 * ```
 */
export class BatchDecodeWithPagedKVCacheWrapper extends BatchWrapper {
  private readonly useTensorCores: boolean | undefined;

  constructor(options: BatchDecodeWrapperOptions = {}) {
    super('BatchDecodeWithPagedKVCacheWrapper', options, ['maxBatchSize', 'maxNumPages'], decodeWrapperOptionNames);
    new Checker(this.name).flag('useTensorCores', options.useTensorCores);
    this.useTensorCores = options.useTensorCores;
  }

  /** More rows than a tile has would read keys once a tile: 64 heads on one, 64 x 16384 keys, 271 us for 148 (H200). */
  private wish(packedRows: number): Exclude<KernelWish, 'auto'> {
    const { useTensorCores = packedRows > decodeRows } = this;
    return { template: useTensorCores ? 'prefill' : 'decode', packedRows };
  }

  /** Prepares the runs that follow; see {@link BatchDecodePlanOptions}. Replaces the plan before. */
  plan(options: BatchDecodePlanOptions): void {
    const caller = `${this.name}.plan`;
    checkOptions(caller, options, planNames);
    const table = readPageTable(caller, options);
    const { batchSize, kvLen, indptr, pages, pageSize } = table;
    const { qLenPerReq = 1 } = options;
    const most = Math.floor((2 ** 31 - 1) / Math.max(1, batchSize));
    new Checker(caller).number('qLenPerReq', qLenPerReq, { min: 1, max: most, integer: true });
    const { qoBegin, qoLen } = uniformRows(batchSize, qLenPerReq);
    const requests = { batchSize, qoBegin, qoLen, kvStart: indptr, kvLen };
    const packedRows =
      (qLenPerReq * positiveInteger(caller, 'numQoHeads', options.numQoHeads)) /
      positiveInteger(caller, 'numKvHeads', options.numKvHeads);
    const keys = { pages, kvExtent: table.numPages, pageSize };
    const wish = this.wish(packedRows);
    // One row sees all keys under the causal rule too, whose prefill kernels models launch anyway.
    const causal = qLenPerReq > 1 || wish.template === 'prefill';
    this.planRequests(options, planNames, requests, keys, wish, causal);
  }

  /**
   * @param q `[batchSize * qLenPerReq, numQoHeads, headDim]`, the planned qDtype
   * @param pagedKVCache NHD `[numPages, 2, pageSize, numKvHeads, headDim]`, HND `[numPages, 2, numKvHeads, pageSize,
   *   headDim]`, or `[k, v]` without dimension 1; pages may be strided
   * @returns `o` as q; with `returnLse` `[o, lse]`, lse `[batchSize * qLenPerReq, numQoHeads]` float32, base 2
   *   unless `lseBase` is `'e'`
   */
  run<D extends DType>(
    q: Tensor<D>,
    pagedKVCache: PagedKVCache,
    options: BatchRunOptions & { returnLse: true },
  ): [Tensor<OutputDType<D>>, Tensor<'float32'>];
  run<D extends DType>(
    q: Tensor<D>,
    pagedKVCache: PagedKVCache,
    options?: BatchRunOptions & { returnLse?: false },
  ): Tensor<OutputDType<D>>;
  run(q: Tensor, pagedKVCache: PagedKVCache, options: BatchRunOptions = {}): Tensor | [Tensor, Tensor] {
    return this.runRequests(q, options, (check, planned, numPages) =>
      this.readCache(check, pagedKVCache, planned, numPages),
    );
  }
}
