// SPDX-License-Identifier: Apache-2.0
// What every operator over rows of a vocabulary shares: checks, values for all rows or one a row, and the launch.
import type { Checker } from '../check/checker.ts';
import { getKernel, type KernelArgs } from '../jit/kernel.ts';
import { native } from '../native/load.ts';
import { deviceProperties } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { type DType, dtypes } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { vectorWidth } from '../tensor/vectorWidth.ts';
import { type HeldKind, runHeldRows } from './heldRows.ts';
import {
  maxVocab,
  planSampling,
  type SamplingKind,
  samplingFilters,
  samplingKinds,
  samplingSpec,
  staggerOf,
} from './samplingKernel.ts';

/** One value for all rows, or a tensor `[batch]`, one a row. */
export type PerRow = number | Tensor;

const rowsRule = { dtypes: ['float32', 'float16', 'bfloat16'] as readonly DType[], lastDimContiguous: true };
const floatRule = { dtypes: ['float32'] as readonly DType[], contiguous: true };
const intRule = { dtypes: ['int32'] as readonly DType[], contiguous: true };
const maxRows = 2 ** 24;

export function checkRows(check: Checker, name: string, x: Tensor, rows: string): void {
  check.tensor(name, x, [rows, 'vocab'], rowsRule);
  const [batch, vocab] = x.shape as [number, number];
  if (vocab < 1 || vocab > maxVocab || batch > maxRows) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `${name} has shape [${batch}, ${vocab}]; expected 1 to ${maxVocab} columns and at most ${maxRows} rows; pass slices`,
    );
  }
}

/** A tensor's values are not looked at: rows with values out of range keep everything. */
export function checkProbability(check: Checker, name: string, value: PerRow): void {
  if (value instanceof Tensor) check.tensor(name, value, ['batch'], floatRule);
  else check.number(name, required(check, name, value), { min: 0, max: 1 });
}

export function checkCount(check: Checker, name: string, value: PerRow): void {
  if (value instanceof Tensor) check.tensor(name, value, ['batch'], intRule);
  else check.number(name, required(check, name, value), { min: 1, max: 2 ** 31 - 1, integer: true });
}

export function checkTemperature(check: Checker, value: PerRow | undefined): void {
  if (value instanceof Tensor) check.tensor('temperature', value, ['batch'], floatRule);
  else check.number('temperature', value, { min: 0 });
}

function required(check: Checker, name: string, value: number): number {
  if (value !== undefined) return value;
  throw check.error('ERR_FLASHINFER_INVALID_ARGUMENT', `${name} is undefined; expected a number or a Tensor; pass it`);
}

/** What one call passes to its kernel; only what differs from "everything is kept" is set. */
export class SamplingRun {
  private indices = 0;
  private valid = 0;
  private seed = 0n;
  private offset = 0n;
  private seeds: Tensor | undefined;
  private offsets: Tensor | undefined;
  private filters = 0;
  private temperature: PerRow = 1;
  private topK: PerRow = 0;
  private topP: PerRow = 1;
  private minP: PerRow = 0;
  private readonly kind: SamplingKind;
  private readonly x: Tensor;

  constructor(kind: SamplingKind, x: Tensor) {
    this.kind = kind;
    this.x = x;
  }

  get inputName(): 'logits' | 'probs' {
    return this.kind === 'sampleLogits' ? 'logits' : 'probs';
  }

  withTemperature(value: PerRow | undefined): this {
    this.temperature = value ?? 1;
    return this;
  }

  withTopK(value: PerRow): this {
    if (typeof value === 'number' && value >= this.x.shape[1]!) return this; // keeps all
    this.topK = value;
    this.filters |= samplingFilters.topK;
    return this;
  }

  withTopP(value: PerRow): this {
    if (value === 1) return this; // keeps all
    this.topP = value;
    this.filters |= samplingFilters.topP;
    return this;
  }

  withMinP(value: PerRow): this {
    this.minP = value;
    this.filters |= samplingFilters.minP;
    return this;
  }

  jointly(): this {
    this.filters |= samplingFilters.joint;
    return this;
  }

  withDraw(seed: bigint | Tensor, offset: bigint | Tensor, indices: Tensor | undefined): this {
    if (seed instanceof Tensor) this.seeds = seed;
    else this.seed = seed;
    if (offset instanceof Tensor) this.offsets = offset;
    else this.offset = offset;
    this.indices = indices?.ptr ?? 0;
    return this;
  }

  /** Bool, one a token: whether there was anything to draw from. */
  withValid(valid: Tensor): this {
    this.valid = valid.ptr;
    return this;
  }

  /** One row of `out`, or element, a row sampled. */
  into<D extends DType>(out: Tensor<D>): Tensor<D> {
    const rows = out.shape[0]!;
    if (rows === 0) return out;
    if (this.x.deviceIndex < 0) this.runOnCpu(out, rows);
    else this.runOnCuda(out, rows);
    return out;
  }

  private runOnCpu(out: Tensor, rows: number): void {
    const { kind, x } = this;
    native().cpu.sampling({
      kind: samplingKinds[kind].code,
      dtype: dtypes[x.dtype].code,
      ...this.args(out, rows),
    });
  }

  private runOnCuda(out: Tensor, rows: number): void {
    const { kind, x } = this;
    const { deviceIndex } = x;
    const vocab = x.shape[1]!;
    const device = deviceProperties(deviceIndex);
    const whole = kind === 'renormProbs' || kind === 'maskLogits';
    const selects = whole || (this.filters & samplingFilters.topK) !== 0;
    const draws = !selects && (this.filters & samplingFilters.topP) === 0;
    const vec = vectorWidth(vocab, out.shape.length === 2 ? [x, out] : [x]) >= 4 ? 4 : 1;
    if (vec === 4 && draws && runHeldRows(kind as HeldKind, x, rows, () => this.heldArgs(out, rows))) return;
    const plan = planSampling(vocab, rows, selects, {
      clusters: device.major >= 9,
      sharedPerBlock: device.sharedMemPerBlockOptin,
      sharedPerSm: device.sharedMemPerMultiprocessor,
      numSms: device.multiProcessorCount,
    });
    const kernel = getKernel(samplingSpec(kind, x.dtype, vec, plan), deviceIndex);
    const { cluster, clustersAtOnce, segment, sharedBytes } = plan;
    const blocks = (samplingKinds[kind].loops ? clustersAtOnce : rows) * cluster;
    const options = { stream: currentStream(deviceIndex), sharedBytes, cluster: cluster > 1 ? cluster : 0 };
    const deal = { segment, stagger: staggerOf(kind, rows, plan), clusters_at_once: clustersAtOnce };
    kernel.launch([blocks, 1, 1], { ...this.args(out, rows), ...deal }, options);
  }

  private heldArgs(out: Tensor, rows: number): KernelArgs {
    const { kind, x, temperature } = this;
    if (kind !== 'softmax') return { ...this.args(out, rows), segment: 0, stagger: 0, clusters_at_once: rows };
    return {
      x: x.ptr,
      out: out.ptr,
      temperature: pointer(temperature),
      x_stride: x.strides[0]!,
      vocab: x.shape[1]!,
      temperature_value: value(temperature),
    };
  }

  private args(out: Tensor, rows: number) {
    const { x, seeds, offsets, temperature, topK, topP, minP } = this;
    return {
      x: x.ptr,
      out: out.ptr,
      valid: this.valid,
      indices: this.indices,
      temperature: pointer(temperature),
      top_k: pointer(topK),
      top_p: pointer(topP),
      min_p: pointer(minP),
      seed: seeds?.ptr ?? 0,
      offset: offsets?.ptr ?? 0,
      x_stride: x.strides[0]!,
      rows: x.shape[0]!,
      out_rows: rows,
      vocab: x.shape[1]!,
      filters: this.filters,
      temperature_value: value(temperature),
      top_k_value: value(topK),
      top_p_value: value(topP),
      min_p_value: value(minP),
      seed_value: this.seed,
      offset_value: this.offset,
      seed_per_row: seeds !== undefined && seeds.size > 1 ? 1 : 0,
      offset_per_row: offsets !== undefined && offsets.size > 1 ? 1 : 0,
    };
  }
}

function pointer(perRow: PerRow): number {
  return typeof perRow === 'number' ? 0 : perRow.ptr;
}

function value(perRow: PerRow): number {
  return typeof perRow === 'number' ? perRow : 0;
}
