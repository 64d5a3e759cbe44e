// SPDX-License-Identifier: Apache-2.0
// One level of a cascade: a batch of its own over the query rows of all.
import type { Tensor } from '../tensor/tensor.ts';
import type { BatchRunOptions, BatchWrapperOptions, PagedKVCache } from './batchOptions.ts';
import { queryRows } from './batchPrefill.ts';
import { BatchWrapper } from './batchWrapper.ts';
import type { CascadePlanOptions } from './cascadeOptions.ts';
import { decodeRows } from './decodeKernel.ts';
import { readPageTable } from './pageTable.ts';

const planNames: ReadonlySet<string> = new Set<keyof CascadePlanOptions>([
  'qoIndptrArr',
  'pagedKvIndptrArr',
  'pagedKvIndicesArr',
  'pagedKvLastPageLenArr',
  'pageSize',
  'causal',
  'numQoHeads',
  'numKvHeads',
  'headDimQk',
  'headDimVo',
  'posEncodingMode',
  'windowLeft',
  'logitsSoftCap',
  'smScale',
  'ropeScale',
  'ropeTheta',
  'qDtype',
  'kvDtype',
  'fixedSplitSize',
  'disableSplitKv',
]);

/** @internal */
export class CascadeLevel extends BatchWrapper {
  private readonly level: number;
  /** In graph mode the kernel of the first plan stays: the decode kernel serves any lengths too. */
  private kind: 'decode' | 'auto' | undefined;

  constructor(name: string, level: number, options: BatchWrapperOptions) {
    super(name, options, ['maxBatchSize', 'maxNumPages', 'maxNumTokens']);
    this.level = level;
  }

  /** Returns the number of query rows. */
  plan(options: CascadePlanOptions, isLast: boolean): number {
    const { level } = this;
    const caller = `${this.name}.plan: level ${level}`;
    const table = readPageTable(caller, {
      pagedKvIndptr: options.pagedKvIndptrArr[level]!,
      pagedKvIndices: options.pagedKvIndicesArr[level]!,
      pagedKvLastPageLen: options.pagedKvLastPageLenArr[level]!,
      pageSize: options.pageSize,
    });
    const { batchSize, kvLen, indptr, pages, pageSize } = table;
    const rows = queryRows(caller, options.qoIndptrArr[level]!, batchSize);
    const requests = { batchSize, ...rows, kvStart: indptr, kvLen };
    const group = options.numQoHeads / options.numKvHeads;
    if (this.kind === undefined && this.isCudaGraphEnabled) {
      this.kind = rows.qoLen.every((length) => length * group <= decodeRows) ? 'decode' : 'auto';
    }
    const levelOptions = isLast ? options : { ...options, causal: false };
    const keys = { pages, kvExtent: table.numPages, pageSize };
    this.planRequests(levelOptions, planNames, requests, keys, this.kind ?? 'auto');
    return rows.qoBegin[batchSize]!;
  }

  run(q: Tensor, pagedKVCache: PagedKVCache, options: BatchRunOptions): Tensor | [Tensor, Tensor] {
    return this.runRequests(q, options, (check, planned, numPages) =>
      this.readCache(check, pagedKVCache, planned, numPages),
    );
  }
}
