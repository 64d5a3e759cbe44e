// SPDX-License-Identifier: Apache-2.0
// Where compiled kernels come from besides the user's cache and the compiler: folders that are read, never written.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { BinaryNotFoundError } from '../errors.ts';
import { notice } from '../logging.ts';
import { packageRoot } from '../packageRoot.ts';
import { parseTarget, type Target } from './arch.ts';
import { listFolder } from './compilers/cudaHomes.ts';
import type { JitConfig } from './config.ts';
import { cubinSm } from './cubin.ts';
import { readEntry, sha256 } from './entry.ts';

export interface FoundKernel {
  readonly cubin: Uint8Array;
  readonly path: string;
}

/** One place, asked in order. Returns undefined when it does not have the kernel. */
export interface KernelSource {
  readonly name: 'jit-cache' | 'cubin';
  find(uri: string, target: Target): FoundKernel | undefined;
}

/** The places after the user's cache, in order of preference. */
export function kernelSources(config: JitConfig): KernelSource[] {
  const sources: KernelSource[] = [];
  const jitCache = addOnFolder('@flashinfer/jit-cache', 'modules', config.libraryVersion);
  if (jitCache !== undefined) sources.push(moduleFolder(jitCache));
  if (config.cubinDir !== undefined) sources.push(cubinFolder(config.cubinDir, true));
  const cubins = addOnFolder('@flashinfer/cubin', 'cubins', config.libraryVersion);
  if (cubins !== undefined) sources.push(cubinFolder(cubins, false));
  return sources;
}

/** `<folder>/<CUDA version>/<arch>/<uri>/`, each an entry as in the user's cache. */
export function moduleFolder(folder: string): KernelSource {
  return {
    name: 'jit-cache',
    find(uri, target) {
      const versions = listFolder(folder).sort((a, b) => b.localeCompare(a, 'en', { numeric: true }));
      for (const version of versions) {
        const path = join(folder, version, target, uri);
        const state = readEntry(path, uri, target);
        if (state.kind === 'valid') return { cubin: state.entry.cubin, path: join(path, 'kernel.cubin') };
        if (state.kind === 'corrupt') notice(`ignoring ${path}: ${state.reason}; reinstall the package it belongs to`);
      }
      return undefined;
    },
  };
}

interface CubinManifest {
  /** By path below the folder, e.g. `sm_90a/rmsnorm_bf16_0123456789abcdef.cubin`. */
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
}

/**
 * `<folder>/<arch>/<uri>.cubin` with `manifest.json`. A file that does not fit is an error where the user named the folder
 * (`explicit`, FLASHINFER_CUBIN_DIR), and is passed over with a log line in a package.
 */
export function cubinFolder(folder: string, explicit: boolean): KernelSource {
  return {
    name: 'cubin',
    find(uri, target) {
      const name = `${target}/${uri}.cubin`;
      const path = join(folder, name);
      if (!existsSync(path)) return undefined;
      const cubin = readFileSync(path);
      const problem = checkCubin(cubin, readManifest(folder)?.files[name], path, target);
      if (problem === undefined) return { cubin, path };
      if (explicit) throw problem;
      notice(`${problem.message}; ignoring it`);
      return undefined;
    },
  };
}

function checkCubin(
  cubin: Uint8Array,
  expected: { readonly bytes: number; readonly sha256: string } | undefined,
  path: string,
  target: Target,
): BinaryNotFoundError | undefined {
  const sm = cubinSm(cubin);
  if (sm !== undefined && sm !== parseTarget(target).sm) {
    return new BinaryNotFoundError(
      'ERR_FLASHINFER_ARCH_MISMATCH',
      `getKernel: ${path} was built for sm_${sm}; expected ${target}; copy the cubins of this GPU's architecture there`,
    );
  }
  if (expected !== undefined && expected.bytes === cubin.byteLength && expected.sha256 === sha256(cubin))
    return undefined;
  const given =
    expected === undefined ? 'is not listed in manifest.json' : 'does not match its checksum in manifest.json';
  return new BinaryNotFoundError(
    'ERR_FLASHINFER_BINARY_MISMATCH',
    `getKernel: ${path} ${given}; expected an intact copy of the published folder; copy or install it again`,
  );
}

function readManifest(folder: string): CubinManifest | undefined {
  try {
    const manifest = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as Partial<CubinManifest> | null;
    return typeof manifest?.files === 'object' ? (manifest as CubinManifest) : undefined;
  } catch {
    return undefined;
  }
}

const reportedVersions = new Set<string>();

/** Data folder of an installed add-on package of the same version; looked up from here, then from the application. */
function addOnFolder(name: string, folder: string, version: string): string | undefined {
  for (const from of [packageRoot(), process.cwd()]) {
    let manifest: string;
    try {
      manifest = createRequire(join(from, 'package.json')).resolve(`${name}/package.json`);
    } catch {
      continue;
    }
    const path = join(dirname(manifest), folder);
    const installed = (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version;
    if (installed === version) return existsSync(path) ? path : undefined;
    if (!reportedVersions.has(name)) {
      notice(`ignoring ${name} ${installed}: @flashinfer/core is ${version}; install the same version of both`);
      reportedVersions.add(name);
    }
    return undefined;
  }
  return undefined;
}
