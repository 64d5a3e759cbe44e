// SPDX-License-Identifier: Apache-2.0
// Options of the block sparse wrappers.
import type { BatchPlanOptions, BatchRunOptions, BatchWrapperOptions } from './batchOptions.ts';
import type { HostIndices } from './hostArray.ts';

/** Options of a block sparse wrapper's constructor. */
export type SparseWrapperOptions = Pick<BatchWrapperOptions, 'backend' | 'device' | 'workspace'>;

/** Options of the block sparse wrapper's `run()`. */
export type BlockSparseRunOptions = Omit<BatchRunOptions, 'variantParams'>;

/** Options of the variable block sparse wrapper's `run()`. */
export type VariableBlockSparseRunOptions = Omit<BatchRunOptions, 'variantParams' | 'sinks'>;

/** What both plans say about the attention, besides the blocks. */
export interface SparsePlanOptions
  extends Omit<BatchPlanOptions, 'variant' | 'windowLeft' | 'headDimVo' | 'headDimQk'> {
  /** One of this and headDim, FlashInfer's name, is required. */
  headDimQk?: number;
  headDim?: number;
  /** Besides, row i sees only columns up to i + columns - rows. Default false. */
  causal?: boolean;
}

/** A mask as a block sparse row matrix (BSR). */
export interface BlockSparsePlanOptions extends SparsePlanOptions {
  /** int32 `[M / R + 1]`: row i of blocks has the blocks `indices[indptr[i] .. indptr[i + 1]]`. */
  indptr: HostIndices;
  /** int32 `[indptr[M / R]]`: columns of blocks, 0 to N / C - 1; none twice in a row. */
  indices: HostIndices;
  /** Query rows, and keys. */
  M: number;
  N: number;
  /** Rows and columns of a block; they divide M and N. */
  R: number;
  C: number;
  /** Bool `[blocks, R, C]` on the host: what is visible within each block, in the order of `indices`. Default: all. */
  mask?: Uint8Array | readonly boolean[];
  /**
   * Instead of mask: its little-endian bits, for each row of blocks `[R, blocks of the row * C]`, which starts on a byte
   * of its own.
   */
  packedMask?: Uint8Array;
}

/** A mask of blocks of different sizes, one for each key head. */
export interface VariableBlockSparsePlanOptions extends SparsePlanOptions {
  /** Bool `[numKvHeads, rows of blocks, columns of blocks]` on the host. */
  blockMaskMap: Uint8Array | readonly boolean[];
  /** int32 `[numKvHeads, rows of blocks]`: query rows of each; those of a head add up to the same number. */
  blockRowSz: HostIndices;
  /** int32 `[numKvHeads, columns of blocks]`: keys of each; those of a head add up to the same number. */
  blockColSz: HostIndices;
}
