// SPDX-License-Identifier: Apache-2.0
// Attention under a block sparse mask: a batch whose requests are rows of blocks, and whose pages are blocks of keys.

import type { DType, OutputDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { BatchWrapper } from './batchWrapper.ts';
import { commonForm, isHidden, type KeyRun, MaskBits, type MaskedRows } from './blockMask.ts';
import { type Bsr, blockMaskBits, readBsr } from './bsr.ts';
import type { KvView } from './pagedKvCache.ts';
import { headDimVoOf } from './request.ts';
import type { BlockSparsePlanOptions, BlockSparseRunOptions, SparseWrapperOptions } from './sparseOptions.ts';
import { batchNames, batchOptions, invalidSparse, requireSparseOptions, sparsePlanNames } from './sparsePlan.ts';

const planNames: ReadonlySet<string> = new Set<keyof BlockSparsePlanOptions>([
  ...sparsePlanNames,
  'indptr',
  'indices',
  'M',
  'N',
  'R',
  'C',
  'mask',
  'packedMask',
]);

/**
 * Attention of M query rows over N keys under a block sparse mask (BSR): R rows by C keys a block, of which those listed
 * are visible, whole or by a mask within. C = 1 is vector sparsity, any set of keys for each R rows.
 * @throws {InvalidArgumentError} from plan and run on a wrong matrix, shape, dtype, device, stride or option
 * @remarks `plan()` works on host arrays; `run()` is asynchronous on the current stream, and reads keys in place. Rows
 *   without a visible key give zeros and lse -inf. With `posEncodingMode` positions count the listed keys of a row of
 *   blocks, as FlashInfer's do. `causal` is that of the whole matrix: blocks above the diagonal cost nothing.
 * @see FlashInfer `BlockSparseAttentionWrapper`; arXiv:2501.01005
 * @example
 * ```ts
 * import { BlockSparseAttentionWrapper, randn } from '@flashinfer/core';
 *
 * const sparse = new BlockSparseAttentionWrapper();
 * // 8 query rows in 2 rows of blocks, 24 keys in 6 columns: rows 0-3 see blocks 0 and 2, rows 4-7 blocks 1, 3 and 5
 * sparse.plan({
 *   indptr: [0, 2, 5], indices: [0, 2, 1, 3, 5], M: 8, N: 24, R: 4, C: 4, numQoHeads: 8, numKvHeads: 2, headDimQk: 64,
 * });
 * const q = randn([8, 8, 64], { dtype: 'float16' });
 * const [k, v] = [randn([24, 2, 64], { dtype: 'float16' }), randn([24, 2, 64], { dtype: 'float16' })];
 * const o = sparse.run(q, k, v); // [8, 8, 64]
 * ```
 */
export class BlockSparseAttentionWrapper extends BatchWrapper {
  private numKeys = 0;

  constructor(options: SparseWrapperOptions = {}) {
    super('BlockSparseAttentionWrapper', options, []);
  }

  /** Prepares the runs that follow; see {@link BlockSparsePlanOptions}. Replaces the plan before. */
  plan(options: BlockSparsePlanOptions): void {
    const caller = `${this.name}.plan`;
    requireSparseOptions(caller, options, planNames);
    const bsr = readBsr(caller, options);
    const masked = options.mask !== undefined || options.packedMask !== undefined;
    if (masked && options.causal === true) {
      throw invalidSparse(caller, 'a mask and causal are given; expected one; write the causal rule into the mask');
    }
    const cut = options.causal === true ? cutCausal(bsr, options.posEncodingMode ?? 'NONE') : undefined;
    const { indptr, indices } = cut ?? bsr;
    const { M, N, R, C } = bsr;
    const batchSize = M / R;
    const requests = {
      batchSize,
      qoBegin: Int32Array.from({ length: batchSize }, (_, r) => r * R),
      qoLen: new Int32Array(batchSize).fill(R),
      kvStart: indptr,
      kvLen: Int32Array.from({ length: batchSize }, (_, r) => (indptr[r + 1]! - indptr[r]!) * C),
    };
    const bits = cut?.bits ?? (masked ? blockMaskBits(caller, bsr, options) : undefined);
    const keys = { pages: indices, kvExtent: N / C, pageSize: C };
    this.planRequests(batchOptions(options, cut?.form ?? 'bits', bits), batchNames, requests, keys, 'auto');
    this.numKeys = N;
  }

  /**
   * @param q `[M, numQoHeads, headDim]`, the planned qDtype
   * @param k `[N, numKvHeads, headDim]`
   * @param v as k
   * @returns `o` as q; with `returnLse` `[o, lse]`, lse `[M, numQoHeads]` float32, base 2 unless `lseBase` is `'e'`
   */
  run<D extends DType>(
    q: Tensor<D>,
    k: Tensor,
    v: Tensor,
    options: BlockSparseRunOptions & { returnLse: true },
  ): [Tensor<OutputDType<D>>, Tensor<'float32'>];
  run<D extends DType>(
    q: Tensor<D>,
    k: Tensor,
    v: Tensor,
    options?: BlockSparseRunOptions & { returnLse?: false },
  ): Tensor<OutputDType<D>>;
  run(q: Tensor, k: Tensor, v: Tensor, options: BlockSparseRunOptions = {}): Tensor | [Tensor, Tensor] {
    return this.runRequests(q, options, (check, { numKvHeads, headDim, kvDtype, pageSize }) => {
      const rule = { dtypes: [kvDtype], device: this.device, lastDimContiguous: true } as const;
      const dims = [this.numKeys, numKvHeads, headDim];
      check.tensor('k', k, dims, rule).tensor('v', v, dims.with(2, headDimVoOf(headDim)), rule);
      return { k: blockView(k, pageSize), v: blockView(v, pageSize), tensors: { k, v } };
    });
  }
}

/** Keys of C successive rows as a page. */
function blockView({ ptr, strides }: Tensor, pageSize: number): KvView {
  return { ptr, strideN: strides[0]!, strideH: strides[1]!, stridePage: pageSize * strides[0]! };
}

interface CausalCut {
  readonly indptr: Int32Array;
  readonly indices: Int32Array;
  readonly form: 'none' | 'causal' | 'bits';
  readonly bits: Uint8Array | undefined;
}

/** Leaves out the blocks that the causal rule hides, unless positions count them. */
function cutCausal({ indptr, indices, M, N, R, C }: Bsr, posEncodingMode: string): CausalCut {
  const keepsAll = posEncodingMode !== 'NONE';
  const requests: MaskedRows[] = [];
  const kept = new Int32Array(indices.length);
  const keptIndptr = new Int32Array(indptr.length);
  let count = 0;
  for (let r = 0; r < M / R; ++r) {
    const of = { rowBegin: r * R, rowEnd: (r + 1) * R, rows: M, columns: N };
    requests.push(of);
    for (let i = indptr[r]!; i < indptr[r + 1]!; ++i) {
      if (keepsAll || !isHidden(of, runOf(indices[i]!, C))) kept[count++] = indices[i]!;
    }
    keptIndptr[r + 1] = count;
  }
  const runs = (r: number): KeyRun[] =>
    Array.from(kept.subarray(keptIndptr[r], keptIndptr[r + 1]), (block) => runOf(block, C));
  const form = commonForm(requests, runs);
  let bits: MaskBits | undefined;
  if (form === 'bits') {
    bits = new MaskBits(requests.map((_, r) => R * (keptIndptr[r + 1]! - keptIndptr[r]!) * C));
    for (const [r, of] of requests.entries()) bits.appendCausal(of, runs(r));
  }
  return { indptr: keptIndptr, indices: kept.subarray(0, count), form, bits: bits?.bytes };
}

function runOf(block: number, C: number): KeyRun {
  return { begin: block * C, end: (block + 1) * C };
}
