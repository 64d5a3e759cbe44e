// SPDX-License-Identifier: Apache-2.0
// What the three batch wrappers share: the plan of a batch, its buffer on the device, and the checks of run().
import { Checker } from '../check/checker.ts';
import { describeValue } from '../check/describeValue.ts';
import { checkOptions } from '../check/options.ts';
import { DisposedError, InvalidArgumentError, UnsupportedError } from '../errors.ts';
import type { KernelSpec } from '../jit/spec.ts';
import { logCall } from '../logging.ts';
import { activeCapture, refuseInCapture } from '../runtime/capture.ts';
import { type Device, defaultDevice, deviceIndex, parseDevice, smArch } from '../runtime/device.ts';
import { disposeSymbol } from '../runtime/disposeSymbol.ts';
import { empty } from '../tensor/create.ts';
import type { DType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { arrangedBytes } from './arrangePages.ts';
import type { BufferLayout, Planned, PlannedAttention, PlannedKernels, ReadKv } from './batchCall.ts';
import { runBatchOnCpu } from './batchCpu.ts';
import { runBatchOnCuda } from './batchCuda.ts';
import { chooseBatchKernels, type KernelWish } from './batchKernelChoice.ts';
import { type BatchMaskOptions, hasCustomMask, MaskBuffer } from './batchMask.ts';
import {
  type BatchPlanOptions,
  type BatchRunOptions,
  type BatchWrapperOptions,
  type Float8Queries,
  type PagedKVCache,
  wrapperOptionNames,
} from './batchOptions.ts';
import { type BatchRequests, cutBatch, type SplitOptions } from './batchPlan.ts';
import { checkWorkspace, checkWorkspaceSize } from './callerWorkspace.ts';
import { deviceLimits } from './deviceLimits.ts';
import { readHeadScales } from './headScales.ts';
import { checkHopperFp8 } from './hopperFp8.ts';
import { fp8WorkspaceBytes } from './hopperFp8Batch.ts';
import { positiveInteger } from './hostArray.ts';
import {
  type AttentionBackend,
  checkBackend,
  type KvLayout,
  readBatchNumbers,
  readOutDtypes,
  readRunNumbers,
} from './options.ts';
import { readPagedKvCache } from './pagedKvCache.ts';
import { PlanBuffer, type PlanMaxima } from './planBuffer.ts';
import { checkHeadDim, checkHeads, checkNoOverlap, checkSinks, headDimVoOf } from './request.ts';
import { readVariantArgs } from './variantArgs.ts';

const qDtypes: readonly DType[] = ['float16', 'bfloat16'];
const cpuQDtypes: readonly DType[] = ['float16', 'bfloat16', 'float32'];
const e4m3: DType = 'float8_e4m3fn';

/** What the batch wrappers have in common; not constructed by itself. */
export abstract class BatchWrapper {
  protected readonly name: string;
  readonly kvLayout: KvLayout;
  readonly device: Device;
  readonly isCudaGraphEnabled: boolean;
  private readonly backend: AttentionBackend;
  private readonly maxima: PlanMaxima | undefined;
  private readonly buffer: PlanBuffer;
  private readonly mask: MaskBuffer;
  private readonly workspace: Tensor | undefined;
  private readonly deviceIndex: number;
  private planned: Planned | undefined;
  private isDisposed = false;

  protected constructor(
    name: string,
    options: BatchWrapperOptions,
    needs: readonly (keyof BatchWrapperOptions)[],
    allowed: readonly string[] = wrapperOptionNames,
  ) {
    this.name = name;
    checkOptions(name, options, allowed);
    this.device = options.device === undefined ? defaultDevice() : parseDevice(options.device);
    this.deviceIndex = deviceIndex(this.device);
    const check = new Checker(name).flag('useCudaGraph', options.useCudaGraph);
    check.oneOf('kvLayout', options.kvLayout, ['NHD', 'HND'], 'ERR_FLASHINFER_INVALID_LAYOUT');
    this.kvLayout = options.kvLayout ?? 'NHD';
    checkBackend(name, options.backend, this.device);
    this.backend = options.backend ?? 'auto';
    this.isCudaGraphEnabled = options.useCudaGraph ?? false;
    this.maxima = this.isCudaGraphEnabled ? readMaxima(name, options, needs) : undefined;
    this.buffer = new PlanBuffer(this.device, this.maxima);
    const { maxCustomMaskBytes, workspace } = options;
    check.number('maxCustomMaskBytes', maxCustomMaskBytes, { min: 0, integer: true });
    this.mask = new MaskBuffer(this.device, this.isCudaGraphEnabled ? (maxCustomMaskBytes ?? 0) : undefined);
    checkWorkspace(name, workspace, this.device);
    this.workspace = workspace;
  }

  get disposed(): boolean {
    return this.isDisposed;
  }

  /** Gives the plan's buffers back, in stream order. Idempotent. */
  dispose(): void {
    this.isDisposed = true;
    this.planned = undefined;
    this.buffer.dispose();
    this.mask.dispose();
  }

  [disposeSymbol](): void {
    this.dispose();
  }

  /** Bytes of scratch that `run()` uses for the current plan: the library's, or the `workspace` of the constructor. */
  workspaceSize(): number {
    const { layout, attention, kernels, kvExtent } = this.requirePlan('workspaceSize');
    return scratchBytes(attention, layout, kernels, kvExtent);
  }

  /** The kernels of the current plan, for `warmup(wrapper)`. */
  kernelSpecs(): KernelSpec[] {
    const { kernels } = this.requirePlan('kernelSpecs');
    if (kernels === undefined) return [];
    return [kernels.spec, kernels.mergeSpec, kernels.fp8Values?.spec, kernels.arranged?.spec].filter(
      (spec) => spec !== undefined,
    );
  }

  protected planRequests(
    options: BatchPlanOptions & BatchMaskOptions & Float8Queries & { causal?: boolean },
    allowed: ReadonlySet<string>,
    requests: BatchRequests,
    keys: { pages: Int32Array; kvExtent: number; pageSize: number },
    kernel: KernelWish,
    causal = options.causal,
  ): void {
    const caller = `${this.name}.plan`;
    if (this.isDisposed) throw new DisposedError(`${caller}: the wrapper was disposed; make a new one`);
    refuseInCapture(this.deviceIndex, caller, 'plan before capture(), and again before each replay');
    const attention = this.readAttention(caller, options, allowed, keys.pageSize, causal);
    const last = requests.batchSize - 1;
    const numTokens = last < 0 ? 0 : requests.qoBegin[last]! + requests.qoLen[last]!;
    this.checkMaxima(caller, requests.batchSize, keys.pages.length, numTokens);
    const kernels = this.deviceIndex < 0 ? undefined : this.chooseKernels(caller, attention, requests, kernel, options);
    const cut = kernels && cutBatch(requests, kernels.shape, options);
    const { pages, kvExtent } = keys;
    const fixedSplits = options.fixedSplitSize !== undefined;
    const layout = this.buffer.layOut(caller, cut, kernels, requests.batchSize, pages.length, fixedSplits);
    checkWorkspaceSize(caller, this.workspace, scratchBytes(attention, layout, kernels, kvExtent));
    const writeMask = attention.maskMode === 'custom' ? this.mask.read(caller, options, requests) : undefined;
    this.buffer.write(caller, layout, pages, requests, cut, kernels);
    writeMask?.();
    const grid = this.maxima === undefined ? cut : { numItems: layout.items, numMergeItems: layout.mergeItems };
    this.planned = {
      attention,
      requests: this.deviceIndex < 0 ? ownCopy(requests) : requests,
      numTokens,
      kvExtent,
      kernels,
      numItems: grid?.numItems ?? 0,
      numMergeItems: grid?.numMergeItems ?? 0,
      layout,
    };
  }

  protected runRequests(
    q: Tensor,
    options: BatchRunOptions,
    readKv: (check: Checker, planned: PlannedAttention, kvExtent: number) => ReadKv,
  ): Tensor | [Tensor, Tensor] {
    const caller = `${this.name}.run`;
    const planned = this.requirePlan('run');
    const { attention, numTokens } = planned;
    if (activeCapture() !== undefined && !this.isCudaGraphEnabled && this.deviceIndex >= 0) {
      throw new UnsupportedError(
        'ERR_FLASHINFER_UNSUPPORTED',
        `${caller}: captured into a CUDA graph, but the wrapper was made without useCudaGraph: a new plan would move ` +
          'what the graph reads; make it with { useCudaGraph: true, maxBatchSize, ... }',
      );
    }
    const numbers = readRunNumbers(caller, options, attention);
    const check = new Checker(caller);
    const dims = [numTokens, attention.numQoHeads, attention.headDim];
    const outDims = [numTokens, attention.numQoHeads, headDimVoOf(attention.headDim)];
    check.tensor('q', q, dims, { dtypes: [attention.qDtype], device: this.device, lastDimContiguous: true });
    const kv = readKv(check, attention, planned.kvExtent);
    if (options.out !== undefined) {
      check.tensor('out', options.out, outDims, {
        dtypes: [attention.outDtype],
        device: this.device,
        lastDimContiguous: true,
      });
    }
    const { sinks } = options;
    checkSinks(check, sinks, attention, this.device);
    const takesTensors = attention.qDtype === 'float8_e4m3fn';
    const headScales = readHeadScales(check, options, attention, takesTensors, this.device);
    const variantArgs = readVariantArgs(check, attention.variant, options.variantParams, this.device);
    const lseDims = [numTokens, attention.numQoHeads];
    check.optionalTensor('lse', options.lse, lseDims, { dtypes: ['float32'], device: this.device, contiguous: true });
    checkNoOverlap(caller, 'out', options.out, { q, sinks, ...kv.tensors });
    checkNoOverlap(caller, 'lse', options.lse, { q, sinks, out: options.out, ...kv.tensors });
    const out = options.out ?? empty(outDims, { dtype: attention.outDtype, device: this.device });
    const wantsLse = options.returnLse === true;
    const lse = wantsLse ? (options.lse ?? empty(lseDims, { dtype: 'float32', device: this.device })) : undefined;
    logCall(caller, { q, options });
    if (out.size > 0) {
      const { mask, workspace } = this;
      const call = {
        planned,
        numbers,
        q,
        kv,
        out,
        lse,
        variantArgs,
        customMask: mask.ptr,
        sinks,
        headScales,
        workspace,
      };
      if (this.deviceIndex < 0) runBatchOnCpu(call, this.buffer.written);
      else runBatchOnCuda(caller, call, this.buffer.written, this.isCudaGraphEnabled);
    }
    return lse === undefined ? out : [out, lse];
  }

  /** Checks a paged cache against the plan: its shape, and that it has every page the plan names. */
  protected readCache(
    check: Checker,
    cache: PagedKVCache,
    { pageSize, numKvHeads, headDim, kvDtype }: PlannedAttention,
    numPages: number,
  ): ReadKv {
    const rule = { layout: this.kvLayout, pageSize, numKvHeads, headDim, dtype: kvDtype, device: this.device };
    const kv = readPagedKvCache(check, cache, rule);
    if (kv.numPages >= numPages) return kv;
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `pagedKVCache has ${kv.numPages} pages; expected at least ${numPages}, one more than the largest id in ` +
        'pagedKvIndices; plan with the page ids of this cache',
    );
  }

  protected requirePlan(method: string): Planned {
    if (this.isDisposed) throw new DisposedError(`${this.name}.${method}: the wrapper was disposed; make a new one`);
    if (this.planned !== undefined) return this.planned;
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_NOT_PLANNED',
      `${this.name}.${method}: there is no plan; expected plan() before it, once for each change of lengths or pages`,
    );
  }

  private readAttention(
    caller: string,
    options: BatchPlanOptions & BatchMaskOptions & Float8Queries & { causal?: boolean },
    allowed: ReadonlySet<string>,
    pageSize: number,
    causal: boolean | undefined,
  ): PlannedAttention {
    const numQoHeads = positiveInteger(caller, 'numQoHeads', options.numQoHeads);
    const numKvHeads = positiveInteger(caller, 'numKvHeads', options.numKvHeads);
    const headDim = positiveInteger(caller, 'headDimQk', options.headDimQk);
    checkHeads(caller, numQoHeads, numKvHeads);
    checkHeadDim(caller, headDim);
    const { headDimVo = headDim } = options;
    if (headDimVo !== headDimVoOf(headDim)) {
      throw new UnsupportedError(
        'ERR_FLASHINFER_UNSUPPORTED_HEAD_DIM',
        `${caller}: headDimVo is ${describeValue(headDimVo)} with headDimQk=${headDim}; expected ${headDimVoOf(headDim)}; pad the ` +
          'smaller one with zeros',
      );
    }
    const numbers = readBatchNumbers(caller, options, allowed, this.kvLayout, headDim);
    const { qDtype = 'float16' } = options;
    const { kvDtype = qDtype } = options;
    const check = new Checker(caller);
    // What knows no outDtype knows no float8 queries: decoding is bound by the cache's bytes.
    const takesFloat8 = allowed.has('outDtype');
    const wide = this.deviceIndex < 0 ? cpuQDtypes : qDtypes;
    check.oneOf('qDtype', qDtype, takesFloat8 ? [...wide, e4m3] : wide, 'ERR_FLASHINFER_INVALID_DTYPE');
    const kvDtypes: DType[] = qDtype === e4m3 ? [e4m3] : [qDtype, e4m3, 'float8_e5m2'];
    check.oneOf('kvDtype', kvDtype, kvDtypes, 'ERR_FLASHINFER_INVALID_DTYPE');
    const [outDtype] = readOutDtypes(caller, options, qDtype);
    check.number('fixedSplitSize', options.fixedSplitSize, { min: 1, max: 2 ** 31 - 1, integer: true });
    check.oneOf('disableSplitKv', options.disableSplitKv, [true, false]);
    check.oneOf('causal', causal, [true, false]);
    const maskMode = hasCustomMask(options) ? 'custom' : causal === true ? 'causal' : 'none';
    // Spelled out: spreading an object of this size costs V8 several microseconds, a good part of a plan.
    return {
      kvLayout: numbers.kvLayout,
      posEncodingMode: numbers.posEncodingMode,
      windowLeft: numbers.windowLeft,
      logitsSoftCap: numbers.logitsSoftCap,
      smScale: numbers.smScale,
      ropeScale: numbers.ropeScale,
      ropeTheta: numbers.ropeTheta,
      vScale: numbers.vScale,
      lseFactor: numbers.lseFactor,
      variant: numbers.variant,
      numQoHeads,
      numKvHeads,
      headDim,
      qDtype,
      kvDtype,
      outDtype: outDtype!,
      maskMode,
      pageSize,
    };
  }

  private checkMaxima(caller: string, batchSize: number, numPages: number, numTokens: number): void {
    if (this.maxima === undefined) return;
    const given = { batchSize, numPages, numTokens };
    for (const name of ['batchSize', 'numPages', 'numTokens'] as const) {
      if (given[name] <= this.maxima[name]) continue;
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `${caller}: the batch has ${name}=${given[name]}; expected at most ${this.maxima[name]}, the maximum the wrapper ` +
          `was made with; make it with a larger max${name[0]!.toUpperCase()}${name.slice(1)} and capture again`,
      );
    }
  }

  private chooseKernels(
    caller: string,
    attention: PlannedAttention,
    requests: BatchRequests,
    kernel: KernelWish,
    split: SplitOptions,
  ): PlannedKernels {
    if (attention.qDtype === 'bfloat16' && smArch(this.deviceIndex) < 80) {
      throw new UnsupportedError(
        'ERR_FLASHINFER_UNSUPPORTED_ARCH',
        `${caller}: qDtype is bfloat16 and ${this.device} is sm_${smArch(this.deviceIndex)}; expected sm_80 or newer; ` +
          'use float16',
      );
    }
    if (attention.qDtype === e4m3) checkHopperFp8(caller, { ...attention, backend: this.backend }, this.deviceIndex);
    const choice = {
      backend: this.backend,
      arch: smArch(this.deviceIndex),
      split,
      scratch: this.workspace?.byteLength,
    };
    return chooseBatchKernels(caller, attention, requests, kernel, this.maxima, deviceLimits(this.deviceIndex), choice);
  }
}

/** Of the partial states of split requests, or of arranged keys and values. */
function scratchBytes(
  attention: PlannedAttention,
  layout: BufferLayout,
  kernels: PlannedKernels | undefined,
  kvExtent: number,
): number {
  if (kernels?.fp8Values !== undefined) return fp8WorkspaceBytes(attention, kernels, kvExtent);
  if (kernels?.arranged !== undefined) return arrangedBytes(attention, kernels.arranged.rows);
  return layout.partialRows * (headDimVoOf(attention.headDim) + 1) * 4;
}

/** Runs on the cpu read the requests, and the arrays of a plan belong to the caller, who may write the next step to them. */
function ownCopy({ batchSize, qoBegin, qoLen, kvStart, kvLen }: BatchRequests): BatchRequests {
  return { batchSize, qoBegin: qoBegin.slice(), qoLen: qoLen.slice(), kvStart: kvStart.slice(), kvLen: kvLen.slice() };
}

function readMaxima(
  name: string,
  options: BatchWrapperOptions,
  needs: readonly (keyof BatchWrapperOptions)[],
): PlanMaxima {
  for (const need of needs) {
    if (options[need] === undefined) {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `${name}: useCudaGraph is true and ${need} is missing; expected ${needs.join(', ')} with it, since the grid and ` +
          'every address of a graph stay as they were captured',
      );
    }
  }
  const max = (key: 'maxBatchSize' | 'maxNumPages' | 'maxNumTokens', fallback: number): number =>
    options[key] === undefined ? fallback : positiveInteger(name, key, options[key]);
  const batchSize = max('maxBatchSize', 0);
  return { batchSize, numPages: max('maxNumPages', 0), numTokens: max('maxNumTokens', batchSize) };
}
