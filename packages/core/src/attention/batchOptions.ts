// SPDX-License-Identifier: Apache-2.0
// Options of the batch attention wrappers.
import type { DType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { BatchMaskOptions } from './batchMask.ts';
import type { HostIndices } from './hostArray.ts';
import type { AttentionBackend, KvLayout, PosEncodingMode } from './options.ts';
import type { AttentionVariant } from './variant.ts';
import type { VariantParams } from './variantArgs.ts';

/** Options of a batch wrapper's constructor. */
export interface BatchWrapperOptions {
  /** Layout of a page or of ragged k and v. Default `'NHD'`. */
  kvLayout?: KvLayout;
  /** Default `'auto'`. */
  backend?: AttentionBackend;
  /** Where the wrapper runs. Default: the default device. */
  device?: string;
  /**
   * Keeps every address and the grid the same from plan to plan, so that a captured `run()` replays correctly after a
   * new `plan()`. Needs the maxima below. Default false.
   */
  useCudaGraph?: boolean;
  /** Most requests of a plan; required with useCudaGraph. */
  maxBatchSize?: number;
  /** Most entries of `pagedKvIndices`; required with useCudaGraph by the paged wrappers. */
  maxNumPages?: number;
  /** Most query tokens of a plan, all requests together; required with useCudaGraph by the prefill wrappers. Default maxBatchSize. */
  maxNumTokens?: number;
  /**
   * Most bytes of a plan's packed custom masks, the sum of `ceil(qoLen * kvLen / 8)` over its requests; with useCudaGraph
   * needed for plans with a custom mask. Default 0.
   */
  maxCustomMaskBytes?: number;
  /**
   * Scratch for `run()`, contiguous, on the wrapper's device, at least `workspaceSize()` bytes after each plan; not to be
   * used by anything else meanwhile. Default: memory that the library owns, one a stream, as large as any plan needed it:
   * on Hopper, prefill of long prompts copies their pages into at most 128 MiB of it.
   */
  workspace?: Tensor;
}

/** What constructors of batch wrappers know. */
export const wrapperOptionNames: readonly (keyof BatchWrapperOptions)[] = [
  'kvLayout',
  'backend',
  'device',
  'useCudaGraph',
  'maxBatchSize',
  'maxNumPages',
  'maxNumTokens',
  'maxCustomMaskBytes',
  'workspace',
];

/** Options of the decode wrapper's constructor. */
export interface BatchDecodeWrapperOptions extends BatchWrapperOptions {
  /**
   * FlashInfer's name for the choice between its two decode kernels; here both use tensor cores. `false`: the decode
   * template, which packs the query rows of a KV head into tiles of 16 and is bound by reading K and V. `true`: the fa2
   * prefill template, with tiles of 64 or 128 rows. Without effect on cpu and with backend `'fa3'`. Default: the decode
   * template up to 16 rows (qLenPerReq × numQoHeads / numKvHeads), else the prefill template.
   */
  useTensorCores?: boolean;
}

export const decodeWrapperOptionNames: readonly (keyof BatchDecodeWrapperOptions)[] = [
  ...wrapperOptionNames,
  'useTensorCores',
];

/** What every plan says about the attention, besides the lengths. */
export interface BatchPlanOptions {
  numQoHeads: number;
  numKvHeads: number;
  /** Of q and k: 64, 128, 192 or 256. */
  headDimQk: number;
  /** Of v and the output: headDimQk, which is the default, or 128 with headDimQk 192. */
  headDimVo?: number;
  posEncodingMode?: PosEncodingMode;
  /** Tokens left of a query's own position that stay visible. Default -1: all. */
  windowLeft?: number;
  /** Default 0: off. */
  logitsSoftCap?: number;
  /** Default `1 / sqrt(headDimQk)`. */
  smScale?: number;
  ropeScale?: number;
  ropeTheta?: number;
  /** dtype of q and of the output. Prefill also takes `'float8_e4m3fn'`, with outDtype. Default `'float16'`. */
  qDtype?: DType;
  /** Default qDtype. */
  kvDtype?: DType;
  /** A custom variant, from `defineAttentionVariant`; its params come with each `run()`. Default: none. */
  variant?: AttentionVariant;
  /**
   * Keys a split, not pages as FlashInfer's `fixed_split_size`: pass its value times pageSize. With it, or with
   * disableSplitKv, a request's result has the same bits in every batch. Default: chosen to fill the GPU.
   */
  fixedSplitSize?: number;
  /** Default false. */
  disableSplitKv?: boolean;
}

/** All but `variant`. */
export const batchPlanNames = [
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
] as const satisfies readonly (keyof BatchPlanOptions)[];

/** A page table on the host: request i has pages `pagedKvIndices[pagedKvIndptr[i] .. pagedKvIndptr[i + 1]]`. */
export interface PageTable {
  /** int32 `[batchSize + 1]`. */
  pagedKvIndptr: HostIndices;
  /** int32 `[pagedKvIndptr[batchSize]]`, page ids. */
  pagedKvIndices: HostIndices;
  /** int32 `[batchSize]`: tokens in each request's last page, 1 to pageSize (a request without pages: ignored). */
  pagedKvLastPageLen: HostIndices;
  /** Tokens a page, from 1 up. */
  pageSize: number;
}

export interface BatchDecodePlanOptions extends BatchPlanOptions, PageTable {
  /**
   * Query tokens of every request, as in speculative decoding: the last tokens of its keys, each of which sees the keys up
   * to its own. With useCudaGraph the wrapper then needs maxNumTokens, and all plans the same value. Default 1.
   */
  qLenPerReq?: number;
}

export interface QueryRows extends BatchMaskOptions {
  /** int32 `[batchSize + 1]`: request i has query rows `qoIndptr[i] .. qoIndptr[i + 1]`. */
  qoIndptr: HostIndices;
  /** Query row i of a request sees its keys up to i + kvLen - qoLen. Default false. */
  causal?: boolean;
}

/** Float8 queries, with keys and values of the same type: on the cpu device, and on Hopper GPUs with headDim 128 or 256. */
export interface Float8Queries {
  /** With qDtype `'float8_e4m3fn'`: dtype of the output. Default `'float16'`. */
  outDtype?: 'float16' | 'bfloat16';
}

export type BatchPrefillPagedPlanOptions = BatchPlanOptions & PageTable & QueryRows & Float8Queries;

export type BatchPrefillRaggedPlanOptions = BatchPlanOptions &
  QueryRows &
  Float8Queries & {
    /** int32 `[batchSize + 1]`: request i has rows `kvIndptr[i] .. kvIndptr[i + 1]` of k and v. */
    kvIndptr: HostIndices;
  };

/** Options of a wrapper's `run()`. */
export interface BatchRunOptions {
  /** Shape as q, with headDimVo; dtype of q, or the planned outDtype; may be strided. Default: a new tensor. */
  out?: Tensor;
  /** float32 `[numTokens, numQoHeads]`, contiguous; where to write the lse with returnLse. Default: a new tensor. */
  lse?: Tensor;
  /** Default false. */
  returnLse?: boolean;
  /** Default `'2'`. */
  lseBase?: '2' | 'e';
  /**
   * float32 `[numQoHeads]`: the sink of each head, one more logit (natural, after smScale) without a value that joins the
   * softmax of every row. The lse includes it; a row that sees no key gets output 0 and the sink as its lse. Default: none.
   */
  sinks?: Tensor;
  /**
   * Calibration scales, folded into smScale (q, k) and multiplied to the output (v); with float8 q also float32 tensors,
   * q `[numQoHeads]`, k and v `[numKvHeads]`. Default 1.
   */
  qScale?: number | Tensor;
  kScale?: number | Tensor;
  vScale?: number | Tensor;
  /** Values of the params of the planned variant, by name. */
  variantParams?: VariantParams;
}

/** A paged KV-cache: one tensor with k and v at index 0 and 1 of dimension 1, or two of them without that dimension. */
export type PagedKVCache = Tensor | readonly [Tensor, Tensor];
