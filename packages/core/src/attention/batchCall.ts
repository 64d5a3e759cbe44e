// SPDX-License-Identifier: Apache-2.0
// What a batch wrapper's plan leaves for its runs, and what a run adds to it.
import type { KernelSpec } from '../jit/spec.ts';
import type { DType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import type { ArrangedPages } from './arrangePages.ts';
import type { BatchRequests, BatchShape } from './batchPlan.ts';
import type { HeadScales } from './headScales.ts';
import type { HopperKv, HopperRows } from './hopperKernel.ts';
import type { AttentionNumbers } from './options.ts';
import type { KvView } from './pagedKvCache.ts';
import type { MaskMode } from './request.ts';
import type { VariantArgs } from './variantArgs.ts';

/** The attention of a plan, checked. */
export interface PlannedAttention extends AttentionNumbers {
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  /** Of q and k; headDimVoOf it v and the output. */
  readonly headDim: number;
  readonly qDtype: DType;
  readonly kvDtype: DType;
  readonly outDtype: DType;
  readonly maskMode: MaskMode;
  /** 0 for ragged keys. */
  readonly pageSize: number;
}

/** The kernel side of a plan; absent on cpu. */
export interface PlannedKernels {
  readonly spec: KernelSpec;
  readonly mergeSpec: KernelSpec | undefined;
  readonly sharedBytes: number;
  readonly shape: BatchShape;
  /** Where the kernel is the fa3 template's. */
  readonly hopper?: HopperLaunch;
  /** What copies its keys and values out of their pages before it. */
  readonly arranged?: ArrangedPages | undefined;
  /** What transposes float8 values before it. */
  readonly fp8Values?: Fp8ValuesLaunch;
}

/** What the fa3 template's launches need to know of its tile. */
export interface HopperLaunch {
  readonly kv: HopperKv;
  readonly kvTile: number;
  readonly rows: HopperRows;
  /** Whether the kernel stores by a map of the output. */
  readonly stagesOutput: boolean;
  readonly headSection: number;
}

export interface Fp8ValuesLaunch {
  readonly spec: KernelSpec;
  /** Most requests of any plan whose arguments these are. */
  readonly requests: number;
  /** Keys of all of them together; undefined: as many as the tensor of a run has. */
  readonly keys: number | undefined;
}

export interface Planned {
  readonly attention: PlannedAttention;
  readonly requests: BatchRequests;
  readonly numTokens: number;
  /** Pages the cache must have, or rows of ragged keys. */
  readonly kvExtent: number;
  readonly kernels: PlannedKernels | undefined;
  /** Of the grids; in graph mode those of any plan within the maxima. */
  readonly numItems: number;
  readonly numMergeItems: number;
  readonly layout: BufferLayout;
}

/** Where the parts of the plan buffer begin, in int32 words, and the grid that reads them. */
export interface BufferLayout {
  readonly items: number;
  readonly mergeItems: number;
  readonly records: number;
  readonly pages: number;
  readonly words: number;
  /** Rows of partial states, and counters, to reserve. */
  readonly partialRows: number;
  readonly counters: number;
}

/** Both halves of the keys and values of a call, and the tensors they are in. */
export interface ReadKv {
  readonly k: KvView;
  readonly v: KvView;
  readonly tensors: Record<string, Tensor>;
}

export interface BatchCall {
  readonly planned: Planned;
  readonly numbers: Pick<AttentionNumbers, 'smScale' | 'vScale' | 'lseFactor'>;
  readonly q: Tensor;
  readonly kv: ReadKv;
  readonly out: Tensor;
  readonly lse: Tensor | undefined;
  /** Packed custom masks where the plan's maskMode is `custom`. */
  readonly customMask: number;
  /** float32 `[numQoHeads]`. */
  readonly sinks: Tensor | undefined;
  readonly headScales: HeadScales | undefined;
  /** The caller's scratch; by default the stream's own. */
  readonly workspace: Tensor | undefined;
  readonly variantArgs: VariantArgs;
}
