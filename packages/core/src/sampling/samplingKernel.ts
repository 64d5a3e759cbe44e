// SPDX-License-Identifier: Apache-2.0
// The kernels of include/flashinfer/sampling.cuh: how a row is dealt to the warps of a cluster, and their specs.
import type { AotRequest } from '../jit/aotRequest.ts';
import { parseTarget } from '../jit/arch.ts';
import { namedSpec } from '../jit/namedSpec.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { cppType, type DType, dtypes } from '../tensor/dtype.ts';
import { heldModelSpec, heldSpecs } from './heldRows.ts';
import { samplingParams } from './samplingParams.ts';

export type SamplingKind = 'softmax' | 'sampleProbs' | 'sampleLogits' | 'renormProbs' | 'maskLogits';

interface KindOf {
  /** Of `Kind` in csrc/cpu/sampling/sampling.cc. */
  readonly code: number;
  readonly short: string;
  readonly entry: string;
  readonly input?: string;
  /** A cluster may take several rows. */
  readonly loops?: boolean;
}

export const samplingKinds: Record<SamplingKind, KindOf> = {
  softmax: { code: 0, short: 'softmax', entry: 'softmax' },
  sampleProbs: { code: 1, short: 'sample_probs', entry: 'sample', input: 'kProbs' },
  sampleLogits: { code: 2, short: 'sample_logits', entry: 'sample', input: 'kLogits' },
  renormProbs: { code: 3, short: 'renorm_probs', entry: 'renorm_probs', loops: true },
  maskLogits: { code: 4, short: 'mask_logits', entry: 'mask_logits', loops: true },
};

/** Bits of the kernels' `filters`. */
export const samplingFilters = { topK: 1, topP: 2, minP: 4, joint: 8 } as const;

/** Sums of more weights would not fit 64 bits. */
export const maxVocab = 2 ** 21;

const maxCluster = 8;
/** What a warp reads at once, elements. */
const step = 128;

/** The blocks of a kernel. Their rows fill a multiprocessor's shared memory together. */
interface BlockShape {
  readonly threads: number;
  readonly blocksPerSm: number;
  /** RowShared, or SelectShared, of include/flashinfer/sampling, bytes. */
  readonly fixedShared: number;
  /** Elements at the start of a warp's segment that it holds in registers: RowConfig::kHeld steps. */
  readonly heldElements: number;
  /** Clusters begin apart, and may take several rows where they select: RowConfig::kLoops. */
  readonly counts: boolean;
}

/**
 * Histograms and lists, which thresholds take, are there once a multiprocessor. With twice the threads registers spill,
 * and shared memory leaves the spills no cache.
 */
const selectingShape: BlockShape = {
  threads: 512,
  blocksPerSm: 1,
  fixedShared: 13_568,
  heldElements: 6 * step,
  counts: true,
};
/** One row loads while another is worked on. */
const plainShape: BlockShape = { threads: 256, blocksPerSm: 4, fixedShared: 512, heldElements: 3 * step, counts: true };
/** Without clusters a row has one block alone; and rows that no cluster holds want all warps that there are. */
const singleShape: BlockShape = {
  threads: 1024,
  blocksPerSm: 1,
  fixedShared: 1408,
  heldElements: 3 * step,
  counts: false,
};
const singleSelectingShape: BlockShape = { ...singleShape, fixedShared: 18_176 };

/** What the system takes of a block's shared memory, bytes. */
const systemShared = 1024;

export interface SamplingLimits {
  /** From sm_90 up. */
  readonly clusters: boolean;
  /** Most dynamic shared memory of one block, bytes. */
  readonly sharedPerBlock: number;
  readonly sharedPerSm: number;
  readonly numSms: number;
}

/** What a kernel is compiled for. */
interface KernelShape {
  readonly threads: number;
  readonly blocksPerSm: number;
  /** Thresholds are looked for. */
  readonly selects: boolean;
  /** The row stays on chip; else it is read again for every pass. */
  readonly keepsRow: boolean;
}

/** How one call runs. */
export interface SamplingPlan extends KernelShape {
  /** Blocks a row. */
  readonly cluster: number;
  /** As many as run at once, where that is known and less than rows; else one a row. */
  readonly clustersAtOnce: number;
  /** Elements a warp. */
  readonly segment: number;
  readonly sharedBytes: number;
}

/**
 * A row lies in as few blocks as hold it; in more of them, of fewer elements each, while the rows leave multiprocessors
 * idle. Where not even the largest cluster holds it, it comes from the L2 cache.
 * LIMIT: clusters do not cross the processor groups of a GPU, which leave some multiprocessors over: on H200, 16 clusters
 * of 8 take two turns on 132.
 */
export function planSampling(vocab: number, rows: number, selects: boolean, limits: SamplingLimits): SamplingPlan {
  const shape = selects ? selectingShape : plainShape;
  const plan = limits.clusters ? planShape(vocab, rows, selects, limits, shape) : undefined;
  if (plan !== undefined && (plan.keepsRow || !selects)) return plan;
  return planShape(vocab, rows, selects, limits, selects ? singleSelectingShape : singleShape);
}

function planShape(
  vocab: number,
  rows: number,
  selects: boolean,
  { clusters, sharedPerBlock, sharedPerSm, numSms }: SamplingLimits,
  { threads, blocksPerSm, fixedShared, heldElements, counts }: BlockShape,
): SamplingPlan {
  const room = Math.min(sharedPerBlock, Math.floor(sharedPerSm / blocksPerSm) - systemShared);
  let cluster = 1;
  const segment = () => Math.max(heldElements, step * Math.ceil((vocab * 32) / (step * threads * cluster)));
  const needed = () => fixedShared + ((segment() - heldElements) * threads) / 8;
  while (clusters && cluster < maxCluster && needed() > room) cluster *= 2;
  const splits = () => segment() > heldElements && 2 * cluster * rows <= 0.9 * numSms;
  while (clusters && cluster < maxCluster && splits()) cluster *= 2;
  const keepsRow = needed() <= sharedPerBlock;
  const perSm = Math.min(blocksPerSm, Math.floor(sharedPerSm / (needed() + systemShared)));
  // LIMIT: clusters of more multiprocessors leave some over, so that how many run at once is not known here.
  const atOnce = counts && keepsRow && cluster <= 2 * blocksPerSm ? Math.floor((numSms * perSm) / cluster) : rows;
  return {
    threads,
    blocksPerSm,
    selects,
    keepsRow,
    cluster,
    clustersAtOnce: Math.min(rows, atOnce),
    segment: segment(),
    sharedBytes: keepsRow ? needed() : fixedShared,
  };
}

/**
 * Cycles by which a cluster begins behind the one before, where rows are more than clusters that run at once. In all up to
 * half a cycle for an element of a block, some half of a row's time, or a quarter where blocks select and write nothing: on H200
 * within 3 % of the best at 128 to 512 rows of 128256.
 */
export function staggerOf(kind: SamplingKind, rows: number, plan: SamplingPlan): number {
  const { threads, segment, selects, clustersAtOnce } = plan;
  if (rows <= clustersAtOnce) return 0;
  const most = samplingKinds[kind].loops || !selects ? 1 / 2 : 1 / 4;
  const cycles = Math.min(most, rows / ((selects ? 10 : 5) * clustersAtOnce));
  return Math.floor((cycles * segment * threads) / (32 * clustersAtOnce));
}

/** The same object for the same arguments: kernels are looked up by it. `vec` is 4 or 1. */
export function samplingSpec(kind: SamplingKind, dtype: DType, vec: number, shape: KernelShape): KernelSpec {
  const { short: kindShort, entry, input } = samplingKinds[kind];
  return specOf(`${kindShort}_${dtypes[dtype].short}_v${vec}`, shape, samplingParams, () => {
    const config = configOf(dtype, vec, shape, false);
    return `${entry}<${input === undefined ? config : `${config}, flashinfer::RowInput::${input}`}>`;
  });
}

function specOf(stem: string, shape: KernelShape, fields: readonly ParamField[], entry: () => string): KernelSpec {
  const { threads, blocksPerSm, selects, keepsRow } = shape;
  const name = `${stem}${selects ? '' : '_plain'}_t${threads}${keepsRow ? '' : '_l2'}`;
  const header = 'flashinfer/sampling.cuh';
  return namedSpec(name, () => ({
    name,
    header,
    entry: `flashinfer::${entry()}`,
    params: fields,
    threads,
    minBlocksPerSm: blocksPerSm,
  }));
}

function configOf(dtype: DType, vec: number, shape: KernelShape, difference: boolean): string {
  const { threads, selects, keepsRow } = shape;
  return `flashinfer::RowConfig<${cppType(dtype)}, ${vec}, ${keepsRow}, ${threads}, ${selects}, ${difference}>`;
}

const chainParams: readonly ParamField[] = [
  { name: 'draft', type: 'ptr' },
  { name: 'target', type: 'ptr' },
  { name: 'ids', type: 'ptr' },
  { name: 'out', type: 'ptr' },
  { name: 'accepted', type: 'ptr' },
  { name: 'emitted', type: 'ptr' },
  { name: 'seed', type: 'ptr' },
  { name: 'offset', type: 'ptr' },
  { name: 'seed_value', type: 'u64' },
  { name: 'offset_value', type: 'u64' },
  { name: 'seed_per_row', type: 'i32' },
  { name: 'offset_per_row', type: 'i32' },
  { name: 'drafted', type: 'i32' },
  { name: 'vocab', type: 'i32' },
  { name: 'segment', type: 'i32' },
];

/** As samplingSpec. */
export function chainSpec(dtype: DType, vec: number, shape: KernelShape): KernelSpec {
  return specOf(`chain_speculative_${dtypes[dtype].short}_v${vec}`, shape, chainParams, () => {
    return `chain_speculative<${configOf(dtype, vec, shape, true)}>`;
  });
}

/** Every kind, and every dtype and way to read a row at least once, for prebuilt kernels and compile checks. */
export function samplingSpecs(): KernelSpec[] {
  const kernelShape = ({ threads, blocksPerSm }: BlockShape, selects: boolean): KernelShape => {
    return { threads, blocksPerSm, selects, keepsRow: true };
  };
  const selecting = kernelShape(selectingShape, true);
  const singleSelecting = kernelShape(singleSelectingShape, true);
  const plain = kernelShape(plainShape, false);
  const single = kernelShape(singleShape, false);
  const both = (shape: KernelShape) => [shape, { ...shape, keepsRow: false }];
  return [
    ...heldSpecs(),
    ...(['sampleProbs', 'sampleLogits', 'renormProbs', 'maskLogits'] as const).flatMap((kind) =>
      [selecting, ...both(singleSelecting)].map((shape) => samplingSpec(kind, 'float32', 4, shape)),
    ),
    ...(['softmax', 'sampleProbs', 'sampleLogits'] as const).flatMap((kind) =>
      [...both(plain), ...both(single)].map((shape) => samplingSpec(kind, 'float32', 4, shape)),
    ),
    ...[...both(plain), ...both(single)].map((shape) => chainSpec('float32', 4, shape)),
    chainSpec('float32', 1, plain),
    chainSpec('bfloat16', 4, plain),
    chainSpec('float16', 4, plain),
    samplingSpec('sampleProbs', 'float32', 1, selecting),
    samplingSpec('renormProbs', 'float32', 1, { ...singleSelecting, keepsRow: false }),
    samplingSpec('softmax', 'bfloat16', 4, plain),
    samplingSpec('maskLogits', 'float16', 4, selecting),
    samplingSpec('maskLogits', 'bfloat16', 1, selecting),
  ];
}

const listed = (spec: KernelSpec | undefined): KernelSpec[] => (spec === undefined ? [] : [spec]);

/** Rows of a model's vocabulary: logits in float32 and the model's type, probabilities as softmax gives them. */
export function samplingModelSpecs({ models, dtypes: modelDtypes, target, sharedPerBlock }: AotRequest): KernelSpec[] {
  const sharedPerSm = sharedPerBlock + systemShared;
  const limits = { clusters: parseTarget(target).sm >= 90, sharedPerBlock, sharedPerSm, numSms: 132 };
  const vocabs = [...new Set(models.map(({ vocab }) => vocab))];
  return vocabs.flatMap((vocab) => {
    const selecting = planSampling(vocab, 1, true, limits);
    const plain = planSampling(vocab, 1, false, limits);
    return [
      ...(['float32', ...modelDtypes] as const).flatMap((dtype) => [
        heldModelSpec('softmax', dtype, vocab, target) ?? samplingSpec('softmax', dtype, 4, plain),
        ...listed(heldModelSpec('sampleLogits', dtype, vocab, target)),
        samplingSpec('sampleLogits', dtype, 4, plain),
        samplingSpec('sampleLogits', dtype, 4, selecting),
        samplingSpec('maskLogits', dtype, 4, selecting),
      ]),
      ...listed(heldModelSpec('sampleProbs', 'float32', vocab, target)),
      samplingSpec('sampleProbs', 'float32', 4, plain),
      samplingSpec('sampleProbs', 'float32', 4, selecting),
      samplingSpec('renormProbs', 'float32', 4, selecting),
      chainSpec('float32', 4, plain),
    ];
  });
}
