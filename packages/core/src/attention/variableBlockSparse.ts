// SPDX-License-Identifier: Apache-2.0
// Attention under a mask of blocks of different sizes, one mask for each key head: heads become requests.
import { Checker } from '../check/checker.ts';
import { checkOptions } from '../check/options.ts';
import { UnsupportedError } from '../errors.ts';
import type { DType, OutputDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { BatchWrapper } from './batchWrapper.ts';
import { positiveInteger } from './hostArray.ts';
import { runOptionNames } from './options.ts';
import type { KvView } from './pagedKvCache.ts';
import { checkHeads, checkNoOverlap, headDimVoOf } from './request.ts';
import type {
  SparseWrapperOptions,
  VariableBlockSparsePlanOptions,
  VariableBlockSparseRunOptions,
} from './sparseOptions.ts';
import { batchNames, batchOptions, requireSparseOptions, sparsePlanNames } from './sparsePlan.ts';
import { listKeys, readBlocks } from './variableBlocks.ts';

const planNames: ReadonlySet<string> = new Set<keyof VariableBlockSparsePlanOptions>([
  ...sparsePlanNames,
  'blockMaskMap',
  'blockRowSz',
  'blockColSz',
]);

/** Sinks are those of heads, which are planned as requests here. */
const runNames: ReadonlySet<string> = new Set(
  [...runOptionNames].filter((name) => name !== 'sinks' && name !== 'variantParams'),
);

/** The planned tensors: q `[numQoHeads, rows, headDim]`, k and v `[numKvHeads, columns, headDim]`. */
interface Shape {
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly rows: number;
  readonly columns: number;
}

/**
 * Attention under masks of blocks whose heights and widths differ, one mask for each key head and its group of query
 * heads.
 * @throws {InvalidArgumentError} from plan and run on wrong blocks, shapes, dtypes, devices, strides or options
 * @throws {UnsupportedError} from plan with ALiBi, whose slopes are those of heads
 * @remarks `plan()` works on host arrays; `run()` is asynchronous on the current stream. Pages are as large as divides
 *   all widths, so widths with a common factor of 8 or more are fastest. With several query heads a key head, q and the
 *   result are each copied once. Rows without a visible key give zeros and lse -inf; RoPE counts the visible keys.
 * @see FlashInfer `VariableBlockSparseAttentionWrapper`
 * @example
 * ```ts
 * import { randn, VariableBlockSparseAttentionWrapper } from '@flashinfer/core';
 *
 * const sparse = new VariableBlockSparseAttentionWrapper();
 * sparse.plan({
 *   blockMaskMap: [true, false, true, false, true, true], // one key head, 2 x 3 blocks
 *   blockRowSz: [5, 11], blockColSz: [8, 8, 16],
 *   numQoHeads: 4, numKvHeads: 1, headDimQk: 64,
 * });
 * const q = randn([4, 16, 64], { dtype: 'float16' });
 * const [k, v] = [randn([1, 32, 64], { dtype: 'float16' }), randn([1, 32, 64], { dtype: 'float16' })];
 * const o = sparse.run(q, k, v); // [4, 16, 64]
 * ```
 */
export class VariableBlockSparseAttentionWrapper extends BatchWrapper {
  private shape: Shape | undefined;

  constructor(options: SparseWrapperOptions = {}) {
    super('VariableBlockSparseAttentionWrapper', options, []);
  }

  /** Prepares the runs that follow; see {@link VariableBlockSparsePlanOptions}. Replaces the plan before. */
  plan(options: VariableBlockSparsePlanOptions): void {
    const caller = `${this.name}.plan`;
    requireSparseOptions(caller, options, planNames);
    if (options.posEncodingMode === 'ALIBI') {
      throw new UnsupportedError(
        'ERR_FLASHINFER_UNSUPPORTED',
        `${caller}: posEncodingMode is 'ALIBI'; expected 'NONE' or 'ROPE_LLAMA', since heads are planned as requests here; ` +
          'use BlockSparseAttentionWrapper',
      );
    }
    const numQoHeads = positiveInteger(caller, 'numQoHeads', options.numQoHeads);
    const numKvHeads = positiveInteger(caller, 'numKvHeads', options.numKvHeads);
    checkHeads(caller, numQoHeads, numKvHeads);
    const blocks = readBlocks(caller, options, numKvHeads);
    const { rowSizes, rows, columns } = blocks;
    const listed = listKeys(blocks, options.causal === true, options.posEncodingMode ?? 'NONE');
    const batchSize = rowSizes.length;
    const qoBegin = new Int32Array(batchSize);
    for (let r = 1; r < batchSize; ++r) qoBegin[r] = qoBegin[r - 1]! + rowSizes[r - 1]!;
    const requests = { batchSize, qoBegin, qoLen: rowSizes, kvStart: listed.indptr, kvLen: listed.kvLen };
    const keys = { pages: listed.pages, kvExtent: (numKvHeads * columns) / listed.pageSize, pageSize: listed.pageSize };
    const planned = {
      ...batchOptions(options, listed.form, listed.bits),
      numQoHeads: numQoHeads / numKvHeads,
      numKvHeads: 1,
    };
    this.planRequests(planned, batchNames, requests, keys, 'auto');
    this.shape = { numQoHeads, numKvHeads, rows, columns };
  }

  /**
   * @param q `[numQoHeads, rows, headDim]`, the planned qDtype
   * @param k `[numKvHeads, columns, headDim]`
   * @param v as k
   * @returns `o` as q; with `returnLse` `[o, lse]`, lse `[numQoHeads, rows]` float32, base 2 unless `lseBase` is `'e'`
   */
  run<D extends DType>(
    q: Tensor<D>,
    k: Tensor,
    v: Tensor,
    options: VariableBlockSparseRunOptions & { returnLse: true },
  ): [Tensor<OutputDType<D>>, Tensor<'float32'>];
  run<D extends DType>(
    q: Tensor<D>,
    k: Tensor,
    v: Tensor,
    options?: VariableBlockSparseRunOptions & { returnLse?: false },
  ): Tensor<OutputDType<D>>;
  run(q: Tensor, k: Tensor, v: Tensor, options: VariableBlockSparseRunOptions = {}): Tensor | [Tensor, Tensor] {
    const { qDtype, kvDtype, headDim } = this.requirePlan('run').attention;
    checkOptions(`${this.name}.run`, options, runNames);
    const { numQoHeads, numKvHeads, rows, columns } = this.shape!;
    const rule = { device: this.device, lastDimContiguous: true } as const;
    const check = new Checker(`${this.name}.run`);
    check.tensor('q', q, [numQoHeads, rows, headDim], { ...rule, dtypes: [qDtype] });
    for (const [name, x] of [
      ['k', k],
      ['v', v],
    ] as const) {
      check.tensor(name, x, [numKvHeads, columns, name === 'k' ? headDim : headDimVoOf(headDim)], {
        ...rule,
        dtypes: [kvDtype],
      });
    }
    check.optionalTensor('out', options.out, [numQoHeads, rows, headDimVoOf(headDim)], { ...rule, dtypes: [qDtype] });
    check.optionalTensor('lse', options.lse, [numQoHeads, rows], { ...rule, dtypes: ['float32'] });
    checkNoOverlap(check.functionName, 'out', options.out, { q, k, v });
    checkNoOverlap(check.functionName, 'lse', options.lse, { q, k, v, out: options.out });
    return this.runChecked(q, k, v, options);
  }

  private runChecked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    options: VariableBlockSparseRunOptions,
  ): Tensor | [Tensor, Tensor] {
    const { out, lse, ...rest } = options;
    using queries = this.toRows(q);
    using keys = rowsOf(k);
    using values = rowsOf(v);
    const result = this.runRequests(queries, rest, (_, { pageSize }) => ({
      k: blockView(keys, pageSize),
      v: blockView(values, pageSize),
      tensors: { k: keys, v: values },
    }));
    const [rows, rowsLse] = Array.isArray(result) ? result : [result, undefined];
    const given = this.toHeads(rows, out);
    return rowsLse === undefined ? given : [given, this.toHeads(rowsLse, lse)];
  }

  /** `[numQoHeads, rows, dim]` as `[numKvHeads * rows, group, dim]`. */
  private toRows(q: Tensor): Tensor {
    const { numQoHeads, numKvHeads, rows } = this.shape!;
    const dim = q.shape[2]!;
    using contiguous = q.contiguous();
    using grouped = contiguous.view(numKvHeads, numQoHeads / numKvHeads, rows, dim);
    using ordered = grouped.transpose(1, 2);
    using copied = ordered.contiguous();
    return copied.view(numKvHeads * rows, numQoHeads / numKvHeads, dim);
  }

  /** The way back, into `out` where there is one. Takes `result`. */
  private toHeads(result: Tensor, out: Tensor | undefined): Tensor {
    const { numQoHeads, numKvHeads, rows } = this.shape!;
    const group = numQoHeads / numKvHeads;
    const tail = result.shape.slice(2);
    using owned = result;
    using split = owned.view(numKvHeads, rows, group, ...tail);
    using ordered = split.transpose(1, 2);
    if (out?.isContiguous) {
      using heads = out.view(numKvHeads, group, rows, ...tail);
      heads.copy_(ordered);
      return out;
    }
    using copied = ordered.contiguous();
    const heads = copied.view(numQoHeads, rows, ...tail);
    if (out === undefined) return heads;
    out.copy_(heads);
    heads.dispose();
    return out;
  }
}

/** Rows of all heads at one distance, which pages need. */
function rowsOf(keys: Tensor): Tensor {
  const { shape, strides } = keys;
  const headsFollow = shape[0] === 1 || strides[0] === strides[1]! * shape[1]!;
  return headsFollow ? keys.slice(0, 0) : keys.contiguous();
}

/** `pageSize` successive rows as a page, of the one head that is planned. */
function blockView({ ptr, strides }: Tensor, pageSize: number): KvView {
  return { ptr, strideN: strides[1]!, strideH: 0, stridePage: pageSize * strides[1]! };
}
