// SPDX-License-Identifier: Apache-2.0
// Options of the cascade wrapper.
import type { BatchPlanOptions, BatchRunOptions, BatchWrapperOptions } from './batchOptions.ts';
import type { HostIndices } from './hostArray.ts';

/** Options of the cascade wrapper's constructor. A list has an entry a level, a number counts for each of them. */
export interface CascadeWrapperOptions extends Omit<BatchWrapperOptions, 'maxBatchSize' | 'maxNumPages'> {
  /** Most requests (shared prefixes, or sequences) of a level; required with useCudaGraph. */
  maxBatchSize?: number | readonly number[];
  /** Most pages of a level; required with useCudaGraph. */
  maxNumPages?: number | readonly number[];
}

/**
 * A plan of the cascade wrapper. Each list has one entry a level, the most shared keys first: at every level, the query
 * rows are cut into requests, and each request has pages of its own. A row sees the keys of its requests of all levels.
 */
export interface CascadePlanOptions extends Omit<BatchPlanOptions, 'variant'> {
  /** Of each level int32 `[batchSize + 1]`: request i has query rows `qoIndptr[i] .. qoIndptr[i + 1]`. */
  qoIndptrArr: readonly HostIndices[];
  /** Of each level int32 `[batchSize + 1]`. */
  pagedKvIndptrArr: readonly HostIndices[];
  /** Of each level page ids. */
  pagedKvIndicesArr: readonly HostIndices[];
  /** Of each level int32 `[batchSize]`. */
  pagedKvLastPageLenArr: readonly HostIndices[];
  pageSize: number;
  /** At the last level, query row i of a request sees its keys up to i + kvLen - qoLen. Default false. */
  causal?: boolean;
}

/** Options of the cascade wrapper's `run()`. */
export type CascadeRunOptions = Omit<BatchRunOptions, 'variantParams' | 'sinks'>;
