// SPDX-License-Identifier: Apache-2.0
// What the addon (csrc/) exports. Types only: csrc/addon.cc registers exactly these names.
// Addresses and driver handles are JS numbers (user-space addresses are below 2^53); 0 means none.
// The addon trusts its callers: every argument was checked in TypeScript. It checks only what memory safety needs: a
// handle or block that this thread does not own (any more) throws code 'INVALID_POINTER'. nativeError.ts maps the codes.

/** An address in host or device memory, or an opaque driver handle. */
export type Ptr = number;

export interface NativeBinding {
  readonly version: string;
  host: NativeHost;
  cpu: NativeCpu;
  cuda: NativeCuda;
  nvrtc: NativeNvrtc;
}

/** Host memory: what `cpu` tensors live in. Blocks are 64-byte aligned and freed with the environment at the latest. */
export interface NativeHost {
  alloc(bytes: number): Ptr; // throws code 'OOM'
  free(ptr: Ptr): void;
  /** Copies bytes between JS memory and native memory. */
  write(dst: Ptr, src: Uint8Array): void;
  read(src: Ptr, dst: Uint8Array): void;
  copy(dst: Ptr, src: Ptr, bytes: number): void;
  fill(dst: Ptr, byte: number, bytes: number): void;
  /**
   * Takes an exclusive lock that the system drops when the process dies (flock, LockFileEx); creates the file.
   * Returns a handle, or -1 when another holder (also in this process) has it. Throws code 'IO'.
   */
  tryLockFile(path: string): number;
  unlockFile(handle: number): void;
  /** Bytes currently allocated by this environment. */
  allocatedBytes(): number;
}

export type CpuIsa = 'avx512bf16' | 'avx512' | 'avx2' | 'neon' | 'generic';

/** Operators of the cpu device; each takes one plain object. Filled in by csrc/cpu, one entry an operator. */
export interface NativeCpu {
  /** `isa`: what attention's kernels use; `availableIsas`: best first; `maxThreads`: cores this process may run on. */
  info(): { isa: CpuIsa; availableIsas: CpuIsa[]; features: string[]; numThreads: number; maxThreads: number };
  /** Threads that compute at the same time in this process, callers included; at least 1. Results do not depend on it. */
  setNumThreads(n: number): void;
  /** Best GB/s of `repetitions` passes that read `bytes` with the pool's threads. For benchmarks. */
  readBandwidth(bytes: number, repetitions: number): number;
  /** For tests: makes this process use another available instruction set; 'auto' goes back to the best. */
  setIsa(isa: CpuIsa | 'auto'): void;
  /** Converts `count` contiguous elements, one rounding; include/flashinfer/elementwise/convert.cuh has the rules. */
  cast(args: { src: Ptr; srcDtype: number; dst: Ptr; dstDtype: number; count: number }): void;
  /**
   * Same shape, any strides (in elements; 0 only in src), rank up to 8; src and dst must not overlap.
   * Fast where dimensions are merged and ordered by dst's strides, fastest last: tensor/copyPlan.ts.
   */
  stridedCopy(args: {
    src: Ptr;
    dst: Ptr;
    elementBytes: number;
    shape: number[];
    srcStrides: number[];
    dstStrides: number[];
  }): void;
  /**
   * Philox4x32-10; element i comes from counter i/4, lane i%4, so results do not depend on threads or device.
   * Floating dtypes only. Uniform: [0, 1), a multiple of the dtype's precision just below 1.
   */
  randomUniform(args: { dst: Ptr; dtype: number; count: number; seed: bigint }): void;
  randomNormal(args: { dst: Ptr; dtype: number; count: number; seed: bigint }): void;
  /** `value` rounds once from float64; a bigint is an int64 and converts as one. */
  fill(args: { dst: Ptr; dtype: number; count: number; value: number | bigint }): void;
  /** Element i is start + i * step in float64, rounded once. */
  arange(args: { dst: Ptr; dtype: number; count: number; start: number; step: number }): void;
  /**
   * A bit of dst for each of `count` bytes of src: is it zero? The first of eight is the highest bit of a byte (`big`) or
   * the lowest; what is missing at the end is 0. Segment s, of `numSegments` if any, is elements srcIndptr[s] up to
   * srcIndptr[s + 1] and starts at byte dstIndptr[s]; both int32 `[numSegments + 1]`.
   */
  packBits(src: Ptr, dst: Ptr, count: number, big: boolean, srcIndptr: Ptr, dstIndptr: Ptr, numSegments: number): void;
  /**
   * The largest value, read as unsigned, so that a negative one is at least 2^31; 0 for an empty array. Plans scan their
   * page ids with it: in JavaScript that would be half of a plan's time.
   */
  maxUint32(values: Int32Array): number;
  attention(args: CpuAttentionArgs): void;
  /** Opens the library of a custom variant; what it exports becomes `variant` of CpuAttentionArgs. */
  loadVariant(path: string): Ptr;
  mergeStates(args: CpuMergeArgs): void;
  norm(args: CpuNormArgs): void;
  actAndMul(args: CpuActivationArgs): void;
  rope(args: CpuRopeArgs): void;
  topk(args: CpuTopKArgs): void;
  sampling(args: CpuSamplingArgs): void;
  chainSpeculative(args: CpuChainArgs): void;
  /** Writes the scales too unless they are `given`. */
  quantizeFp8(args: CpuFp8Args & { given: boolean }): void;
  dequantizeFp8(args: CpuFp8Args): void;
  appendPagedKv(args: CpuAppendArgs): void;
  /**
   * Tokens appendIndptr[r] up to appendIndptr[r + 1] are the last of request r's seqLens[r]: writes request and position
   * of each of `rows` tokens, -1 and 0 where a row is of no request. All int32.
   */
  batchIndicesPositions(
    appendIndptr: Ptr,
    seqLens: Ptr,
    batchSize: number,
    batchIndices: Ptr,
    positions: Ptr,
    rows: number,
  ): void;
  /** seqLens[r] = max(kvIndptr[r + 1] - kvIndptr[r] - 1, 0) * pageSize + kvLastPageLen[r]; all int32. */
  seqLens(kvIndptr: Ptr, kvLastPageLen: Ptr, batchSize: number, pageSize: number, seqLens: Ptr): void;
}

/**
 * Copies k `[rows, heads, kWidth]` and v `[rows, heads, vWidth]` into a paged cache; widths and strides in bytes. Row i
 * goes to position positions[i] of request batchIndices[i], whose pages are kvIndices[kvIndptr[r]] and on; rows that the
 * page table has no place for are left out. Indices are int32, kvIndptr `[batchSize + 1]`.
 */
export interface CpuAppendArgs {
  k: Ptr;
  kCache: Ptr;
  kWidth: number;
  kStrideN: number;
  kStrideH: number;
  kCacheStridePage: number;
  kCacheStrideN: number;
  kCacheStrideH: number;
  v: Ptr;
  vCache: Ptr;
  vWidth: number;
  vStrideN: number;
  vStrideH: number;
  vCacheStridePage: number;
  vCacheStrideN: number;
  vCacheStrideH: number;
  rows: number;
  heads: number;
  pageSize: number;
  numPages: number;
  batchIndices: Ptr;
  positions: Ptr;
  kvIndices: Ptr;
  kvIndptr: Ptr;
  batchSize: number;
  numIndices: number;
}

/**
 * Rotary embeddings: q `[tokens, qHeads, headDim]`, k `[tokens, kHeads, headDim]`; strides in elements, last dim
 * contiguous. The first `rotaryDim` elements of a head are rotated, the others copied. Outputs may be the inputs.
 */
export interface CpuRopeArgs {
  dtype: number;
  q: Ptr;
  qOut: Ptr;
  qHeads: number;
  qStrideN: number;
  qStrideH: number;
  qOutStrideN: number;
  qOutStrideH: number;
  k: Ptr;
  kOut: Ptr;
  kHeads: number;
  kStrideN: number;
  kStrideH: number;
  kOutStrideN: number;
  kOutStrideH: number;
  tokens: number;
  headDim: number;
  rotaryDim: number;
  /** Pairs (2d, 2d + 1) instead of (d, d + rotaryDim / 2). */
  interleave: boolean;
  /** int32 or int64, of `indexDtype`: `[batchSize + 1]`, or 0. */
  indptr: Ptr;
  /** `[batchSize]` offsets with indptr, else `[tokens]`. */
  positions: Ptr;
  indexDtype: number;
  batchSize: number;
  /** float32 `[cacheRows, rotaryDim]`, cosines then sines, or 0: the frequencies below. NaN at other positions. */
  cache: Ptr;
  cacheRows: number;
  cacheStride: number;
  /** Frequency f = theta^(-2d/rotaryDim); a share f * smoothA + smoothB, within [0, 1], keeps it, the rest has f * rcpScale. */
  rcpScale: number;
  theta: number;
  smoothA: number;
  smoothB: number;
}

/**
 * Rows `[rows, length]` of floats to fp8 or back, strides in elements; a float32 scale a tile of tileRows by tileLength, of
 * tile (r, c) at r * scaleStrideR + c * scaleStrideC.
 */
export interface CpuFp8Args {
  dtype: number;
  outDtype: number;
  x: Ptr;
  xStride: number;
  out: Ptr;
  outStride: number;
  rows: number;
  length: number;
  tileRows: number;
  tileLength: number;
  scale: Ptr;
  scaleStrideR: number;
  scaleStrideC: number;
}

/**
 * values (x's dtype) and int32 indices `[rows, k]` of the k largest elements of each row of x, 1 <= k <= length; by index,
 * or sorted from the largest down. Among equals those with small indices come first, or with `tieLarge` large ones.
 */
export interface CpuTopKArgs {
  dtype: number;
  x: Ptr;
  /** Of rows, in elements. */
  stride: number;
  rows: number;
  length: number;
  k: number;
  values: Ptr;
  indices: Ptr;
  sorted: boolean;
  tieLarge: boolean;
}

/** All contiguous; draft and target of dtype, the others int32; accepted and emitted are added to. */
export interface CpuChainArgs {
  dtype: number;
  draft: Ptr;
  target: Ptr;
  ids: Ptr;
  out: Ptr;
  accepted: Ptr;
  emitted: Ptr;
  seed: Ptr;
  offset: Ptr;
  seed_value: bigint;
  offset_value: bigint;
  seed_per_row: number;
  offset_per_row: number;
  drafted: number;
  vocab: number;
  requests: number;
}

/**
 * One row of out a source row: softmax (kind 0, float32 out), tokens of probabilities (1) or logits (2, int32 out),
 * probabilities divided by the sum of those kept (3), logits with -infinity for those not kept (4). Fields and filters
 * are those of the CUDA kernels; pointers of one value a row are 0 where `..._value` is for all rows.
 */
export interface CpuSamplingArgs {
  kind: number;
  dtype: number;
  x: Ptr;
  out: Ptr;
  /** Bool, one a token: whether there was a weight to draw from; or 0. */
  valid: Ptr;
  indices: Ptr;
  temperature: Ptr;
  top_k: Ptr;
  top_p: Ptr;
  min_p: Ptr;
  seed: Ptr;
  offset: Ptr;
  x_stride: number;
  rows: number;
  out_rows: number;
  vocab: number;
  filters: number;
  temperature_value: number;
  top_k_value: number;
  top_p_value: number;
  min_p_value: number;
  seed_value: bigint;
  offset_value: bigint;
  seed_per_row: number;
  offset_per_row: number;
}

/** out `[rows, length]` = activation(x[:, :length]) * x[:, length:]; row strides in elements. out may be a half of x. */
export interface CpuActivationArgs {
  /** 0 silu, 1 gelu, 2 gelu with tanh. */
  kind: number;
  dtype: number;
  x: Ptr;
  xStride: number;
  out: Ptr;
  outStride: number;
  rows: number;
  length: number;
}

/**
 * Merges attention states: values `[rows, heads, length]` with log-sum-exps `[rows, heads]`, each times lseInFactor base 2.
 * Strides in elements, values' last dim contiguous. Of a pair `sOther` is not 0 and numStates 2; else numStates states
 * lie vStrideI and sStrideI apart. out and lse may be v and s.
 */
export interface CpuMergeArgs {
  dtype: number;
  v: Ptr;
  vStrideN: number;
  vStrideH: number;
  vStrideI: number;
  s: Ptr;
  sStrideN: number;
  sStrideH: number;
  sStrideI: number;
  vOther: Ptr;
  vOtherStrideN: number;
  vOtherStrideH: number;
  sOther: Ptr;
  sOtherStrideN: number;
  sOtherStrideH: number;
  out: Ptr;
  outStrideN: number;
  outStrideH: number;
  /** Or 0: not written. */
  lse: Ptr;
  lseStrideN: number;
  lseStrideH: number;
  /** A byte a row, or 0: rows with 0 are left alone. */
  mask: Ptr;
  /** int32 `[numStates, rows]`, shiftStrideI apart, or 0; times slopes, float32 `[heads]`, added to natural logarithms. */
  shifts: Ptr;
  shiftStrideI: number;
  slopes: Ptr;
  rows: number;
  heads: number;
  length: number;
  numStates: number;
  lseInFactor: number;
  /** Multiplies the base-2 result. */
  lseOutFactor: number;
}

/**
 * RMSNorm (`layer` false) or LayerNorm of `[tokens, heads, length]`; strides of tokens and heads in elements, rows
 * contiguous. out's dtype is x's, or fp8.
 */
export interface CpuNormArgs {
  layer: boolean;
  dtype: number;
  outDtype: number;
  /** float32 for LayerNorm, else x's. */
  weightDtype: number;
  x: Ptr;
  xStrideN: number;
  xStrideH: number;
  /** 0, or what x is added to first, in place; its dtype is x's. */
  residual: Ptr;
  residualStrideN: number;
  residualStrideH: number;
  /** May be x. */
  out: Ptr;
  outStrideN: number;
  outStrideH: number;
  weight: Ptr;
  /** LayerNorm's, else 0. */
  bias: Ptr;
  /** float32, one element, or 0: `scaleValue` divides the output. */
  scale: Ptr;
  scaleValue: number;
  tokens: number;
  heads: number;
  length: number;
  eps: number;
  weightOffset: number;
}

/**
 * One request of attention on the cpu: q `[qoLen, numQoHeads, headDimQk]`, k `[kvLen, numKvHeads, headDimQk]`,
 * v `[kvLen, numKvHeads, headDimVo]`, out `[qoLen, numQoHeads, headDimVo]`; strides in elements, last dim contiguous.
 * Decode is qoLen = 1. NHD and HND differ only in strides.
 */
export interface CpuAttentionArgs {
  q: Ptr;
  k: Ptr;
  v: Ptr;
  out: Ptr;
  /** float32 `[qoLen, numQoHeads]`, base 2, or 0. */
  lse: Ptr;
  qDtype: number;
  kvDtype: number;
  outDtype: number;
  qoLen: number;
  kvLen: number;
  numQoHeads: number;
  numKvHeads: number;
  headDimQk: number;
  headDimVo: number;
  qStrideN: number;
  qStrideH: number;
  kStrideN: number;
  kStrideH: number;
  vStrideN: number;
  vStrideH: number;
  outStrideN: number;
  outStrideH: number;
  /** 0 none, 1 causal (bottom-right aligned), 2 custom. */
  maskMode: number;
  /** Packed little-endian bits of `[qoLen, kvLen]`, or 0. */
  customMask: Ptr;
  /** 0 none, 1 ROPE_LLAMA, 2 ALIBI. */
  posEncodingMode: number;
  /** float32 `[numQoHeads]`, or 0. ALIBI adds slope * (kvIdx - i) for query row i, as FlashInfer does (decode: i = 0). */
  alibiSlopes: Ptr;
  /** float32 `[numQoHeads]`, natural logits that join each row's softmax, or 0. */
  sinks: Ptr;
  windowLeft: number; // -1: off
  logitsSoftCap: number; // 0: off
  smScale: number;
  ropeScale: number;
  ropeTheta: number;
  /** Multiplies the output. */
  vScale: number;
  /** float32, a query head or kv head each, or 0: factors of q, k and v. */
  qScales?: Ptr;
  kScales?: Ptr;
  vScales?: Ptr;
  /** Multiplies the base-2 log-sum-exp: 1, or ln 2 for base e. */
  lseFactor: number;
  /**
   * A paged KV-cache: int32 page ids `[ceil(kvLen / pageSize)]`. Key j is then slot j % pageSize of page
   * pageIndices[j / pageSize]; k and v point at page 0, and kStrideN and vStrideN are the strides between slots.
   */
  pageIndices?: Ptr;
  pageSize?: number;
  kStridePage?: number;
  vStridePage?: number;
  /** A custom variant: its table, its params struct, and the number of the request that hooks are told. */
  variant?: Ptr;
  variantParams?: Uint8Array;
  batchIdx?: number;
}

/**
 * Errors are thrown as Error with `code: 'CUDA'` or 'OOM' and `driverCode: number` (CUresult), 'CUDA_UNAVAILABLE', or
 * 'UNSUPPORTED' (the driver is too old; a copy to or from JS memory on a stream that is being captured).
 * Handles belong to the thread (main or worker) that made them; all are released when it ends. Stream 0 is none.
 */
export interface NativeCuda {
  /** Opens the driver once. Never throws: says what was found, or where it was looked for. */
  probe(): {
    ok: boolean;
    library?: string;
    driverVersion?: number;
    deviceCount?: number;
    error?: string;
    searched: string[];
  };
  deviceProperties(device: number): DeviceProperties;
  /** Retains the device's primary context, makes its memory pool and this environment's default stream. */
  initDevice(device: number): { defaultStream: Ptr };
  memInfo(device: number): { free: number; total: number; poolUsed: number; poolReserved: number };
  /**
   * cuMemAllocAsync / cuMemFreeAsync on the device's pool, in stream order. On a stream that is being captured, memory
   * belongs to the graph; a block from outside that is freed there is freed when the capture ends. A stream that was
   * destroyed since counts as the default stream.
   */
  memAlloc(device: number, bytes: number, stream: Ptr): Ptr;
  memFree(device: number, ptr: Ptr, stream: Ptr): void;
  /** Pinned host memory. */
  pinnedAlloc(device: number, bytes: number): Ptr;
  pinnedFree(ptr: Ptr): void;
  /** All copies are asynchronous in stream order; host pointers must be pinned or stay valid. */
  copyHtoD(dst: Ptr, src: Ptr, bytes: number, stream: Ptr): void;
  copyDtoH(dst: Ptr, src: Ptr, bytes: number, stream: Ptr): void;
  copyDtoD(dst: Ptr, src: Ptr, bytes: number, stream: Ptr): void;
  /** JS memory → device: stages internally, so `src` may change as soon as the call returns. */
  write(device: number, dst: Ptr, src: Uint8Array, stream: Ptr): void;
  /** Both as if they were one, with one copy where they are small. */
  writeBoth(device: number, dst: Ptr, first: Uint8Array, second: Uint8Array, stream: Ptr): void;
  /** Device → JS memory, after all earlier work of the stream; the Promise settles off the event loop. */
  read(device: number, src: Ptr, dst: Uint8Array, stream: Ptr): Promise<void>;
  readSync(device: number, src: Ptr, dst: Uint8Array, stream: Ptr): void;
  memset(dst: Ptr, value: number, elementBytes: 1 | 2 | 4, count: number, stream: Ptr): void;

  streamCreate(device: number, priority: number): Ptr;
  streamDestroy(stream: Ptr): void;
  streamSynchronize(stream: Ptr): void;
  streamSynchronizeAsync(device: number, stream: Ptr): Promise<void>;
  streamWaitEvent(stream: Ptr, event: Ptr): void;
  streamIsCapturing(stream: Ptr): boolean;
  deviceSynchronize(device: number): void;
  deviceSynchronizeAsync(device: number): Promise<void>;

  /**
   * With `interrupts`, who waits for it sleeps; the device then takes 0.9 us more (H200) from its time to the work behind
   * it. Without, who waits keeps a core busy.
   */
  eventCreate(device: number, timing: boolean, interrupts: boolean): Ptr;
  eventDestroy(event: Ptr): void;
  eventRecord(event: Ptr, stream: Ptr): void;
  eventQuery(event: Ptr): boolean;
  eventSynchronize(event: Ptr): void;
  eventSynchronizeAsync(device: number, event: Ptr): Promise<void>;
  eventElapsedMs(start: Ptr, end: Ptr): number;

  captureBegin(stream: Ptr): void;
  /** Ends capture and returns the graph (cuGraph_t); throws if the capture was invalidated. */
  captureEnd(stream: Ptr): Ptr;
  graphInstantiate(device: number, graph: Ptr): Ptr;
  graphLaunch(exec: Ptr, stream: Ptr): void;
  graphNodeCount(graph: Ptr): number;
  graphDestroy(graph: Ptr): void;
  graphExecDestroy(exec: Ptr): void;

  /** Loads a cubin (or PTX, NUL-terminated by the addon). */
  moduleLoad(device: number, image: Uint8Array): Ptr;
  moduleUnload(device: number, module: Ptr): void;
  /**
   * Looks the kernel up and binds it to a launch record. Raises the dynamic shared memory limit to `maxSharedBytes`.
   * `params` is the struct's bytes, kept alive by the addon and read at every launch.
   */
  kernelCreate(device: number, module: Ptr, name: string, params: ArrayBuffer, maxSharedBytes: number): KernelHandle;
  kernelInfo(kernel: KernelHandle): KernelInfo;
  kernelDestroy(kernel: KernelHandle): void;
  /** Resident blocks a multiprocessor at this block size and dynamic shared memory. */
  kernelOccupancy(kernel: KernelHandle, threads: number, sharedBytes: number): number;
  /**
   * Clusters of so many blocks, without dynamic shared memory, that the device runs at once: 0 where it runs none. More than
   * 8 blocks, which some GPUs have room for, a launch takes behind this call alone.
   */
  kernelClusters(kernel: KernelHandle, threads: number, cluster: number): number;
  /** One cuLaunchKernelEx with the struct's current bytes. cluster = 0: no cluster attribute; pdl: programmatic dependent launch. */
  launch(
    kernel: KernelHandle,
    gridX: number,
    gridY: number,
    gridZ: number,
    blockX: number,
    sharedBytes: number,
    stream: Ptr,
    cluster: number,
    pdl: boolean,
  ): void;
  /** 128 bytes of CUtensorMap for a tiled tensor. dims/box innermost first; strides in bytes, without the innermost. */
  tensorMapEncodeTiled(args: {
    dtype: number;
    rank: number;
    address: Ptr;
    dims: number[];
    strides: number[];
    box: number[];
    elementStrides: number[];
    interleave: number;
    swizzle: number;
    l2Promotion: number;
    oobFill: number;
  }): Uint8Array;
}

/** Opaque: a JS external or small integer that only the addon reads. */
export type KernelHandle = unknown;

export interface KernelInfo {
  numRegs: number;
  localBytes: number;
  staticSharedBytes: number;
  maxThreadsPerBlock: number;
  binaryVersion: number;
  /** Size of each parameter as the driver sees it, or undefined where the driver cannot tell. */
  paramBytes: number[] | undefined;
}

export interface DeviceProperties {
  name: string;
  major: number;
  minor: number;
  multiProcessorCount: number;
  totalMemory: number;
  l2CacheBytes: number;
  sharedMemPerBlock: number;
  sharedMemPerBlockOptin: number;
  sharedMemPerMultiprocessor: number;
  regsPerMultiprocessor: number;
  maxThreadsPerMultiprocessor: number;
  maxThreadsPerBlock: number;
  warpSize: number;
  clockRateKHz: number;
  memoryClockRateKHz: number;
  memoryBusWidthBits: number;
  memoryPoolsSupported: boolean;
  pciBusId: string;
  uuid: string;
  integrated: boolean;
  computeMode: number;
}

export interface NativeNvrtc {
  /** Opens libnvrtc once (per path). `paths`: candidates tried before the system's search path. */
  probe(paths: string[]): {
    ok: boolean;
    library?: string;
    version?: string;
    error?: string;
    searched: string[];
    archs?: number[];
  };
  /** Compiles in this thread with the last library found. Throws code 'COMPILE' with `log`, or 'COMPILER_NOT_FOUND'. */
  compileSync(source: string, name: string, options: string[]): { cubin: Uint8Array; log: string };
  /** The same on a worker thread. */
  compile(source: string, name: string, options: string[]): Promise<{ cubin: Uint8Array; log: string }>;
}
