// SPDX-License-Identifier: Apache-2.0
// What the cache holds; for `flashinfer module-status`, `list-modules` and `show-config`.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from './arch.ts';
import { listFolder } from './compilers/cudaHomes.ts';
import { jitConfig } from './config.ts';
import { manifestFile, parseManifest, readEntry } from './entry.ts';

export interface CachedModule {
  readonly uri: string;
  readonly target: Target;
  /** `corrupt` entries are rebuilt when next needed. */
  readonly state: 'valid' | 'corrupt';
  readonly compiler: { readonly kind: string; readonly release: string } | undefined;
  /** How long it took to compile. */
  readonly seconds: number | undefined;
  readonly bytes: number;
  readonly path: string;
}

/** Every module of this version in the user's cache, verified. */
export function listCachedModules(cacheRoot: string = jitConfig().cacheRoot): CachedModule[] {
  const targets = listFolder(cacheRoot).filter((name): name is Target => /^sm_\d+[af]?$/.test(name));
  return targets.flatMap((target) =>
    listFolder(join(cacheRoot, target))
      .filter((name) => !name.startsWith('.'))
      .sort()
      .map((name) => describeEntry(join(cacheRoot, target, name), name.replace(/_cu\d+$/, ''), target)),
  );
}

/** Where the cache is and what it takes, temporary and quarantined files included; not what was installed into it. */
export function cacheInfo(cacheRoot: string = jitConfig().cacheRoot): { path: string; bytes: number; count: number } {
  const bytes = cacheFolders(cacheRoot).reduce((sum, folder) => sum + folderBytes(folder), 0);
  return { path: cacheRoot, bytes, count: listCachedModules(cacheRoot).length };
}

/** The folders of compiled modules and of failed compilations: what clearing the cache deletes. */
export function cacheFolders(cacheRoot: string): string[] {
  const own = listFolder(cacheRoot).filter((name) => /^sm_\d+[af]?$/.test(name) || name === 'failed');
  return own.map((name) => join(cacheRoot, name));
}

function describeEntry(path: string, uri: string, target: Target): CachedModule {
  const state = readEntry(path, uri, target).kind === 'valid' ? 'valid' : 'corrupt';
  const manifest = readManifest(join(path, manifestFile));
  return {
    uri,
    target,
    state,
    compiler: manifest?.compiler,
    seconds: manifest?.seconds,
    bytes: folderBytes(path),
    path,
  };
}

function readManifest(path: string): ReturnType<typeof parseManifest> {
  try {
    return parseManifest(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

function folderBytes(path: string): number {
  let bytes = 0;
  try {
    for (const file of readdirSync(path, { recursive: true, withFileTypes: true })) {
      if (file.isFile()) bytes += statSync(join(file.parentPath, file.name)).size;
    }
  } catch (error) {
    // The folder may be missing, and other processes may remove temporary files meanwhile.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return bytes;
}
