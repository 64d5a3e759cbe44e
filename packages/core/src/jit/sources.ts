// SPDX-License-Identifier: Apache-2.0
// Where compiled kernels come from besides the user's cache and the compiler: folders that are read, never written.
import { join } from 'node:path';
import { FlashInferError } from '../errors.ts';
import { notice } from '../logging.ts';
import { addOnFolder, archPackage, checkVersion } from './addOns.ts';
import type { Target } from './arch.ts';
import { listFolder } from './compilers/cudaHomes.ts';
import type { JitConfig } from './config.ts';
import { findDownloaded } from './download/download.ts';
import { type FoundKernel, findPrebuilt } from './prebuilt/folder.ts';
import { readPrebuiltManifest } from './prebuilt/manifest.ts';

/** Names the module as a version of the library does; versions share what did not change. */
export type NameFor = (libraryVersion: string) => string;

/** One place, asked in order. Returns undefined when it does not have the kernel. */
export interface KernelSource {
  readonly name: 'jit-cache' | 'cubin';
  find(nameFor: NameFor, target: Target): FoundKernel | undefined;
}

/** The places after the user's cache, in order of preference; a package is looked for when a kernel is. */
export function kernelSources(config: JitConfig): KernelSource[] {
  const { cubinDir } = config;
  return [
    addOnPackage('jit-cache', config, () => '@flashinfer/jit-cache', 'modules', findInReleases),
    installedJitCache(config),
    ...(cubinDir === undefined ? [] : [cubinFolder(cubinDir, config)]),
    addOnPackage('cubin', config, archPackage, 'cubins', findTolerant),
    addOnPackage('cubin', config, () => '@flashinfer/cubin', 'cubins', findTolerant),
    { name: 'cubin', find: (nameFor, target) => findDownloaded(config, nameFor(config.libraryVersion), target) },
  ];
}

type Find = (folder: string, uri: string, target: Target) => FoundKernel | undefined;

function addOnPackage(
  name: KernelSource['name'],
  config: JitConfig,
  packageFor: (target: Target) => string,
  folder: string,
  find: Find,
): KernelSource {
  return {
    name,
    find(nameFor, target) {
      const found = addOnFolder(packageFor(target), folder, config);
      return found && find(found.path, nameFor(found.version), target);
    },
  };
}

/** Where `flashinfer install-jit-cache` unpacks modules: `<CUDA version>/<arch>/` below. */
export function installedJitCacheFolder(config: JitConfig): string {
  return join(config.cacheRoot, 'jit-cache');
}

function installedJitCache(config: JitConfig): KernelSource {
  return jitCacheFolder(installedJitCacheFolder(config), config);
}

/** `<folder>/<CUDA version>/<arch>/`, the newest version that the driver loads first. */
export function jitCacheFolder(folder: string, config: JitConfig): KernelSource {
  return {
    name: 'jit-cache',
    find(nameFor, target) {
      for (const release of releasesIn(folder)) {
        const manifest = readPrebuiltManifest(join(folder, release), target);
        // Of another version only where install-jit-cache was told to take it.
        const version = typeof manifest === 'object' ? manifest.version : config.libraryVersion;
        const found = findTolerant(join(folder, release), nameFor(version), target);
        if (found !== undefined) return found;
      }
      return undefined;
    },
  };
}

function findInReleases(folder: string, uri: string, target: Target): FoundKernel | undefined {
  for (const release of releasesIn(folder)) {
    const found = findTolerant(join(folder, release), uri, target);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Newest first. */
function releasesIn(folder: string): string[] {
  return listFolder(folder).sort((a, b) => b.localeCompare(a, 'en', { numeric: true }));
}

const noticed = new Set<string>();

/** A damaged file of a package is passed over with a log line, one for all kernels: they may come from elsewhere. */
function findTolerant(folder: string, uri: string, target: Target): FoundKernel | undefined {
  try {
    return findPrebuilt(folder, uri, target);
  } catch (error) {
    if (!(error instanceof FlashInferError)) throw error;
    if (!noticed.has(error.message)) notice(`${error.message}; ignoring it`);
    noticed.add(error.message);
    return undefined;
  }
}

/** The folder of FLASHINFER_CUBIN_DIR: one file of it that cannot be used is an error, because the user named it. */
export function cubinFolder(folder: string, config: JitConfig): KernelSource {
  return {
    name: 'cubin',
    find(nameFor, target) {
      const manifest = readPrebuiltManifest(folder, target);
      if (typeof manifest !== 'object') return findPrebuilt(folder, nameFor(config.libraryVersion), target);
      const { version } = manifest;
      checkVersion(
        `${join(folder, target)} holds kernels of ${version}`,
        version,
        config,
        'copy those of the same version',
      );
      return findPrebuilt(folder, nameFor(version), target);
    },
  };
}
