// SPDX-License-Identifier: Apache-2.0
import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { env, envVars } from './envVars.ts';
import { FlashInferError } from './errors.ts';
import { findAddOn, installedArchPackages, isSameVersion } from './jit/addOns.ts';
import { namedTarget, type Target } from './jit/arch.ts';
import { findNvcc, type NvccProbe } from './jit/compilers/nvcc.ts';
import { findNvrtc, type NvrtcProbe } from './jit/compilers/nvrtc.ts';
import { jitConfig } from './jit/config.ts';
import { downloadTotals } from './jit/download/download.ts';
import { cacheInfo } from './jit/status.ts';
import { moduleTotals } from './moduleStatus.ts';
import type { DeviceProperties, NativeBinding } from './native/binding.ts';
import { addonCandidates, native } from './native/load.ts';
import { packageRoot, packageVersion } from './packageRoot.ts';

/** What this installation is made of and what it found on this machine; see {@link showConfig}. */
export interface Config {
  /** Versions of the packages; `null` where one is not installed. Add-on packages count only at the core's version. */
  versions: {
    core: string;
    cubin: string | null;
    /** Of the installed packages for one architecture, by name, e.g. `@flashinfer/cubin-sm90a`. */
    cubinArchs: Record<string, string>;
    jitCache: string | null;
    match: boolean;
  };
  system: { node: string; platform: string; arch: string };
  addon: { loaded: boolean; path: string | null; error: string | null };
  cpu: ReturnType<NativeBinding['cpu']['info']> | null;
  /** `nvcc` and `nvrtc` compile kernels; one of them is enough. `null` where it takes the addon to look. */
  cuda: {
    driver: ReturnType<NativeBinding['cuda']['probe']> | null;
    toolkit: string | null;
    nvcc: NvccProbe;
    nvrtc: NvrtcProbe | null;
  };
  gpus: ({ index: number; sm: string } & DeviceProperties)[];
  environment: EnvironmentEntry[];
  /** Compiled modules of this version; `null` when a variable that places the cache is not valid. */
  cache: { path: string; bytes: number; count: number; writable: boolean } | null;
  /**
   * Kernels that repositories have for this machine's architectures, or for all where it has no GPU, and how many of them are
   * downloaded; `null` as above.
   */
  cubins: { path: string; downloaded: number; total: number } | null;
  /**
   * The kernels that models launch, and how many are compiled, of FLASHINFER_CUDA_ARCH_LIST or the GPUs. Empty where neither
   * names an architecture; `null` where that cannot be said: the addon is missing, a variable or an add-on package does not fit.
   */
  modules: { target: string; total: number; compiled: number }[] | null;
}

/** One variable the library reads. `value` is what this process has; `valid` is false when reading it would throw. */
interface EnvironmentEntry {
  name: string;
  type: string;
  doc: string;
  value: string | null;
  valid: boolean;
}

/**
 * The facts a bug report needs, as data: what `npx flashinfer show-config --json` prints. Never throws: what is
 * missing on this machine (a GPU, the toolkit, even the addon) is said in the result.
 * @example
 * ```ts
 * import { showConfig } from '@flashinfer/core';
 *
 * console.log(JSON.stringify(showConfig(), undefined, 2));
 * ```
 */
export function showConfig(): Config {
  const { binding, addon } = describeAddon();
  const driver = binding?.cuda.probe() ?? null;
  const nvcc = findNvcc();
  const gpus = binding && driver?.ok ? describeGpus(binding, driver.deviceCount ?? 0) : [];
  return {
    versions: describeVersions(),
    system: { node: process.version, platform: process.platform, arch: process.arch },
    addon,
    cpu: binding?.cpu.info() ?? null,
    cuda: { driver, toolkit: nvcc.path ? toolkitOf(nvcc.path) : null, nvcc, nvrtc: binding && findNvrtc() },
    gpus,
    environment: describeEnvironment(),
    cache: unlessRefused(describeCache),
    cubins: unlessRefused(() => describeCubins(gpus)),
    modules: binding && unlessRefused(() => ownTargets(gpus).map(moduleTotals)),
  };
}

function describeVersions(): Config['versions'] {
  const core = packageVersion();
  const cubin = findAddOn('@flashinfer/cubin')?.version ?? null;
  const jitCache = findAddOn('@flashinfer/jit-cache')?.version ?? null;
  const cubinArchs = Object.fromEntries(installedArchPackages().map(({ name, version }) => [name, version]));
  const addOns = [cubin, jitCache, ...Object.values(cubinArchs)];
  const match = addOns.every((version) => version === null || isSameVersion(version, core));
  return { core, cubin, cubinArchs, jitCache, match };
}

function describeAddon(): { binding: NativeBinding | null; addon: Config['addon'] } {
  try {
    const binding = native();
    const { cache } = createRequire(import.meta.url);
    const path = addonCandidates(packageRoot()).find((candidate) => isLoaded(candidate, cache)) ?? null;
    return { binding, addon: { loaded: true, path, error: null } };
  } catch (error) {
    return { binding: null, addon: { loaded: false, path: null, error: String(error) } };
  }
}

function isLoaded(path: string, cache: NodeJS.Dict<unknown>): boolean {
  try {
    return realpathSync(path) in cache;
  } catch {
    return false;
  }
}

/** nvcc is in the toolkit's `bin`; on PATH it may be a link. */
function toolkitOf(nvcc: string): string {
  return dirname(dirname(realpathSync(nvcc)));
}

function describeGpus(binding: NativeBinding, count: number): Config['gpus'] {
  return Array.from({ length: count }, (_, index) => {
    const properties = binding.cuda.deviceProperties(index);
    return { index, sm: `sm_${properties.major}${properties.minor}`, ...properties };
  });
}

function describeEnvironment(): EnvironmentEntry[] {
  return Object.values(envVars).map(({ name, type, doc, parse }) => {
    const value = process.env[name]?.trim() || null;
    return { name, type, doc, value, valid: value === null || (parse(value) !== undefined && isKnown(name)) };
  });
}

/** Architectures may have the right form and not exist. */
function isKnown(name: string): boolean {
  if (name !== envVars.cudaArchList.name) return true;
  return unlessRefused(() => env.cudaArchList?.map(namedTarget) ?? []) !== null;
}

function describeCache(): Config['cache'] {
  const info = cacheInfo();
  return { ...info, writable: isWritable(info.path) };
}

/** Whether the folder can be written, or made where it is missing. */
function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return statSync(folder).isDirectory();
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    return isMissing && dirname(folder) !== folder && isWritable(dirname(folder));
  }
}

/** Architectures to compile for here. */
function ownTargets(gpus: Config['gpus']): Target[] {
  return [...new Set((env.cudaArchList ?? gpus.map(({ sm }) => sm)).map(namedTarget))];
}

function describeCubins(gpus: Config['gpus']): Config['cubins'] {
  const config = jitConfig();
  const own = ownTargets(gpus);
  return downloadTotals(config, own.length > 0 ? own : (Object.keys(config.pinnedManifests) as Target[]));
}

/** What does not fit together is said elsewhere in the result. */
function unlessRefused<T>(describe: () => T): T | null {
  try {
    return describe();
  } catch (error) {
    if (error instanceof FlashInferError) return null;
    throw error;
  }
}
