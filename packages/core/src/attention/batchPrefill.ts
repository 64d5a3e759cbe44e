// SPDX-License-Identifier: Apache-2.0
// Batched prefill and append attention, over a paged KV-cache or over ragged keys and values.
import { checkOptions } from '../check/options.ts';
import type { DType, OutputDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import {
  type BatchPrefillPagedPlanOptions,
  type BatchPrefillRaggedPlanOptions,
  type BatchRunOptions,
  type BatchWrapperOptions,
  batchPlanNames,
  type PagedKVCache,
} from './batchOptions.ts';
import { BatchWrapper } from './batchWrapper.ts';
import { hostIndptr } from './hostArray.ts';
import { raggedView } from './pagedKvCache.ts';
import { readPageTable } from './pageTable.ts';
import { headDimVoOf } from './request.ts';

const sharedNames = [
  'qoIndptr',
  'causal',
  'customMask',
  'packedCustomMask',
  ...batchPlanNames,
  'outDtype',
  'variant',
] as const;
const pagedNames: ReadonlySet<string> = new Set<keyof BatchPrefillPagedPlanOptions>([
  ...sharedNames,
  'pagedKvIndptr',
  'pagedKvIndices',
  'pagedKvLastPageLen',
  'pageSize',
]);
const raggedNames: ReadonlySet<string> = new Set<keyof BatchPrefillRaggedPlanOptions>([...sharedNames, 'kvIndptr']);

/**
 * Prefill or append attention of a batch of requests of any lengths, over a paged KV-cache. With qDtype and kvDtype
 * float8_e4m3fn (on cuda on Hopper GPUs with headDim 128 or 256) both products are in 8 bits; keys and values are then
 * arranged in scratch first, as many bytes as the batch has of them.
 * @throws {InvalidArgumentError} from plan and run on wrong page tables, shapes, dtypes, devices, strides or options
 * @see FlashInfer `BatchPrefillWithPagedKVCacheWrapper`; arXiv:2501.01005
 * @example
 * ```ts
 * import { BatchPrefillWithPagedKVCacheWrapper, randn } from '@flashinfer/core';
 *
 * const prefill = new BatchPrefillWithPagedKVCacheWrapper();
 * prefill.plan({
 *   qoIndptr: [0, 7, 10], pagedKvIndptr: [0, 2, 3], pagedKvIndices: [0, 1, 2], pagedKvLastPageLen: [5, 16],
 *   pageSize: 16, numQoHeads: 32, numKvHeads: 8, headDimQk: 128, causal: true,
 * });
 * const q = randn([10, 32, 128], { dtype: 'float16' });
 * const cache = randn([3, 2, 16, 8, 128], { dtype: 'float16' });
 * const o = prefill.run(q, cache); // [10, 32, 128]
 * ```
 */
export class BatchPrefillWithPagedKVCacheWrapper extends BatchWrapper {
  constructor(options: BatchWrapperOptions = {}) {
    super('BatchPrefillWithPagedKVCacheWrapper', options, ['maxBatchSize', 'maxNumPages', 'maxNumTokens']);
  }

  /** Prepares the runs that follow; see {@link BatchPrefillPagedPlanOptions}. Replaces the plan before. */
  plan(options: BatchPrefillPagedPlanOptions): void {
    const caller = `${this.name}.plan`;
    checkOptions(caller, options, pagedNames);
    const table = readPageTable(caller, options);
    const { batchSize, kvLen, indptr, pages, pageSize } = table;
    const rows = queryRows(caller, options.qoIndptr, batchSize);
    const requests = { batchSize, ...rows, kvStart: indptr, kvLen };
    this.planRequests(options, pagedNames, requests, { pages, kvExtent: table.numPages, pageSize }, 'auto');
  }

  /**
   * @param q `[qoIndptr[batchSize], numQoHeads, headDimQk]`, the planned qDtype
   * @param pagedKVCache NHD `[numPages, 2, pageSize, numKvHeads, headDim]`, HND `[numPages, 2, numKvHeads, pageSize,
   *   headDim]`, or `[k, v]` without dimension 1; pages may be strided
   * @returns `o` as q (float8: the planned outDtype), with headDimVo; with `returnLse` `[o, lse]`, lse `[numTokens, numQoHeads]` float32, base 2 unless `lseBase` is `'e'`
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

/**
 * Prefill or append attention of a batch of requests of any lengths, whose keys and values lie one request after another.
 * With qDtype and kvDtype float8_e4m3fn (on cuda on Hopper GPUs with headDim 128 or 256) both products are in 8 bits;
 * values are then transposed in scratch first, as many bytes as the batch has of them.
 * @throws {InvalidArgumentError} from plan and run on wrong indptrs, shapes, dtypes, devices, strides or options
 * @see FlashInfer `BatchPrefillWithRaggedKVCacheWrapper`; arXiv:2501.01005
 * @example
 * ```ts
 * import { BatchPrefillWithRaggedKVCacheWrapper, randn } from '@flashinfer/core';
 *
 * const prefill = new BatchPrefillWithRaggedKVCacheWrapper();
 * prefill.plan({ qoIndptr: [0, 7, 10], kvIndptr: [0, 7, 30], numQoHeads: 32, numKvHeads: 8, headDimQk: 128, causal: true });
 * const q = randn([10, 32, 128], { dtype: 'float16' });
 * const k = randn([30, 8, 128], { dtype: 'float16' });
 * const v = randn([30, 8, 128], { dtype: 'float16' });
 * const o = prefill.run(q, k, v); // [10, 32, 128]
 * ```
 */
export class BatchPrefillWithRaggedKVCacheWrapper extends BatchWrapper {
  constructor(options: BatchWrapperOptions = {}) {
    super('BatchPrefillWithRaggedKVCacheWrapper', options, ['maxBatchSize', 'maxNumTokens']);
  }

  /** Prepares the runs that follow; see {@link BatchPrefillRaggedPlanOptions}. Replaces the plan before. */
  plan(options: BatchPrefillRaggedPlanOptions): void {
    const caller = `${this.name}.plan`;
    checkOptions(caller, options, raggedNames);
    const kvIndptr = hostIndptr(caller, 'kvIndptr', options.kvIndptr);
    const batchSize = kvIndptr.length - 1;
    const rows = queryRows(caller, options.qoIndptr, batchSize);
    const requests = { batchSize, ...rows, kvStart: kvIndptr, kvLen: differences(kvIndptr) };
    const keys = { pages: new Int32Array(0), kvExtent: kvIndptr[batchSize]!, pageSize: 0 };
    this.planRequests(options, raggedNames, requests, keys, 'auto');
  }

  /**
   * @param q `[qoIndptr[batchSize], numQoHeads, headDimQk]`, the planned qDtype
   * @param k NHD `[kvIndptr[batchSize], numKvHeads, headDimQk]`, HND `[numKvHeads, kvIndptr[batchSize], headDimQk]`
   * @param v as k, with headDimVo
   * @returns `o` as q (float8: the planned outDtype), with headDimVo; with `returnLse` `[o, lse]`, lse `[numTokens, numQoHeads]` float32, base 2 unless `lseBase` is `'e'`
   */
  run<D extends DType>(
    q: Tensor<D>,
    k: Tensor,
    v: Tensor,
    options: BatchRunOptions & { returnLse: true },
  ): [Tensor<OutputDType<D>>, Tensor<'float32'>];
  run<D extends DType>(
    q: Tensor<D>,
    k: Tensor,
    v: Tensor,
    options?: BatchRunOptions & { returnLse?: false },
  ): Tensor<OutputDType<D>>;
  run(q: Tensor, k: Tensor, v: Tensor, options: BatchRunOptions = {}): Tensor | [Tensor, Tensor] {
    return this.runRequests(q, options, (check, { numKvHeads, headDim, kvDtype }, rows) => {
      const dims = this.kvLayout === 'NHD' ? [rows, numKvHeads] : [numKvHeads, rows];
      const rule = { dtypes: [kvDtype], device: this.device, lastDimContiguous: true } as const;
      check.tensor('k', k, [...dims, headDim], rule).tensor('v', v, [...dims, headDimVoOf(headDim)], rule);
      return { k: raggedView(k, this.kvLayout), v: raggedView(v, this.kvLayout), tensors: { k, v } };
    });
  }
}

export function queryRows(
  caller: string,
  value: BatchPrefillRaggedPlanOptions['qoIndptr'],
  batchSize: number,
): { qoBegin: Int32Array; qoLen: Int32Array } {
  const qoIndptr = hostIndptr(caller, 'qoIndptr', value, batchSize);
  return { qoBegin: qoIndptr, qoLen: differences(qoIndptr) };
}

function differences(indptr: Int32Array): Int32Array {
  const lengths = new Int32Array(indptr.length - 1);
  for (let r = 0; r < lengths.length; ++r) lengths[r] = indptr[r + 1]! - indptr[r]!;
  return lengths;
}
