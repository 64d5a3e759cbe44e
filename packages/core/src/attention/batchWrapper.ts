// SPDX-License-Identifier: Apache-2.0
// What the three batch wrappers share: the plan of a batch, its buffer on the device, and run().
import { Checker } from '../check/checker.ts';
import { DisposedError, type FlashInferError, InvalidArgumentError, UnsupportedError } from '../errors.ts';
import { getKernel } from '../jit/kernel.ts';
import type { KernelSpec } from '../jit/spec.ts';
import { logCall } from '../logging.ts';
import type { CpuAttentionArgs } from '../native/binding.ts';
import { native } from '../native/load.ts';
import { activeCapture, refuseInCapture } from '../runtime/capture.ts';
import { type Device, defaultDevice, deviceIndex, parseDevice, smArch } from '../runtime/device.ts';
import { disposeSymbol } from '../runtime/disposeSymbol.ts';
import { currentStream } from '../runtime/stream.ts';
import { workspace, zeroedCounters } from '../runtime/workspace.ts';
import { empty } from '../tensor/create.ts';
import { type DType, dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { alibiSlopes } from './alibi.ts';
import { batchDecodeSpec, batchMergeSpec, batchPrefillSpec, pageSizeMultiplier } from './batchKernel.ts';
import type { BatchPlanOptions, BatchRunOptions, BatchWrapperOptions, PagedKVCache } from './batchOptions.ts';
import { type BatchPlan, type BatchRequests, type BatchShape, planBatch } from './batchPlan.ts';
import { chooseDecodeTile, decodeRows, decodeSharedBytes } from './decodeKernel.ts';
import { blocksPerSm, deviceLimits } from './deviceLimits.ts';
import { positiveInteger } from './hostArray.ts';
import type { KernelOptions } from './kernelName.ts';
import { type AttentionNumbers, checkBackend, type KvLayout, readBatchNumbers, readRunNumbers } from './options.ts';
import { type KvView, readPagedKvCache } from './pagedKvCache.ts';
import { choosePrefillTile, prefillSharedBytes } from './prefillKernel.ts';
import { checkHeadDim, checkHeads, checkNoOverlap, maskModes, posEncodingCodes } from './request.ts';

const qDtypes: readonly DType[] = ['float16', 'bfloat16'];
const cpuQDtypes: readonly DType[] = ['float16', 'bfloat16', 'float32'];

/** The attention of a plan, checked. */
export interface PlannedAttention extends AttentionNumbers {
  readonly numQoHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly qDtype: DType;
  readonly kvDtype: DType;
  readonly maskMode: 'none' | 'causal';
  /** 0 for ragged keys. */
  readonly pageSize: number;
}

/** The kernel side of a plan; absent on cpu. */
interface PlannedKernels {
  readonly spec: KernelSpec;
  readonly mergeSpec: KernelSpec | undefined;
  readonly sharedBytes: number;
  readonly shape: BatchShape;
}

interface Planned {
  readonly attention: PlannedAttention;
  readonly requests: BatchRequests;
  readonly numTokens: number;
  /** Page ids; empty for ragged keys. */
  readonly pages: Int32Array;
  /** Pages the cache must have, or rows of ragged keys. */
  readonly kvExtent: number;
  readonly kernels: PlannedKernels | undefined;
  readonly plan: BatchPlan | undefined;
  readonly layout: BufferLayout;
}

/** Where the parts of the plan buffer begin, in int32 words, and the grid that reads them. */
interface BufferLayout {
  readonly items: number;
  readonly mergeItems: number;
  readonly records: number;
  readonly pages: number;
  readonly words: number;
  /** Rows of partial states, and counters, to reserve. */
  readonly partialRows: number;
  readonly counters: number;
}

interface Maxima {
  readonly batchSize: number;
  readonly numPages: number;
  readonly numTokens: number;
}

/** What the batch wrappers have in common; not constructed by itself. */
export abstract class BatchWrapper {
  protected readonly name: string;
  readonly kvLayout: KvLayout;
  readonly device: Device;
  readonly isCudaGraphEnabled: boolean;
  private readonly maxima: Maxima | undefined;
  private readonly deviceIndex: number;
  private planned: Planned | undefined;
  private buffer: Tensor | undefined;
  private graphKey = '';
  private isDisposed = false;

  protected constructor(name: string, options: BatchWrapperOptions, needs: readonly (keyof BatchWrapperOptions)[]) {
    this.name = name;
    this.device = options.device === undefined ? defaultDevice() : parseDevice(options.device);
    this.deviceIndex = deviceIndex(this.device);
    new Checker(name).oneOf('kvLayout', options.kvLayout, ['NHD', 'HND'], 'ERR_FLASHINFER_INVALID_LAYOUT');
    this.kvLayout = options.kvLayout ?? 'NHD';
    checkBackend(name, options.backend, this.device);
    this.isCudaGraphEnabled = options.useCudaGraph ?? false;
    this.maxima = this.isCudaGraphEnabled ? readMaxima(name, options, needs) : undefined;
  }

  get disposed(): boolean {
    return this.isDisposed;
  }

  /** Gives the plan buffer back, in stream order. Idempotent. */
  dispose(): void {
    this.isDisposed = true;
    this.planned = undefined;
    this.buffer?.dispose();
    this.buffer = undefined;
  }

  [disposeSymbol](): void {
    this.dispose();
  }

  /** Bytes of scratch that `run()` uses for the current plan; the library owns it. */
  workspaceSize(): number {
    const { layout, attention } = this.requirePlan('workspaceSize');
    return layout.partialRows * (attention.headDim + 1) * 4;
  }

  /** The kernels of the current plan, for `warmup(wrapper)`. */
  kernelSpecs(): KernelSpec[] {
    const { kernels } = this.requirePlan('kernelSpecs');
    if (kernels === undefined) return [];
    return kernels.mergeSpec === undefined ? [kernels.spec] : [kernels.spec, kernels.mergeSpec];
  }

  protected planRequests(
    options: BatchPlanOptions & { causal?: boolean },
    allowed: ReadonlySet<string>,
    requests: BatchRequests,
    keys: { pages: Int32Array; kvExtent: number; pageSize: number },
    always: 'decode' | 'auto',
  ): void {
    const caller = `${this.name}.plan`;
    if (this.isDisposed) throw new DisposedError(`${caller}: the wrapper was disposed; make a new one`);
    refuseInCapture(this.deviceIndex, caller, 'plan before capture(), and again before each replay');
    const attention = this.readAttention(caller, options, allowed, keys.pageSize);
    const last = requests.batchSize - 1;
    const numTokens = last < 0 ? 0 : requests.qoBegin[last]! + requests.qoLen[last]!;
    this.checkMaxima(caller, requests.batchSize, keys.pages.length, numTokens);
    const kernels = this.deviceIndex < 0 ? undefined : this.chooseKernels(caller, attention, requests, always);
    const plan = kernels && planBatch(requests, kernels.shape, options);
    const layout = this.layOut(caller, plan, kernels, requests.batchSize, keys.pages.length);
    const key = [kernels?.spec.name, ...Object.values(layout)].join('/');
    this.upload(caller, plan, layout, keys.pages, key);
    const { pages, kvExtent } = keys;
    this.planned = { attention, requests, numTokens, pages, kvExtent, kernels, plan, layout };
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
    check.tensor('q', q, dims, { dtypes: [attention.qDtype], device: this.device, lastDimContiguous: true });
    const kv = readKv(check, attention, planned.kvExtent);
    if (options.out !== undefined) {
      check.tensor('out', options.out, dims, {
        dtypes: [attention.qDtype],
        device: this.device,
        lastDimContiguous: true,
      });
      checkNoOverlap(caller, options.out, { q, ...kv.tensors });
    }
    const lseDims = [numTokens, attention.numQoHeads];
    check.optionalTensor('lse', options.lse, lseDims, { dtypes: ['float32'], device: this.device, contiguous: true });
    const out = options.out ?? empty(dims, { dtype: attention.qDtype, device: this.device });
    const wantsLse = options.returnLse === true;
    const lse = wantsLse ? (options.lse ?? empty(lseDims, { dtype: 'float32', device: this.device })) : undefined;
    logCall(caller, { q, options });
    if (out.size > 0) {
      const call = { planned, numbers, q, kv, out, lse };
      if (this.deviceIndex < 0) this.runOnCpu(call);
      else this.runOnCuda(caller, call);
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

  private requirePlan(method: string): Planned {
    if (this.isDisposed) throw new DisposedError(`${this.name}.${method}: the wrapper was disposed; make a new one`);
    if (this.planned !== undefined) return this.planned;
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_NOT_PLANNED',
      `${this.name}.${method}: there is no plan; expected plan() before it, once for each change of lengths or pages`,
    );
  }

  private readAttention(
    caller: string,
    options: BatchPlanOptions & { causal?: boolean },
    allowed: ReadonlySet<string>,
    pageSize: number,
  ): PlannedAttention {
    const numQoHeads = positiveInteger(caller, 'numQoHeads', options.numQoHeads);
    const numKvHeads = positiveInteger(caller, 'numKvHeads', options.numKvHeads);
    const headDim = positiveInteger(caller, 'headDimQk', options.headDimQk);
    checkHeads(caller, numQoHeads, numKvHeads);
    checkHeadDim(caller, headDim);
    if (options.headDimVo !== undefined && options.headDimVo !== headDim) {
      throw new UnsupportedError(
        'ERR_FLASHINFER_UNSUPPORTED_HEAD_DIM',
        `${caller}: headDimVo is ${options.headDimVo}; expected headDimQk=${headDim}; pad the smaller one with zeros`,
      );
    }
    const numbers = readBatchNumbers(caller, { ...options, kvLayout: this.kvLayout }, allowed, headDim);
    const { qDtype = 'float16' } = options;
    const { kvDtype = qDtype } = options;
    const check = new Checker(caller);
    check.oneOf('qDtype', qDtype, this.deviceIndex < 0 ? cpuQDtypes : qDtypes, 'ERR_FLASHINFER_INVALID_DTYPE');
    check.oneOf('kvDtype', kvDtype, [qDtype, 'float8_e4m3fn', 'float8_e5m2'], 'ERR_FLASHINFER_INVALID_DTYPE');
    check.number('fixedSplitSize', options.fixedSplitSize, { min: 1, integer: true });
    check.oneOf('disableSplitKv', options.disableSplitKv, [true, false]);
    check.oneOf('causal', options.causal, [true, false]);
    const maskMode = options.causal === true ? 'causal' : 'none';
    return { ...numbers, numQoHeads, numKvHeads, headDim, qDtype, kvDtype, maskMode, pageSize };
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
    always: 'decode' | 'auto',
  ): PlannedKernels {
    if (attention.qDtype === 'bfloat16' && smArch(this.deviceIndex) < 80) {
      throw new UnsupportedError(
        'ERR_FLASHINFER_UNSUPPORTED_ARCH',
        `${caller}: qDtype is bfloat16 and ${this.device} is sm_${smArch(this.deviceIndex)}; expected sm_80 or newer; ` +
          'use float16',
      );
    }
    const group = attention.numQoHeads / attention.numKvHeads;
    // In graph mode the kernel must not depend on the lengths of one plan.
    const rows = this.maxima === undefined ? longest(requests.qoLen) * group : Number.MAX_SAFE_INTEGER;
    const kernels =
      always === 'decode' || rows <= decodeRows
        ? this.decodeKernels(attention)
        : this.prefillKernels(attention, rows, averageRows(requests, group));
    return kernels;
  }

  private decodeKernels(attention: PlannedAttention): PlannedKernels {
    const limits = deviceLimits(this.deviceIndex);
    const tile = chooseDecodeTile(attention, limits);
    const sharedBytes = decodeSharedBytes(attention, tile);
    const key = `decode_${attention.pageSize > 0}_${tile.warps}_${tile.kvTile}_${tile.stages}`;
    const shape: BatchShape = {
      ...batchShape(attention),
      tileRows: decodeRows,
      kvTile: tile.kvTile,
      slots: limits.numSms * blocksPerSm(limits, sharedBytes),
      minTiles: tile.warps,
      mergesInPlace: true,
    };
    const spec = cachedSpec(attention, key, () => batchDecodeSpec(attention, tile, attention.pageSize > 0));
    return { spec, mergeSpec: undefined, sharedBytes, shape };
  }

  private prefillKernels(attention: PlannedAttention, rows: number, average: number): PlannedKernels {
    const limits = deviceLimits(this.deviceIndex);
    // Short requests waste most of a 128-row tile.
    const paged = attention.pageSize > 0;
    const tile = choosePrefillTile(
      attention,
      this.maxima === undefined ? Math.min(rows, average) : rows,
      limits,
      paged,
    );
    const sharedBytes = prefillSharedBytes(attention, tile, paged);
    const key = `prefill_${paged}_${tile.mTiles}_${tile.kvTile}`;
    const shape: BatchShape = {
      ...batchShape(attention),
      tileRows: tile.mTiles * 64,
      kvTile: tile.kvTile,
      slots: limits.numSms * Math.min(2, blocksPerSm(limits, sharedBytes)),
      minTiles: 4,
      mergesInPlace: false,
    };
    return {
      spec: cachedSpec(attention, key, () => batchPrefillSpec(attention, tile, paged)),
      mergeSpec: cachedSpec(attention, 'merge', () => batchMergeSpec(attention)),
      sharedBytes,
      shape,
    };
  }

  /** Exactly what a plan needs, or, for graphs, what any plan within the maxima may need. */
  private layOut(
    caller: string,
    plan: BatchPlan | undefined,
    kernels: PlannedKernels | undefined,
    batchSize: number,
    numPages: number,
  ): BufferLayout {
    if (plan === undefined || kernels === undefined) return layoutOf(0, 0, 0, numPages, 0, 0);
    const { maxima } = this;
    if (maxima === undefined) {
      const { numItems, numMergeItems, partialRows, numCounters } = plan;
      return layoutOf(numItems, numMergeItems, batchSize, numPages, partialRows, numCounters);
    }
    const { shape } = kernels;
    const heads = shape.numKvHeads;
    const group = shape.numQoHeads / heads;
    const uncut = maxima.batchSize + Math.ceil((maxima.numTokens * group) / shape.tileRows);
    const items = uncut + 2 * Math.ceil(shape.slots / heads);
    const merges = shape.mergesInPlace
      ? 0
      : maxima.batchSize + Math.ceil((maxima.numTokens * shape.numQoHeads * shape.headDim) / 512);
    if (plan.numItems > items || plan.numMergeItems > merges) {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `${caller}: fixedSplitSize cuts the batch into ${plan.numItems} pieces; expected at most ${items} with ` +
          'useCudaGraph; use a larger fixedSplitSize',
      );
    }
    const states = items * heads;
    return layoutOf(items, merges, maxima.batchSize, maxima.numPages, states * shape.tileRows, states);
  }

  /** One copy of the whole plan. Its source may be reused at once: the addon stages it. */
  private upload(
    caller: string,
    plan: BatchPlan | undefined,
    layout: BufferLayout,
    pages: Int32Array,
    planKey: string,
  ): void {
    const words = new Int32Array(layout.words);
    words.set(pages, layout.pages);
    if (plan !== undefined) {
      const merges = layout.items * 4;
      words.fill(-1, plan.numItems * 4, merges + layout.mergeItems * 4);
      words.set(plan.words.subarray(0, plan.numItems * 4));
      words.set(plan.words.subarray(plan.numItems * 4, plan.requestsOffset), merges);
      words.set(plan.words.subarray(plan.requestsOffset), layout.records);
    }
    const key = this.isCudaGraphEnabled ? planKey : '';
    if (this.buffer === undefined || this.buffer.size < words.length) {
      if (this.graphKey !== '') throw this.changedShape(caller);
      this.buffer?.dispose();
      const room = this.isCudaGraphEnabled ? words.length : Math.ceil(words.length * 1.5);
      this.buffer = empty([Math.max(64, room)], { dtype: 'int32', device: this.device });
    } else if (this.isCudaGraphEnabled && key !== this.graphKey) throw this.changedShape(caller);
    this.graphKey = key;
    const bytes = new Uint8Array(words.buffer);
    if (this.deviceIndex < 0) native().host.write(this.buffer.ptr, bytes);
    else native().cuda.write(this.deviceIndex, this.buffer.ptr, bytes, currentStream(this.deviceIndex));
  }

  private changedShape(caller: string): FlashInferError {
    return new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${caller}: heads, headDim or dtype differ from the first plan; expected the same in every plan with useCudaGraph; ` +
        'make another wrapper for another model',
    );
  }

  private runOnCuda(caller: string, { planned, numbers, q, kv, out, lse }: BatchCall): void {
    const { attention, layout, plan, kernels } = planned;
    checkRows(caller, attention, q, out, kv);
    const stream = currentStream(this.deviceIndex);
    const base = this.buffer!.ptr;
    const partialO =
      layout.partialRows === 0 ? 0 : workspace(this.deviceIndex, layout.partialRows * (attention.headDim + 1) * 4);
    const args = {
      q: q.ptr,
      k: kv.k.ptr,
      v: kv.v.ptr,
      o: out.ptr,
      lse: lse?.ptr ?? 0,
      custom_mask: 0,
      alibi_slopes: attention.posEncodingMode === 'ALIBI' ? alibiSlopes(attention.numQoHeads, this.device).ptr : 0,
      kv_indices: base + layout.pages * 4,
      partial_o: partialO,
      partial_lse: partialO + layout.partialRows * attention.headDim * 4,
      counters: layout.counters === 0 ? 0 : zeroedCounters(this.deviceIndex, layout.counters),
      work: base,
      requests: base + layout.records * 4,
      q_stride_n: q.strides[0]!,
      q_stride_h: q.strides[1]!,
      k_stride_n: kv.k.strideN,
      k_stride_h: kv.k.strideH,
      v_stride_n: kv.v.strideN,
      v_stride_h: kv.v.strideH,
      o_stride_n: out.strides[0]!,
      o_stride_h: out.strides[1]!,
      k_stride_page: kv.k.stridePage,
      v_stride_page: kv.v.stridePage,
      num_qo_heads: attention.numQoHeads,
      group_size: attention.numQoHeads / attention.numKvHeads,
      window_left: attention.windowLeft,
      page_size: attention.pageSize,
      page_size_multiplier: attention.pageSize > 0 ? pageSizeMultiplier(attention.pageSize) : 0,
      first_merge_item: layout.items,
      sm_scale: numbers.smScale,
      logits_soft_cap: attention.logitsSoftCap,
      rcp_logits_soft_cap: attention.logitsSoftCap > 0 ? 1 / attention.logitsSoftCap : 0,
      rope_rcp_scale: 1 / attention.ropeScale,
      rope_log2_theta: Math.log2(attention.ropeTheta),
      v_scale: numbers.vScale,
      lse_factor: numbers.lseFactor,
    };
    const items = this.isCudaGraphEnabled ? layout.items : plan!.numItems;
    const kernel = getKernel(kernels!.spec, this.deviceIndex);
    kernel.launch([attention.numKvHeads, items, 1], args, { stream, sharedBytes: kernels!.sharedBytes });
    const merges = this.isCudaGraphEnabled ? layout.mergeItems : plan!.numMergeItems;
    if (merges === 0) return;
    getKernel(kernels!.mergeSpec!, this.deviceIndex).launch([merges, 1, 1], args, { stream });
  }

  private runOnCpu({ planned, numbers, q, kv, out, lse }: BatchCall): void {
    const { attention, requests, layout } = planned;
    const { cpu } = native();
    const paged = attention.pageSize > 0;
    const kvBytes = dtypes[attention.kvDtype].bytes;
    const qBytes = dtypes[attention.qDtype].bytes;
    const slopes = attention.posEncodingMode === 'ALIBI' ? alibiSlopes(attention.numQoHeads, 'cpu').ptr : 0;
    const pages = this.buffer!.ptr + layout.pages * 4;
    for (let r = 0; r < requests.batchSize; ++r) {
      if (requests.qoLen[r] === 0) continue;
      const row = requests.qoBegin[r]!;
      const firstKey = paged ? 0 : requests.kvStart[r]!;
      const args: CpuAttentionArgs = {
        q: q.ptr + row * q.strides[0]! * qBytes,
        k: kv.k.ptr + firstKey * kv.k.strideN * kvBytes,
        v: kv.v.ptr + firstKey * kv.v.strideN * kvBytes,
        out: out.ptr + row * out.strides[0]! * qBytes,
        lse: lse === undefined ? 0 : lse.ptr + row * attention.numQoHeads * 4,
        qDtype: dtypes[attention.qDtype].code,
        kvDtype: dtypes[attention.kvDtype].code,
        outDtype: dtypes[attention.qDtype].code,
        qoLen: requests.qoLen[r]!,
        kvLen: requests.kvLen[r]!,
        numQoHeads: attention.numQoHeads,
        numKvHeads: attention.numKvHeads,
        headDimQk: attention.headDim,
        headDimVo: attention.headDim,
        qStrideN: q.strides[0]!,
        qStrideH: q.strides[1]!,
        kStrideN: kv.k.strideN,
        kStrideH: kv.k.strideH,
        vStrideN: kv.v.strideN,
        vStrideH: kv.v.strideH,
        outStrideN: out.strides[0]!,
        outStrideH: out.strides[1]!,
        maskMode: maskModes[attention.maskMode],
        customMask: 0,
        posEncodingMode: posEncodingCodes[attention.posEncodingMode],
        alibiSlopes: slopes,
        windowLeft: attention.windowLeft,
        logitsSoftCap: attention.logitsSoftCap,
        smScale: numbers.smScale,
        ropeScale: attention.ropeScale,
        ropeTheta: attention.ropeTheta,
        vScale: numbers.vScale,
        lseFactor: numbers.lseFactor,
      };
      if (paged) {
        args.pageIndices = pages + requests.kvStart[r]! * 4;
        args.pageSize = attention.pageSize;
        args.kStridePage = kv.k.stridePage;
        args.vStridePage = kv.v.stridePage;
      }
      cpu.attention(args);
    }
  }
}

/** Both halves of the keys and values of a call, and the tensors they are in. */
export interface ReadKv {
  readonly k: KvView;
  readonly v: KvView;
  readonly tensors: Record<string, Tensor>;
}

interface BatchCall {
  readonly planned: Planned;
  readonly numbers: Pick<AttentionNumbers, 'smScale' | 'vScale' | 'lseFactor'>;
  readonly q: Tensor;
  readonly kv: ReadKv;
  readonly out: Tensor;
  readonly lse: Tensor | undefined;
}

function readMaxima(name: string, options: BatchWrapperOptions, needs: readonly (keyof BatchWrapperOptions)[]): Maxima {
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

function batchShape(
  a: PlannedAttention,
): Omit<BatchShape, 'tileRows' | 'kvTile' | 'slots' | 'minTiles' | 'mergesInPlace'> {
  return {
    numQoHeads: a.numQoHeads,
    numKvHeads: a.numKvHeads,
    headDim: a.headDim,
    windowLeft: a.windowLeft,
  };
}

function layoutOf(
  items: number,
  mergeItems: number,
  batchSize: number,
  numPages: number,
  partialRows: number,
  counters: number,
): BufferLayout {
  const records = (items + mergeItems) * 4;
  const pages = records + batchSize * 12;
  return { items, mergeItems, records, pages, words: pages + numPages, partialRows, counters };
}

function longest(lengths: Int32Array): number {
  let most = 0;
  for (const length of lengths) if (length > most) most = length;
  return most;
}

function averageRows({ qoLen, batchSize }: BatchRequests, group: number): number {
  let total = 0;
  for (const length of qoLen) total += length;
  return batchSize === 0 ? 0 : (total * group) / batchSize;
}

const specs = new Map<string, KernelSpec>();

/** The same spec object for the same options: kernels are looked up by it. */
function cachedSpec(o: KernelOptions, kind: string, make: () => KernelSpec): KernelSpec {
  const { qDtype, kvDtype, headDim, maskMode, posEncodingMode, windowLeft, logitsSoftCap } = o;
  const key = [kind, qDtype, kvDtype, headDim, maskMode, posEncodingMode, windowLeft >= 0, logitsSoftCap > 0].join('/');
  let spec = specs.get(key);
  if (spec === undefined) {
    spec = make();
    specs.set(key, spec);
  }
  return spec;
}

/** cp.async moves 16 bytes: every row of q, k, v and out must start on such a boundary. */
function checkRows(caller: string, attention: PlannedAttention, q: Tensor, out: Tensor, kv: ReadKv): void {
  const aligned = (ptr: number, strides: readonly number[], bytes: number): boolean =>
    ptr % 16 === 0 && strides.every((stride) => (stride * bytes) % 16 === 0);
  const qBytes = dtypes[attention.qDtype].bytes;
  const kvBytes = dtypes[attention.kvDtype].bytes;
  const half = ({ ptr, strideN, strideH, stridePage }: KvView): boolean =>
    aligned(ptr, [strideN, strideH, stridePage], kvBytes);
  const wrong =
    (!aligned(q.ptr, q.strides.slice(0, 2), qBytes) && 'q') ||
    (!aligned(out.ptr, out.strides.slice(0, 2), qBytes) && 'out') ||
    (!half(kv.k) && 'k') ||
    (!half(kv.v) && 'v');
  if (wrong === false) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_LAYOUT',
    `${caller}: ${wrong} has rows that do not start on 16-byte boundaries; expected strides and a first element in ` +
      'multiples of 16 bytes; use contiguous()',
  );
}
