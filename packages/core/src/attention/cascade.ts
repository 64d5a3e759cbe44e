// SPDX-License-Identifier: Apache-2.0
// Attention over prefixes that several sequences share: each level's keys are read once for all rows that see them.
import { Checker } from '../check/checker.ts';
import { describeValue } from '../check/describeValue.ts';
import { checkOptions } from '../check/options.ts';
import { DisposedError, type FlashInferError, InvalidArgumentError, UnsupportedError } from '../errors.ts';
import type { KernelSpec } from '../jit/spec.ts';
import { type RopeFrequencies, runRope } from '../rope/runRope.ts';
import { type Device, defaultDevice, deviceIndex, parseDevice } from '../runtime/device.ts';
import { disposeSymbol } from '../runtime/disposeSymbol.ts';
import { currentStreamObject, Stream, setStream } from '../runtime/stream.ts';
import { empty } from '../tensor/create.ts';
import type { DType, OutputDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { alibiSlopes } from './alibi.ts';
import { type BatchRunOptions, type PagedKVCache, wrapperOptionNames } from './batchOptions.ts';
import { CascadeLevel, planNames, type ReadLevel } from './cascadeLevel.ts';
import type { CascadePlanOptions, CascadeRunOptions, CascadeWrapperOptions } from './cascadeOptions.ts';
import { alibiShifts, type LevelPositions, levelPositions, rotations, windowBits } from './cascadePositions.ts';
import { CascadeStates, writeWords } from './cascadeStates.ts';
import { positiveInteger } from './hostArray.ts';
import { readRunNumbers, runOptionNames } from './options.ts';
import { checkNoOverlap, headDimVoOf } from './request.ts';
import { runMerge } from './runMerge.ts';

const name = 'MultiLevelCascadeAttentionWrapper';
const lists = ['qoIndptrArr', 'pagedKvIndptrArr', 'pagedKvIndicesArr', 'pagedKvLastPageLenArr'] as const;

/** A sink belongs to no level, and variants know none. */
const runNames: ReadonlySet<string> = new Set(
  [...runOptionNames].filter((option) => option !== 'sinks' && option !== 'variantParams'),
);

/** What a plan of several levels has to make good. */
interface Positions {
  readonly window: boolean;
  readonly rope: boolean;
  readonly alibi: boolean;
  readonly any: boolean;
}

const none: Positions = { window: false, rope: false, alibi: false, any: false };

/**
 * Attention of sequences that share prefixes, over a paged KV-cache. At each level a request is a set of query rows with
 * keys in common: first all rows with the system prompt, say, and last each sequence with its own tokens. Shared keys are
 * read once for all their rows, and the levels are merged; the result is that of each row over all its keys.
 * @throws {InvalidArgumentError} from plan and run on wrong page tables, shapes, dtypes, devices, strides or options
 * @throws {UnsupportedError} from plan with several levels and ALiBi under a soft cap, or RoPE in graph mode
 * @remarks Levels of up to 16 query heads a key head run the decode kernel, others the prefill kernel, with keys cut into
 *   as many pieces as fill the GPU. Levels after the first run beside it, on a stream of the wrapper's; a wrapper runs on
 *   one stream at a time. Merged states are in q's dtype. Windows and position encodings count through the keys of all
 *   levels, in their order: a window becomes a mask at the levels before the last, and RoPE turns q once more for each of
 *   them, so rotate q and the keys before where you can.
 * @see FlashInfer `MultiLevelCascadeAttentionWrapper`; arXiv:2501.01005
 * @example
 * ```ts
 * import { MultiLevelCascadeAttentionWrapper, randn } from '@flashinfer/core';
 *
 * const cascade = new MultiLevelCascadeAttentionWrapper(2);
 * cascade.plan({
 *   qoIndptrArr: [[0, 3], [0, 1, 2, 3]], // three sequences of one query row each, with one prefix
 *   pagedKvIndptrArr: [[0, 4], [0, 1, 2, 3]],
 *   pagedKvIndicesArr: [[0, 1, 2, 3], [4, 5, 6]],
 *   pagedKvLastPageLenArr: [[16], [1, 7, 16]],
 *   pageSize: 16, numQoHeads: 32, numKvHeads: 8, headDimQk: 128,
 * });
 * const q = randn([3, 32, 128], { dtype: 'float16' });
 * const cache = randn([7, 2, 16, 8, 128], { dtype: 'float16' });
 * const o = cascade.run(q, cache); // [3, 32, 128]
 * ```
 */
export class MultiLevelCascadeAttentionWrapper {
  readonly numLevels: number;
  readonly device: Device;
  readonly isCudaGraphEnabled: boolean;
  private readonly levels: readonly CascadeLevel[];
  private readonly maxNumTokens: number | undefined;
  private states: CascadeStates | undefined;
  /** In graph mode the planned number of rows, which the captured merge reads. */
  private count: Tensor | undefined;
  private numTokens = 0;
  private headDimQk = 0;
  /** For levels beside the first. Not with the caller's workspace, which all of them use. */
  private side: Stream | undefined;
  private readonly sharesWorkspace: boolean;
  private rotary: RopeFrequencies | undefined;
  private slopes: Tensor | undefined;
  /** False while a plan that failed left the levels with plans that do not belong together. */
  private isPlanned = false;

  constructor(numLevels: number, options: CascadeWrapperOptions = {}) {
    this.numLevels = positiveInteger(name, 'numLevels', numLevels);
    checkOptions(name, options, wrapperOptionNames);
    this.device = options.device === undefined ? defaultDevice() : parseDevice(options.device);
    this.isCudaGraphEnabled = options.useCudaGraph ?? false;
    this.sharesWorkspace = options.workspace !== undefined;
    this.maxNumTokens = this.isCudaGraphEnabled ? options.maxNumTokens : undefined;
    this.levels = Array.from({ length: numLevels }, (_, level) => {
      const { maxBatchSize, maxNumPages, ...common } = options;
      const own = {
        ...(maxBatchSize !== undefined && { maxBatchSize: ofLevel('maxBatchSize', maxBatchSize, level, numLevels) }),
        ...(maxNumPages !== undefined && { maxNumPages: ofLevel('maxNumPages', maxNumPages, level, numLevels) }),
      };
      return new CascadeLevel(name, level, { ...common, ...own, device: this.device });
    });
  }

  get disposed(): boolean {
    return this.levels[0]!.disposed;
  }

  /** Gives the plans and states back, in stream order. Idempotent. */
  dispose(): void {
    for (const level of this.levels) level.dispose();
    this.states?.dispose();
    this.states = undefined;
    this.side?.dispose();
    this.side = undefined;
    this.count?.dispose();
    this.count = undefined;
  }

  [disposeSymbol](): void {
    this.dispose();
  }

  /** The kernels of the current plan, for `warmup(wrapper)`. */
  kernelSpecs(): KernelSpec[] {
    return this.levels.flatMap((level) => level.kernelSpecs());
  }

  /** Bytes of scratch that `run()` uses for the current plan; the library owns it. */
  workspaceSize(): number {
    return Math.max(...this.levels.map((level) => level.workspaceSize()));
  }

  /** Prepares the runs that follow; see {@link CascadePlanOptions}. Replaces the plan before. */
  plan(options: CascadePlanOptions): void {
    const caller = `${name}.plan`;
    checkOptions(caller, options, planNames);
    for (const list of lists) this.checkList(caller, list, options[list]);
    const positions = this.numLevels > 1 ? this.readPositions(caller, options) : none;
    this.isPlanned = false;
    const read = this.levels.map((level) => level.read(options));
    this.numTokens = checkRows(caller, read);
    const placed = positions.any
      ? levelPositions(
          read.map(({ requests }) => requests),
          this.numTokens,
        )
      : [];
    for (const [n, level] of this.levels.entries()) {
      const isLast = n === this.numLevels - 1;
      const windowed = positions.window && !isLast;
      const bits = windowed ? windowBits(read[n]!.requests, placed[n]!, options.windowLeft!) : undefined;
      level.plan(options, read[n]!, isLast, bits);
    }
    if (this.numLevels > 1) this.reserveStates(options, positions, placed);
    this.isPlanned = true;
  }

  /** What several levels have to make good; what cannot be is refused. */
  private readPositions(caller: string, options: CascadePlanOptions): Positions {
    const { posEncodingMode, windowLeft, logitsSoftCap } = options;
    const refuse = (given: string, expected: string): UnsupportedError =>
      new UnsupportedError(
        'ERR_FLASHINFER_UNSUPPORTED',
        `${caller}: ${given} with several levels; expected ${expected}; use one level`,
      );
    const [rope, alibi] = [posEncodingMode === 'ROPE_LLAMA', posEncodingMode === 'ALIBI'];
    const window = typeof windowLeft === 'number' && windowLeft >= 0;
    if (alibi && logitsSoftCap !== undefined && logitsSoftCap > 0) {
      throw refuse("posEncodingMode is 'ALIBI' and logitsSoftCap is given", 'one of them, since the cap is of the sum');
    }
    if (rope && this.isCudaGraphEnabled) {
      throw refuse(
        "posEncodingMode is 'ROPE_LLAMA' and useCudaGraph true",
        'q and keys rotated before (applyRopePosIds)',
      );
    }
    return { window, rope, alibi, any: window || rope || alibi };
  }

  /**
   * @param q `[numTokens, numQoHeads, headDim]`, the planned qDtype
   * @param pagedKVCache NHD `[numPages, 2, pageSize, numKvHeads, headDim]`, HND `[numPages, 2, numKvHeads, pageSize,
   *   headDim]`, or `[k, v]` without dimension 1, with the pages of all levels; pages may be strided
   * @returns `o` as q; with `returnLse` `[o, lse]`, lse `[numTokens, numQoHeads]` float32, base 2 unless `lseBase` is `'e'`
   */
  run<D extends DType>(
    q: Tensor<D>,
    pagedKVCache: PagedKVCache,
    options: CascadeRunOptions & { returnLse: true },
  ): [Tensor<OutputDType<D>>, Tensor<'float32'>];
  run<D extends DType>(
    q: Tensor<D>,
    pagedKVCache: PagedKVCache,
    options?: CascadeRunOptions & { returnLse?: false },
  ): Tensor<OutputDType<D>>;
  run(q: Tensor, pagedKVCache: PagedKVCache, options: CascadeRunOptions = {}): Tensor | [Tensor, Tensor] {
    checkOptions(`${name}.run`, options, runNames);
    if (this.numLevels === 1) return this.levels[0]!.run(q, pagedKVCache, options) as Tensor;
    const { lseFactor } = readRunNumbers(`${name}.run`, options, { smScale: 1, variant: undefined });
    const states = this.requireStates();
    const [out, lse] = this.outputs(q, states, options);
    this.runLevels(q, pagedKVCache, states, options);
    runMerge({
      v: states.v,
      s: states.s,
      other: undefined,
      out,
      lse,
      mask: undefined,
      lseInFactor: 1,
      lseOutFactor: lseFactor,
      afterJoin: this.side !== undefined,
      ...(this.slopes !== undefined && { alibi: { shifts: states.shifts, slopes: this.slopes } }),
      ...(this.count !== undefined && { count: this.count, maxRows: states.capacity }),
    });
    return lse === undefined ? out : [out, lse];
  }

  /** The first level on the current stream and the others beside it: few shared keys leave most of the GPU idle. */
  private runLevels(q: Tensor, pagedKVCache: PagedKVCache, states: CascadeStates, options: CascadeRunOptions): void {
    const { side } = this;
    if (side === undefined) {
      for (let level = 0; level < this.numLevels; ++level) this.runLevel(level, q, pagedKVCache, states, options);
      return;
    }
    const stream = currentStreamObject(side.deviceIndex);
    side.waitStream(stream);
    try {
      this.runLevel(0, q, pagedKVCache, states, options);
      setStream(side);
      for (let level = 1; level < this.numLevels; ++level) this.runLevel(level, q, pagedKVCache, states, options);
    } finally {
      setStream(stream);
      stream.waitStream(side);
    }
  }

  private runLevel(
    level: number,
    q: Tensor,
    pagedKVCache: PagedKVCache,
    states: CascadeStates,
    options: CascadeRunOptions,
  ): void {
    const levelOptions = this.levelOptions(level, states, options);
    if (this.rotary === undefined || level === this.numLevels - 1) {
      this.levels[level]!.run(q, pagedKVCache, levelOptions);
    } else {
      using rotated = this.rotate(q, level, states, this.rotary);
      this.levels[level]!.run(rotated, pagedKVCache, levelOptions);
    }
  }

  /** The level's kernel rotates q by what it takes for its position: here by the rest. */
  private rotate(q: Tensor, level: number, { shifts }: CascadeStates, angles: RopeFrequencies): Tensor {
    const [numTokens, heads, headDim] = q.shape as [number, number, number];
    using ofLevel = shifts.select(0, level);
    using values = ofLevel.slice(0, 0, numTokens);
    using noKeys = q.slice(1, 0, 0);
    const out = empty(q.shape, { dtype: q.dtype, device: q.device });
    runRope({
      q: { x: q, out, heads },
      k: { x: noKeys, out: noKeys, heads: 0 },
      headDim,
      rotaryDim: headDim,
      interleave: false,
      positions: { indptr: undefined, values },
      angles,
      enablePdl: undefined,
    });
    return out;
  }

  private requireStates(): CascadeStates {
    if (this.disposed) throw new DisposedError(`${name}.run: the wrapper was disposed; make a new one`);
    if (this.states !== undefined && this.isPlanned) return this.states;
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_NOT_PLANNED',
      `${name}.run: there is no plan; expected plan() before it, once for each change of lengths or pages`,
    );
  }

  private levelOptions(
    level: number,
    states: CascadeStates,
    { qScale, kScale, vScale }: CascadeRunOptions,
  ): BatchRunOptions {
    const options: BatchRunOptions = { ...states.part(level), returnLse: true };
    if (qScale !== undefined) options.qScale = qScale;
    if (kScale !== undefined) options.kScale = kScale;
    if (vScale !== undefined) options.vScale = vScale;
    return options;
  }

  private outputs(q: Tensor, { v }: CascadeStates, options: CascadeRunOptions): [Tensor, Tensor | undefined] {
    const check = new Checker(`${name}.run`);
    const dims = [this.numTokens, v.shape[2]!, v.shape[3]!];
    const { device } = this;
    const qDims = [this.numTokens, v.shape[2]!, this.headDimQk];
    check.tensor('q', q, qDims, { dtypes: [v.dtype], device, lastDimContiguous: true });
    check.optionalTensor('out', options.out, dims, { dtypes: [v.dtype], device, lastDimContiguous: true });
    const lseDims = [this.numTokens, v.shape[2]!];
    check.optionalTensor('lse', options.lse, lseDims, { dtypes: ['float32'], device, contiguous: true });
    checkNoOverlap(check.functionName, 'lse', options.lse, { out: options.out });
    const out = options.out ?? empty(dims, { dtype: v.dtype, device });
    if (options.returnLse !== true) return [out, undefined];
    return [out, options.lse ?? empty(lseDims, { dtype: 'float32', device })];
  }

  private reserveStates(options: CascadePlanOptions, positions: Positions, placed: readonly LevelPositions[]): void {
    const { numQoHeads, headDimQk, qDtype = 'float16' } = options;
    const { numLevels, device, numTokens } = this;
    const shape = { numTokens, numQoHeads, headDimVo: headDimVoOf(headDimQk), dtype: qDtype };
    if (this.states?.fits(shape) !== true) {
      this.states?.dispose();
      const capacity = this.maxNumTokens ?? Math.ceil(numTokens * 1.25);
      this.states = new CascadeStates(numLevels, device, capacity, shape);
    }
    this.states.cut(numTokens);
    this.headDimQk = headDimQk;
    this.rotary = positions.rope ? rotaryOf(options) : undefined;
    this.slopes = positions.alibi ? alibiSlopes(numQoHeads, device) : undefined;
    const last = placed[numLevels - 1]!;
    if (positions.rope) this.states.writeShifts(placed.map(rotations));
    if (positions.alibi) this.states.writeShifts(placed.map((level) => alibiShifts(level, last)));
    if (deviceIndex(device) < 0) return;
    if (!this.sharesWorkspace) this.side ??= new Stream({ device });
    if (this.maxNumTokens === undefined) return;
    this.count ??= empty([1], { dtype: 'int32', device });
    writeWords(this.count, Int32Array.of(numTokens));
  }

  private checkList(caller: string, list: string, value: unknown): void {
    if (Array.isArray(value) && value.length === this.numLevels) return;
    const given = Array.isArray(value) ? `has ${value.length} entries` : `is ${describeValue(value)}`;
    throw invalid(`${caller}: ${list} ${given}; expected an array of numLevels=${this.numLevels}, one entry a level`);
  }
}

function rotaryOf({ ropeScale = 1, ropeTheta = 1e4 }: CascadePlanOptions): RopeFrequencies {
  return { rcpScale: 1 / ropeScale, theta: ropeTheta, smoothA: 0, smoothB: 0 };
}

function checkRows(caller: string, read: readonly ReadLevel[]): number {
  const { numTokens } = read[0]!;
  const wrong = read.findIndex((level) => level.numTokens !== numTokens);
  if (wrong < 0) return numTokens;
  throw invalid(
    `${caller}: qoIndptrArr[${wrong}] ends with ${read[wrong]!.numTokens}; expected ${numTokens} as qoIndptrArr[0]; every ` +
      'level has all query rows, those without keys there in requests without pages',
  );
}

function ofLevel(option: string, value: number | readonly number[], level: number, numLevels: number): number {
  if (typeof value === 'number') return value;
  if (Array.isArray(value) && value.length === numLevels) return value[level];
  throw invalid(
    `${name}: ${option} is ${describeValue(value)}; expected a number, or one for each of ${numLevels} levels`,
  );
}

function invalid(message: string): FlashInferError {
  return new InvalidArgumentError('ERR_FLASHINFER_INVALID_ARGUMENT', message);
}
