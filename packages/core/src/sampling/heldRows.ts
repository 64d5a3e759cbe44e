// SPDX-License-Identifier: Apache-2.0
// Rows that clusters hold in registers, include/flashinfer/sampling/held_group.cuh: how many blocks a row has, the kernels'
// specs, and their launch.
import { parseTarget, type Target } from '../jit/arch.ts';
import { getKernel, type Kernel, type KernelArgs } from '../jit/kernel.ts';
import { namedSpec } from '../jit/namedSpec.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { smArch } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { cppType, type DType, dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { samplingParams } from './samplingParams.ts';

/** Template arguments of HeldRowConfig. */
export interface HeldPlan {
  /** Blocks a row. */
  readonly cluster: number;
  /** Of four elements a thread. */
  readonly accesses: number;
}

/** With 512, 128 rows of 128256 take 39.8 us in place of 35.8 (H200): fewer clusters of 16 find room at once. */
const threads = 256;
/** Elements of a block for each access of its threads. */
const step = 4 * threads;
/** What registers hold without spills. */
const maxAccesses = 16;
/** Fewer give one row more blocks, but more rows more messages (H200, 4096 rows of 4096: 38.2 us with 4, 51.0 with 1). */
const wantedAccesses = 4;

/** What every GPU with clusters runs. */
const portableCluster = 8;
/** What Hopper and the data center's Blackwell have room for in a group of processors. */
const largestCluster = (sm: number): number => (sm < 90 ? 0 : sm < 110 ? 16 : portableCluster);

/** Undefined where a row is too long, or there are no clusters: `maxCluster` is 0. */
export function planHeldRow(vocab: number, maxCluster: number): HeldPlan | undefined {
  if (vocab > maxCluster * step * maxAccesses) return undefined;
  let cluster = 1;
  while (cluster < maxCluster && vocab > cluster * step * wantedAccesses) cluster *= 2;
  return { cluster, accesses: Math.ceil(vocab / (cluster * step)) };
}

/**
 * Many rows of probabilities go through the kernels whose clusters keep a row in shared memory: there more bytes are on the way
 * at once. H200, float32, in graphs, for 256, 512 and 1024 rows: vocabulary 128256 43.4 for 43.7, 78.4 for 83.1, 151 for 162 us;
 * 32000 12.2 for 14.3, 23.3 for 27.0, 38.5 for 50.3; but 151936 50.9 for 48.9, 94.1 for 92.3, 182 for 179. With logits, whose
 * weights are powers, 512 rows take 100 for 88.
 */
export function servesHeldRows(kind: HeldKind, rows: number, { cluster, accesses }: HeldPlan): boolean {
  return kind !== 'sampleProbs' || rows < 256 || cluster < 8 || accesses > 8;
}

export type HeldKind = 'softmax' | 'sampleProbs' | 'sampleLogits';

const softmaxParams: readonly ParamField[] = [
  { name: 'x', type: 'ptr' },
  { name: 'out', type: 'ptr' },
  { name: 'temperature', type: 'ptr' },
  { name: 'x_stride', type: 'i64' },
  { name: 'vocab', type: 'i32' },
  { name: 'temperature_value', type: 'f32' },
];

const heldKinds: Record<HeldKind, { stem: string; input?: string; params: readonly ParamField[] }> = {
  softmax: { stem: 'held_softmax', params: softmaxParams },
  sampleProbs: { stem: 'held_sample', input: 'kProbs', params: samplingParams },
  sampleLogits: { stem: 'held_sample', input: 'kLogits', params: samplingParams },
};

/** The same object for the same arguments: kernels are looked up by it. */
export function heldSpec(kind: HeldKind, dtype: DType, { cluster, accesses }: HeldPlan): KernelSpec {
  const { stem, input, params } = heldKinds[kind];
  const source = input === undefined ? '' : kind === 'sampleProbs' ? '_probs' : '_logits';
  const name = `${stem}${source}_${dtypes[dtype].short}_c${cluster}_a${accesses}`;
  return namedSpec(name, () => {
    const config = `flashinfer::HeldRowConfig<${cppType(dtype)}, ${threads}, ${cluster}, ${accesses}>`;
    const entry = `flashinfer::${stem}<${input === undefined ? config : `${config}, flashinfer::RowInput::${input}`}>`;
    return { name, header: `flashinfer/sampling/${stem}.cuh`, entry, params, threads, minArch: 90 };
  });
}

/** Runs `rows` checked rows of x, whose elements can be read four at a time; false where others are for them. */
export function runHeldRows(kind: HeldKind, x: Tensor, rows: number, args: () => KernelArgs): boolean {
  const { deviceIndex } = x;
  const chosen = chooseKernel(kind, x, rows);
  if (chosen === undefined) return false;
  const { kernel, cluster } = chosen;
  const stream = currentStream(deviceIndex);
  const pdl = usesDependentLaunch(deviceIndex, undefined);
  kernel.launch([rows * cluster, 1, 1], args(), { stream, pdl, cluster: cluster > 1 ? cluster : 0 });
  return true;
}

function chooseKernel(kind: HeldKind, x: Tensor, rows: number): { kernel: Kernel; cluster: number } | undefined {
  const { deviceIndex } = x;
  const most = largestCluster(smArch(deviceIndex));
  // LIMIT: a slice of a GPU may have no group of processors that large; then 8 blocks hold a row, or none do.
  for (const maxCluster of most > portableCluster ? [most, portableCluster] : [most]) {
    const plan = planHeldRow(x.shape[1]!, maxCluster);
    if (plan === undefined || !servesHeldRows(kind, rows, plan)) return undefined;
    const { cluster } = plan;
    const kernel = getKernel(heldSpec(kind, x.dtype, plan), deviceIndex);
    if (cluster <= portableCluster || runsClusters(kernel, cluster)) return { kernel, cluster };
  }
  return undefined;
}

const known = new WeakMap<Kernel, boolean>();

/** A kernel has one size of clusters. */
function runsClusters(kernel: Kernel, cluster: number): boolean {
  let runs = known.get(kernel);
  if (runs === undefined) {
    runs = kernel.clusters(cluster) > 0;
    known.set(kernel, runs);
  }
  return runs;
}

/** Every kind and dtype, and a cluster of every kind at least once, for compile checks. */
export function heldSpecs(): KernelSpec[] {
  return [
    heldSpec('softmax', 'float32', { cluster: 16, accesses: 8 }),
    heldSpec('softmax', 'float32', { cluster: 16, accesses: 16 }),
    heldSpec('softmax', 'bfloat16', { cluster: 8, accesses: 16 }),
    heldSpec('softmax', 'float16', { cluster: 1, accesses: 1 }),
    heldSpec('sampleProbs', 'float32', { cluster: 16, accesses: 16 }),
    heldSpec('sampleLogits', 'float32', { cluster: 16, accesses: 16 }),
    heldSpec('sampleLogits', 'bfloat16', { cluster: 8, accesses: 8 }),
    heldSpec('sampleProbs', 'float16', { cluster: 1, accesses: 1 }),
  ];
}

/** Of rows of a model's vocabulary; undefined where they are not for these kernels. */
export function heldModelSpec(kind: HeldKind, dtype: DType, vocab: number, target: Target): KernelSpec | undefined {
  const plan = planHeldRow(vocab, largestCluster(parseTarget(target).sm));
  return plan === undefined ? undefined : heldSpec(kind, dtype, plan);
}
