// SPDX-License-Identifier: Apache-2.0
// The kernels of include/flashinfer/sampling.cuh: how a row is dealt to the warps of a cluster, and their specs.
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { type DType, dtypes } from '../tensor/dtype.ts';

export type SamplingKind = 'softmax' | 'sampleProbs' | 'sampleLogits' | 'renormProbs' | 'maskLogits';

interface KindOf {
  /** Of `Kind` in csrc/cpu/sampling/sampling.cc. */
  readonly code: number;
  readonly short: string;
  readonly entry: string;
  readonly input?: string;
}

export const samplingKinds: Record<SamplingKind, KindOf> = {
  softmax: { code: 0, short: 'softmax', entry: 'softmax' },
  sampleProbs: { code: 1, short: 'sample_probs', entry: 'sample', input: 'kProbs' },
  sampleLogits: { code: 2, short: 'sample_logits', entry: 'sample', input: 'kLogits' },
  renormProbs: { code: 3, short: 'renorm_probs', entry: 'renorm_probs' },
  maskLogits: { code: 4, short: 'mask_logits', entry: 'mask_logits' },
};

/** Bits of the kernels' `filters`. */
export const samplingFilters = { topK: 1, topP: 2, minP: 4, joint: 8 } as const;

/** Sums of more weights would not fit 64 bits. */
export const maxVocab = 2 ** 21;

const threads = 1024;
const warps = threads / 32;
/** RowShared of include/flashinfer/sampling/row_group.cuh, bytes. */
const fixedShared = 18_848;
const maxCluster = 8;
/** What a warp reads at once, elements. */
const step = 128;
/** Elements at the start of a warp's segment that it holds in registers: RowConfig::kHeld steps. */
const heldElements = 3 * step;

export interface SamplingLimits {
  /** From sm_90 up. */
  readonly clusters: boolean;
  /** Most dynamic shared memory of one block, bytes. */
  readonly sharedPerBlock: number;
  readonly numSms: number;
}

/** How one call runs. */
export interface SamplingPlan {
  /** Blocks a row. */
  readonly cluster: number;
  /** Elements a warp. */
  readonly segment: number;
  /** The row stays on chip; else it is read again for every pass. */
  readonly keepsRow: boolean;
  readonly sharedBytes: number;
  /** The row that comes next where a row has been worked on is this far behind it: it is read ahead. */
  readonly ahead: number;
}

/**
 * A row lies in as few blocks as hold it; in more of them, of fewer elements each, while the rows leave multiprocessors
 * idle. Where not even the largest cluster holds it, it comes from the L2 cache. LIMIT: clusters do not cross the
 * processor groups of a GPU, which leave some multiprocessors over: on H200, 16 clusters of 8 take two turns on 132.
 */
export function planSampling(vocab: number, rows: number, limits: SamplingLimits): SamplingPlan {
  const { clusters, sharedPerBlock, numSms } = limits;
  const fits = (cluster: number) => sharedOf(segmentOf(vocab, cluster)) <= sharedPerBlock;
  let cluster = 1;
  while (clusters && cluster < maxCluster && !fits(cluster)) cluster *= 2;
  const keepsRow = fits(cluster);
  const splits = () => segmentOf(vocab, cluster) > heldElements && 2 * cluster * rows <= 0.9 * numSms;
  while (clusters && cluster < maxCluster && splits()) cluster *= 2;
  const segment = segmentOf(vocab, cluster);
  const sharedBytes = keepsRow ? sharedOf(segment) : fixedShared;
  return { cluster, segment, keepsRow, sharedBytes, ahead: Math.max(1, Math.floor(numSms / cluster)) };
}

function segmentOf(vocab: number, cluster: number): number {
  return Math.max(heldElements, step * Math.ceil(vocab / (step * warps * cluster)));
}

function sharedOf(segment: number): number {
  return fixedShared + (segment - heldElements) * warps * 4;
}

const params: readonly ParamField[] = [
  { name: 'x', type: 'ptr' },
  { name: 'out', type: 'ptr' },
  { name: 'indices', type: 'ptr' },
  { name: 'temperature', type: 'ptr' },
  { name: 'top_k', type: 'ptr' },
  { name: 'top_p', type: 'ptr' },
  { name: 'min_p', type: 'ptr' },
  { name: 'seed', type: 'ptr' },
  { name: 'offset', type: 'ptr' },
  { name: 'x_stride', type: 'i64' },
  { name: 'seed_value', type: 'u64' },
  { name: 'offset_value', type: 'u64' },
  { name: 'rows', type: 'i32' },
  { name: 'vocab', type: 'i32' },
  { name: 'segment', type: 'i32' },
  { name: 'ahead', type: 'i32' },
  { name: 'filters', type: 'i32' },
  { name: 'temperature_value', type: 'f32' },
  { name: 'top_k_value', type: 'i32' },
  { name: 'top_p_value', type: 'f32' },
  { name: 'min_p_value', type: 'f32' },
  { name: 'seed_per_row', type: 'i32' },
  { name: 'offset_per_row', type: 'i32' },
];

const specs = new Map<string, KernelSpec>();

/** The same object for the same arguments: kernels are looked up by it. `vec` is 4 or 1. */
export function samplingSpec(kind: SamplingKind, dtype: DType, vec: number, keepsRow: boolean): KernelSpec {
  const { short, cpp } = dtypes[dtype];
  const { short: kindShort, entry, input } = samplingKinds[kind];
  const name = `${kindShort}_${short}_v${vec}${keepsRow ? '' : '_l2'}`;
  let spec = specs.get(name);
  if (spec === undefined) {
    const type = cpp === 'float' ? cpp : `flashinfer::${cpp}`;
    const config = `flashinfer::RowConfig<${type}, ${vec}, ${keepsRow}, ${threads}>`;
    const template = input === undefined ? config : `${config}, flashinfer::RowInput::${input}`;
    spec = {
      name,
      header: 'flashinfer/sampling.cuh',
      entry: `flashinfer::${entry}<${template}>`,
      params,
      threads,
    };
    specs.set(name, spec);
  }
  return spec;
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
export function chainSpec(vec: number, keepsRow: boolean): KernelSpec {
  const name = `chain_speculative_f32_v${vec}${keepsRow ? '' : '_l2'}`;
  let spec = specs.get(name);
  if (spec === undefined) {
    spec = {
      name,
      header: 'flashinfer/sampling.cuh',
      entry: `flashinfer::chain_speculative<flashinfer::RowConfig<float, ${vec}, ${keepsRow}, ${threads}, true>>`,
      params: chainParams,
      threads,
    };
    specs.set(name, spec);
  }
  return spec;
}

/** Every kind, and every dtype and way to read a row at least once, for prebuilt kernels and compile checks. */
export function samplingSpecs(): KernelSpec[] {
  const kinds = Object.keys(samplingKinds) as SamplingKind[];
  return [
    ...kinds.flatMap((kind) => [samplingSpec(kind, 'float32', 4, true), samplingSpec(kind, 'float32', 4, false)]),
    chainSpec(4, true),
    chainSpec(4, false),
    chainSpec(1, true),
    samplingSpec('sampleProbs', 'float32', 1, true),
    samplingSpec('renormProbs', 'float32', 1, false),
    samplingSpec('softmax', 'bfloat16', 4, true),
    samplingSpec('maskLogits', 'float16', 4, true),
    samplingSpec('maskLogits', 'bfloat16', 1, true),
  ];
}
