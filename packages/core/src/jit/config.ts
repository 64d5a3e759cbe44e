// SPDX-License-Identifier: Apache-2.0
// The JIT's settings, read from the environment when asked for.
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { packageRoot, packageVersion } from '../packageRoot.ts';
import { parseArchList, type Target } from './arch.ts';
import type { CodegenOptions } from './flags.ts';

export interface JitConfig {
  /** `<workspace base>/flashinfer/<version>`; modules lie in `<arch>/<uri>/` below. */
  readonly cacheRoot: string;
  /** Folders searched for headers, the library's own first. */
  readonly includeRoots: readonly string[];
  readonly codegen: CodegenOptions;
  /** FLASHINFER_DISABLE_JIT: never compile. */
  readonly disableJit: boolean;
  /** FLASHINFER_JIT_VERBOSE: log commands and compiler output. */
  readonly verbose: boolean;
  /** FLASHINFER_CUDA_ARCH_LIST; empty: the GPU's own architecture. */
  readonly archList: readonly Target[];
  /** FLASHINFER_CUBIN_DIR, in place of the folder in @flashinfer/cubin. */
  readonly cubinDir: string | undefined;
  readonly libraryVersion: string;
}

export function jitConfig(): JitConfig {
  const env = process.env;
  return {
    cacheRoot: join(env.FLASHINFER_WORKSPACE_BASE || userCacheHome(), 'flashinfer', packageVersion()),
    includeRoots: [includeRoot()],
    codegen: { debug: flag(env.FLASHINFER_JIT_DEBUG), lineInfo: flag(env.FLASHINFER_JIT_LINEINFO) },
    disableJit: flag(env.FLASHINFER_DISABLE_JIT),
    verbose: flag(env.FLASHINFER_JIT_VERBOSE),
    archList: parseArchList(env.FLASHINFER_CUDA_ARCH_LIST ?? ''),
    cubinDir: env.FLASHINFER_CUBIN_DIR || undefined,
    libraryVersion: packageVersion(),
  };
}

function flag(value: string | undefined): boolean {
  return value !== undefined && value !== '' && value !== '0';
}

function userCacheHome(): string {
  if (process.env.XDG_CACHE_HOME) return process.env.XDG_CACHE_HOME;
  if (process.platform === 'win32' && process.env.LOCALAPPDATA) return process.env.LOCALAPPDATA;
  return process.platform === 'darwin' ? join(homedir(), 'Library', 'Caches') : join(homedir(), '.cache');
}

/** Kernel headers: inside the published package, at the top of the repository in a checkout. */
function includeRoot(): string {
  const published = join(packageRoot(), 'include');
  return existsSync(published) ? published : join(packageRoot(), '..', '..', 'include');
}
