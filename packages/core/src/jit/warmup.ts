// SPDX-License-Identifier: Apache-2.0
import { describeValue } from '../check/describeValue.ts';
import { checkOptions } from '../check/options.ts';
import { AbortedError, InvalidArgumentError } from '../errors.ts';
import { cudaDeviceCount, defaultDevice, deviceIndex, parseDevice, smArch } from '../runtime/device.ts';
import { namedTarget, parseTarget, type Target, targetFor } from './arch.ts';
import { runAsync } from './bothWays.ts';
import { jitEnvironment } from './environment.ts';
import { parallelJobs, runParallel } from './jobs.ts';
import { installModule, isLoaded } from './kernel.ts';
import { moduleKey } from './key.ts';
import { type JitEnvironment, type ModuleOrigin, resolveModule } from './resolve.ts';
import type { KernelSpec } from './spec.ts';

/** Whatever knows the kernels it is going to launch: planned wrappers, for one. */
export interface KernelPlan {
  kernelSpecs(): readonly KernelSpec[];
}

/** One kernel became ready. */
export interface WarmupProgress {
  readonly done: number;
  readonly total: number;
  /** The kernel's name. */
  readonly name: string;
  /** Where it came from; `loaded`: it was in memory already. */
  readonly source: ModuleOrigin | 'loaded';
  /** How long this kernel took. */
  readonly seconds: number;
}

export interface WarmupOptions {
  /** Load the kernels on this device. Default: the default device, when that is a GPU. */
  readonly device?: string;
  /** Only fill the cache, for an architecture such as `'9.0a'`; needs no GPU. Default where there is none: FLASHINFER_CUDA_ARCH_LIST. */
  readonly arch?: string;
  readonly onProgress?: (progress: WarmupProgress) => void;
  /** Ends running compilers; what is compiled stays in the cache. */
  readonly signal?: AbortSignal;
}

/**
 * Loads kernels, or compiles them where no cache has them, in parallel and off the event loop, so that no later call
 * blocks for it. Takes kernel specs and planned wrappers, then options.
 *
 * @throws AbortedError when `signal` is aborted, and everything getKernel throws: the first failure ends the rest
 * @example
 * ```ts
 * import { BatchDecodeWithPagedKVCacheWrapper, warmup } from '@flashinfer/core';
 *
 * const decode = new BatchDecodeWithPagedKVCacheWrapper();
 * decode.plan({
 *   pagedKvIndptr: [0, 1], pagedKvIndices: [0], pagedKvLastPageLen: [5], pageSize: 16,
 *   numQoHeads: 32, numKvHeads: 8, headDimQk: 128,
 * });
 * await warmup(decode, { onProgress: ({ done, total, name }) => console.log(done, total, name) });
 * ```
 */
export async function warmup(
  ...args: [...(KernelSpec | KernelPlan)[], WarmupOptions] | (KernelSpec | KernelPlan)[]
): Promise<void> {
  const { specs, options } = readArguments(args);
  await warmupIn(jitEnvironment(), specs, options);
}

/** @internal */
export async function warmupIn(
  jit: JitEnvironment,
  specs: readonly KernelSpec[],
  options: WarmupOptions,
): Promise<void> {
  const { onProgress, signal } = options;
  const where = specs.length > 0 ? places(jit, options) : [];
  const tasks = distinct(jit, specs).flatMap((spec) => where.map((place) => ({ spec, place })));
  let done = 0;
  try {
    signal?.throwIfAborted();
    await runParallel(tasks, parallelJobs(tasks.length), signal, async ({ spec, place }, stop) => {
      const start = performance.now();
      const source = await prepare(jit, spec, place, stop);
      const seconds = (performance.now() - start) / 1000;
      onProgress?.({ done: ++done, total: tasks.length, name: spec.name, source, seconds });
    });
  } catch (error) {
    if (!signal?.aborted) throw error;
    const message = `warmup: aborted after ${done} of ${tasks.length} kernels; those stay in the cache`;
    throw new AbortedError(message, { cause: signal.reason });
  }
}

/** A device to load on, or an architecture to fill the cache for. */
type Place = { readonly device: number } | { readonly target: Target };

async function prepare(jit: JitEnvironment, spec: KernelSpec, place: Place, signal: AbortSignal) {
  if ('device' in place && isLoaded(spec, place.device)) return 'loaded';
  const sm = 'device' in place ? smArch(place.device) : parseTarget(place.target).sm;
  const archList = 'device' in place ? jit.config.archList : [place.target];
  const module = await runAsync(resolveModule(jit, spec, targetFor(sm, spec, archList), { blocking: false }), signal);
  if ('device' in place) installModule(jit, spec, place.device, module);
  return module.origin;
}

function places({ config }: JitEnvironment, { device, arch }: WarmupOptions): Place[] {
  if (arch !== undefined) return [{ target: namedTarget(arch) }];
  const index = deviceIndex(device !== undefined ? parseDevice(device) : defaultDevice());
  if (index >= 0) return [{ device: index }];
  // A cpu device launches no kernels; on a machine without a GPU the cache can be filled for others.
  if (device === undefined && cudaDeviceCount() === 0 && config.archList.length > 0) {
    return config.archList.map((target) => ({ target }));
  }
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `warmup: device ${device ?? 'cpu (the default here)'} loads no CUDA kernels; expected a CUDA device; to fill the ` +
      "cache without a GPU pass { arch: '9.0a' } or set FLASHINFER_CUDA_ARCH_LIST",
  );
}

function distinct(jit: JitEnvironment, specs: readonly KernelSpec[]): KernelSpec[] {
  return [...new Map(specs.map((spec) => [moduleKey(spec, jit.config).uri, spec])).values()];
}

function readArguments(args: readonly unknown[]): { specs: KernelSpec[]; options: WarmupOptions } {
  const specs: KernelSpec[] = [];
  let options: WarmupOptions = {};
  for (const [i, item] of args.entries()) {
    if (isPlan(item)) specs.push(...item.kernelSpecs());
    else if (isSpec(item)) specs.push(item);
    else if (i === args.length - 1 && isOptions(item)) options = readOptions(item);
    else {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `warmup: argument ${i} is ${describeValue(item)}; expected kernel specs and planned wrappers, ` +
          'then one options object; pass each as an argument of its own',
      );
    }
  }
  return { specs, options };
}

function isOptions(item: unknown): item is WarmupOptions {
  return typeof item === 'object' && item !== null && !Array.isArray(item);
}

function readOptions(options: WarmupOptions): WarmupOptions {
  checkOptions('warmup', options, ['device', 'arch', 'onProgress', 'signal']);
  const { arch, onProgress, signal } = options;
  if (arch !== undefined) namedTarget(arch);
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw invalid(`onProgress is ${describeValue(onProgress)}; expected a function; leave it out for none`);
  }
  // Also one of another realm, or of a library that stands in for the platform's.
  if (signal !== undefined && typeof signal?.throwIfAborted !== 'function') {
    throw invalid(`signal is ${describeValue(signal)}; expected an AbortSignal; pass the signal of an AbortController`);
  }
  return options;
}

function invalid(problem: string): InvalidArgumentError {
  return new InvalidArgumentError('ERR_FLASHINFER_INVALID_ARGUMENT', `warmup: ${problem}`);
}

function isPlan(item: unknown): item is KernelPlan {
  return typeof (item as KernelPlan | null)?.kernelSpecs === 'function';
}

function isSpec(item: unknown): item is KernelSpec {
  return typeof (item as KernelSpec | null)?.header === 'string' && typeof (item as KernelSpec).entry === 'string';
}
