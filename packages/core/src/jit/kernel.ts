// SPDX-License-Identifier: Apache-2.0
// A kernel that is loaded on a device and can be launched.
import { FlashInferError } from '../errors.ts';
import type { KernelHandle, KernelInfo, NativeCuda, Ptr } from '../native/binding.ts';
import { native, toFlashInferError } from '../native/load.ts';
import { smArch } from '../runtime/device.ts';
import { targetFor } from './arch.ts';
import { runSync } from './bothWays.ts';
import { jitEnvironment } from './environment.ts';
import { type KernelArgs, ParamsPacker } from './packer.ts';
import { type JitEnvironment, type ResolvedModule, resolveModule } from './resolve.ts';
import type { KernelSpec } from './spec.ts';

export type { KernelArgs } from './packer.ts';

export interface LaunchOptions {
  readonly stream: Ptr;
  /** Dynamic shared memory, bytes. */
  readonly sharedBytes?: number;
  /** Blocks a cluster, along x (sm_90 and up). */
  readonly cluster?: number;
  /** Programmatic dependent launch: the kernel may start before the previous one of the stream ended. */
  readonly pdl?: boolean;
  /** Threads a block, at most the spec's, which is the default. */
  readonly threads?: number;
}

/** Made by {@link getKernel}; lives as long as the process. */
export class Kernel {
  readonly info: KernelInfo;
  readonly #cuda: NativeCuda;
  readonly #name: string;
  readonly #deviceIndex: number;
  readonly #module: Ptr;
  readonly #threads: number;
  readonly #packer: ParamsPacker;
  #handle: KernelHandle;
  #allowedSharedBytes = 0;

  /** @internal */
  constructor(cuda: NativeCuda, deviceIndex: number, module: Ptr, spec: KernelSpec) {
    this.#cuda = cuda;
    this.#name = spec.name;
    this.#deviceIndex = deviceIndex;
    this.#module = module;
    this.#threads = spec.threads;
    this.#packer = new ParamsPacker(spec);
    this.#handle = cuda.kernelCreate(deviceIndex, module, spec.name, this.#packer.buffer, 0);
    this.info = cuda.kernelInfo(this.#handle);
  }

  /** Bytes of the struct as this library writes it; the driver's view is `info.paramBytes`. */
  get paramBytes(): number {
    return this.#packer.buffer.byteLength;
  }

  /** What the addon launches, with the struct of the last {@link launch}: benchmarks time it by itself. */
  get handle(): KernelHandle {
    return this.#handle;
  }

  /** Packs the arguments and launches once; the arguments may change as soon as this returns. */
  launch(grid: readonly [number, number, number], args: KernelArgs, opts: LaunchOptions): void {
    const { stream, sharedBytes = 0, cluster = 0, pdl = false, threads = this.#threads } = opts;
    this.#packer.pack(args);
    if (sharedBytes > this.#allowedSharedBytes) this.#allowShared(sharedBytes);
    try {
      this.#cuda.launch(this.#handle, grid[0], grid[1], grid[2], threads, sharedBytes, stream, cluster, pdl);
    } catch (error) {
      throw toFlashInferError(error, this.#name);
    }
  }

  /** Blocks that fit on one multiprocessor with this much dynamic shared memory. */
  occupancy(sharedBytes: number): number {
    if (sharedBytes > this.#allowedSharedBytes) this.#allowShared(sharedBytes);
    return this.#cuda.kernelOccupancy(this.#handle, this.#threads, sharedBytes);
  }

  /** Clusters of so many blocks that the device runs at once, 0 for none; to ask before a launch with more than 8. */
  clusters(cluster: number): number {
    return this.#cuda.kernelClusters(this.#handle, this.#threads, cluster);
  }

  // Raised to what launches ask for and no further: the driver takes a high limit as a wish for less L1 cache.
  #allowShared(bytes: number): void {
    try {
      const handle = this.#cuda.kernelCreate(this.#deviceIndex, this.#module, this.#name, this.#packer.buffer, bytes);
      this.#cuda.kernelDestroy(this.#handle);
      this.#handle = handle;
      this.#allowedSharedBytes = bytes;
    } catch (error) {
      throw toFlashInferError(error, `${this.#name} with ${bytes} bytes of shared memory`);
    }
  }
}

const bySpec = new WeakMap<KernelSpec, (Kernel | undefined)[]>();
/** Equal specs that are not the same object share a kernel. */
const byUri = new Map<string, Kernel>();

/**
 * The kernel of `spec` on a device, loaded at the first call: from the user's cache, an add-on package, or compiled, which
 * blocks and is logged; `warmup()` does that beforehand and off the event loop. Later calls with the same object cost
 * tens of nanoseconds.
 *
 * @throws UnsupportedError, BinaryNotFoundError, CompileError, CacheError, CudaError
 */
export function getKernel(spec: KernelSpec, deviceIndex: number): Kernel {
  return bySpec.get(spec)?.[deviceIndex] ?? loadKernel(spec, deviceIndex);
}

function loadKernel(spec: KernelSpec, deviceIndex: number): Kernel {
  const jit = jitEnvironment();
  const target = targetFor(smArch(deviceIndex), spec, jit.config.archList);
  return installModule(jit, spec, deviceIndex, runSync(resolveModule(jit, spec, target, { blocking: true })));
}

/** @internal The kernel of a resolved module, from memory when an equal spec was loaded before. */
export function installModule(
  jit: JitEnvironment,
  spec: KernelSpec,
  deviceIndex: number,
  module: ResolvedModule,
): Kernel {
  const id = `${deviceIndex}/${module.target}/${module.uri}`;
  const kernel = byUri.get(id) ?? instantiate(native().cuda, jit, spec, deviceIndex, module);
  byUri.set(id, kernel);
  const kernels = bySpec.get(spec) ?? [];
  kernels[deviceIndex] = kernel;
  bySpec.set(spec, kernels);
  return kernel;
}

/** @internal Whether getKernel would answer from memory. */
export function isLoaded(spec: KernelSpec, deviceIndex: number): boolean {
  return bySpec.get(spec)?.[deviceIndex] !== undefined;
}

/**
 * @internal Loads a module. One that the driver refuses, or whose parameters are not the spec's, is stale: it is compiled
 * anew, once. What was just compiled is taken as it is, so its errors are final.
 */
export function instantiate(
  cuda: NativeCuda,
  jit: JitEnvironment,
  spec: KernelSpec,
  deviceIndex: number,
  module: ResolvedModule,
): Kernel {
  const loaded = tryLoad(cuda, spec, deviceIndex, module);
  if (loaded instanceof Kernel) return loaded;
  if (module.origin === 'compiled' || !loaded.stale) throw loaded.error;
  const rejected = `${module.origin} ${module.path}: ${loaded.error.message}`;
  const rebuilt = runSync(resolveModule(jit, spec, module.target, { blocking: true, rejected }));
  const second = tryLoad(cuda, spec, deviceIndex, rebuilt);
  if (second instanceof Kernel) return second;
  throw second.error;
}

/** CUresults of a module that does not fit: INVALID_IMAGE, NO_BINARY_FOR_GPU, INVALID_PTX, UNSUPPORTED_PTX, NOT_FOUND. */
const staleResults = new Set([200, 209, 218, 222, 500]);

function tryLoad(
  cuda: NativeCuda,
  spec: KernelSpec,
  deviceIndex: number,
  { uri, cubin }: ResolvedModule,
): Kernel | { readonly error: FlashInferError; readonly stale: boolean } {
  let module: Ptr;
  try {
    module = cuda.moduleLoad(deviceIndex, cubin);
  } catch (cause) {
    return failure(cause, uri);
  }
  try {
    const kernel = new Kernel(cuda, deviceIndex, module, spec);
    const { paramBytes } = kernel.info;
    if (paramBytes === undefined || (paramBytes.length === 1 && paramBytes[0] === kernel.paramBytes)) return kernel;
    cuda.moduleUnload(deviceIndex, module);
    const message = `getKernel: ${uri} takes parameters of ${paramBytes} bytes; expected one of ${kernel.paramBytes}`;
    return { error: new FlashInferError('ERR_FLASHINFER_INTERNAL', message), stale: true };
  } catch (cause) {
    cuda.moduleUnload(deviceIndex, module);
    return failure(cause, uri);
  }
}

function failure(cause: unknown, uri: string): { error: FlashInferError; stale: boolean } {
  const { code, driverCode } = cause as { code?: string; driverCode?: number };
  // The addon reports a struct shorter than the kernel's as INTERNAL.
  const stale = code === 'INTERNAL' || (driverCode !== undefined && staleResults.has(driverCode));
  return { error: toFlashInferError(cause, `getKernel: ${uri}`), stale };
}
