// SPDX-License-Identifier: Apache-2.0
// One level of a cascade: a batch of its own over the query rows of all.
import type { Tensor } from '../tensor/tensor.ts';
import type { KernelWish } from './batchKernelChoice.ts';
import { type BatchRunOptions, type BatchWrapperOptions, batchPlanNames, type PagedKVCache } from './batchOptions.ts';
import type { BatchRequests } from './batchPlan.ts';
import { queryRows } from './batchPrefill.ts';
import { BatchWrapper } from './batchWrapper.ts';
import type { CascadePlanOptions } from './cascadeOptions.ts';
import { decodeRows } from './decodeKernel.ts';
import { positiveInteger } from './hostArray.ts';
import { readPageTable } from './pageTable.ts';

export const planNames: ReadonlySet<string> = new Set<keyof CascadePlanOptions>([
  'qoIndptrArr',
  'pagedKvIndptrArr',
  'pagedKvIndicesArr',
  'pagedKvLastPageLenArr',
  'pageSize',
  'causal',
  ...batchPlanNames,
]);

const levelNames: ReadonlySet<string> = new Set<string>([...planNames, 'packedCustomMask']);

export interface ReadLevel {
  readonly requests: BatchRequests;
  readonly keys: { readonly pages: Int32Array; readonly kvExtent: number; readonly pageSize: number };
  readonly numTokens: number;
}

/** @internal */
export class CascadeLevel extends BatchWrapper {
  private readonly level: number;
  /** In graph mode the kernel of the first plan stays: the decode kernel serves any lengths too. */
  private wish: KernelWish | undefined;

  constructor(name: string, level: number, options: BatchWrapperOptions) {
    super(name, options, ['maxBatchSize', 'maxNumPages', 'maxNumTokens']);
    this.level = level;
  }

  /** The level's part of the options, checked. */
  read(options: CascadePlanOptions): ReadLevel {
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
    return {
      requests: { batchSize, ...rows, kvStart: indptr, kvLen },
      keys: { pages, kvExtent: table.numPages, pageSize },
      numTokens: rows.qoBegin[batchSize]!,
    };
  }

  /** `bits`: in place of the window, of a level before the last. */
  plan(
    options: CascadePlanOptions,
    { requests, keys }: ReadLevel,
    isLast: boolean,
    bits: Uint8Array | undefined,
  ): void {
    const caller = `${this.name}.plan`;
    const numKvHeads = positiveInteger(caller, 'numKvHeads', options.numKvHeads);
    const group = positiveInteger(caller, 'numQoHeads', options.numQoHeads) / numKvHeads;
    if (this.wish === undefined && this.isCudaGraphEnabled) {
      const isShort = requests.qoLen.every((length) => length * group <= decodeRows);
      this.wish = isShort ? { template: 'decode', packedRows: decodeRows } : 'auto';
    }
    const upper = { ...options, causal: false, windowLeft: -1, ...(bits !== undefined && { packedCustomMask: bits }) };
    this.planRequests(isLast ? options : upper, levelNames, requests, keys, this.wish ?? 'auto');
  }

  run(q: Tensor, pagedKVCache: PagedKVCache, options: BatchRunOptions): Tensor | [Tensor, Tensor] {
    return this.runRequests(q, options, (check, planned, numPages) =>
      this.readCache(check, pagedKVCache, planned, numPages),
    );
  }
}
