// SPDX-License-Identifier: Apache-2.0
// The kernel of include/flashinfer/sampling/held_softmax.cuh: how many blocks hold a row, its specs, and its launch.
import { parseTarget, type Target } from '../jit/arch.ts';
import { getKernel, type Kernel } from '../jit/kernel.ts';
import { namedSpec } from '../jit/namedSpec.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { usesDependentLaunch } from '../runtime/dependentLaunch.ts';
import { smArch } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { cppType, type DType, dtypes } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { vectorWidth } from '../tensor/vectorWidth.ts';

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
export function planHeldSoftmax(vocab: number, maxCluster: number): HeldPlan | undefined {
  if (vocab > maxCluster * step * maxAccesses) return undefined;
  let cluster = 1;
  while (cluster < maxCluster && vocab > cluster * step * wantedAccesses) cluster *= 2;
  return { cluster, accesses: Math.ceil(vocab / (cluster * step)) };
}

const params: readonly ParamField[] = [
  { name: 'x', type: 'ptr' },
  { name: 'out', type: 'ptr' },
  { name: 'temperature', type: 'ptr' },
  { name: 'x_stride', type: 'i64' },
  { name: 'vocab', type: 'i32' },
  { name: 'temperature_value', type: 'f32' },
];

/** The same object for the same arguments: kernels are looked up by it. */
export function heldSoftmaxSpec(dtype: DType, { cluster, accesses }: HeldPlan): KernelSpec {
  const name = `held_softmax_${dtypes[dtype].short}_c${cluster}_a${accesses}`;
  return namedSpec(name, () => ({
    name,
    header: 'flashinfer/sampling/held_softmax.cuh',
    entry: `flashinfer::held_softmax<flashinfer::HeldRowConfig<${cppType(dtype)}, ${threads}, ${cluster}, ${accesses}>>`,
    params,
    threads,
    minArch: 90,
  }));
}

/** Runs checked rows; false where they are not for this kernel. */
export function runHeldSoftmax(logits: Tensor, out: Tensor, temperature: number | Tensor): boolean {
  const { deviceIndex } = logits;
  const [rows, vocab] = logits.shape as [number, number];
  if (deviceIndex < 0 || rows === 0 || vectorWidth(vocab, [logits, out]) < 4) return false;
  const chosen = chooseKernel(logits.dtype, vocab, deviceIndex);
  if (chosen === undefined) return false;
  const { kernel, cluster } = chosen;
  const args = {
    x: logits.ptr,
    out: out.ptr,
    temperature: temperature instanceof Tensor ? temperature.ptr : 0,
    x_stride: logits.strides[0]!,
    vocab,
    temperature_value: temperature instanceof Tensor ? 1 : temperature,
  };
  const stream = currentStream(deviceIndex);
  const pdl = usesDependentLaunch(deviceIndex, undefined);
  kernel.launch([rows * cluster, 1, 1], args, { stream, pdl, cluster: cluster > 1 ? cluster : 0 });
  return true;
}

function chooseKernel(
  dtype: DType,
  vocab: number,
  deviceIndex: number,
): { kernel: Kernel; cluster: number } | undefined {
  const most = largestCluster(smArch(deviceIndex));
  // LIMIT: a slice of a GPU may have no group of processors that large; then 8 blocks hold a row, or none do.
  for (const maxCluster of most > portableCluster ? [most, portableCluster] : [most]) {
    const plan = planHeldSoftmax(vocab, maxCluster);
    if (plan === undefined) return undefined;
    const { cluster } = plan;
    const kernel = getKernel(heldSoftmaxSpec(dtype, plan), deviceIndex);
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

/** Every dtype, and a cluster of every kind at least once, for compile checks. */
export function heldSoftmaxSpecs(): KernelSpec[] {
  return [
    heldSoftmaxSpec('float32', { cluster: 16, accesses: 8 }),
    heldSoftmaxSpec('float32', { cluster: 16, accesses: 16 }),
    heldSoftmaxSpec('bfloat16', { cluster: 8, accesses: 16 }),
    heldSoftmaxSpec('float16', { cluster: 1, accesses: 1 }),
  ];
}

/** Of rows of a model's vocabulary; undefined where they are not for this kernel. */
export function heldSoftmaxModelSpec(dtype: DType, vocab: number, target: Target): KernelSpec | undefined {
  const plan = planHeldSoftmax(vocab, largestCluster(parseTarget(target).sm));
  return plan === undefined ? undefined : heldSoftmaxSpec(dtype, plan);
}
