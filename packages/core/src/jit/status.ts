// SPDX-License-Identifier: Apache-2.0
// What the cache holds; for `flashinfer module-status`, `list-modules` and `show-config`.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from './arch.ts';
import { listFolder } from './compilers/cudaHomes.ts';
import { jitConfig } from './config.ts';
import { hostFiles, manifestFile, parseManifest, readEntry, readFiles } from './entry.ts';

export interface CachedModule {
  readonly uri: string;
  /** A `Target`, or for a library of the cpu device its platform and instruction set. */
  readonly target: string;
  /** `corrupt` entries are rebuilt when next needed. */
  readonly state: 'valid' | 'corrupt';
  /** Below `include/`. */
  readonly header: string | undefined;
  /** The device function it instantiates. */
  readonly entry: string | undefined;
  readonly compiler: { readonly kind: string; readonly release: string } | undefined;
  /** How long it took to compile. */
  readonly seconds: number | undefined;
  readonly bytes: number;
  readonly path: string;
}

const targetForm = /^(sm_\d+[af]?|cpu_\w+)$/;

/** Every module of this version in the user's cache, verified. */
export function listCachedModules(cacheRoot: string = jitConfig().cacheRoot): CachedModule[] {
  return entryFolders(cacheRoot).map(({ path, uri, target }) => describeEntry(path, uri, target));
}

interface EntryFolder {
  readonly path: string;
  readonly uri: string;
  readonly target: string;
}

function entryFolders(cacheRoot: string): EntryFolder[] {
  const targets = listFolder(cacheRoot).filter((name) => targetForm.test(name));
  return targets.sort().flatMap((target) =>
    listFolder(join(cacheRoot, target))
      .filter((name) => !name.startsWith('.'))
      .sort()
      .map((name) => ({ path: join(cacheRoot, target, name), uri: uriOf(name), target })),
  );
}

/** What compiled the entry follows the hash: `_cu130`. */
function uriOf(entry: string): string {
  return /^.+?_[0-9a-f]{16}(?=_)/.exec(entry)?.[0] ?? entry;
}

/** Where the cache is and what it takes, temporary and quarantined files included; not what was installed into it. */
export function cacheInfo(cacheRoot: string = jitConfig().cacheRoot): { path: string; bytes: number; count: number } {
  const bytes = cacheFolders(cacheRoot).reduce((sum, folder) => sum + folderBytes(folder), 0);
  return { path: cacheRoot, bytes, count: entryFolders(cacheRoot).length };
}

/** The folders of compiled modules, of failed compilations and of interrupted installations: what clearing the cache deletes. */
export function cacheFolders(cacheRoot: string): string[] {
  const own = listFolder(cacheRoot).filter((name) => targetForm.test(name) || name === 'failed' || name === '.tmp');
  return own.map((name) => join(cacheRoot, name));
}

function describeEntry(path: string, uri: string, target: string): CachedModule {
  const read = target.startsWith('cpu_')
    ? readFiles(path, hostFiles, uri, target)
    : readEntry(path, uri, target as Target);
  const manifest = readManifest(join(path, manifestFile));
  return {
    uri,
    target,
    state: read.kind === 'valid' ? 'valid' : 'corrupt',
    header: manifest?.header,
    entry: manifest?.entry,
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
  return folderContent(path).bytes;
}

/** Names of the files below a folder, and what they take; nothing where there is no such folder to look into. */
export function folderContent(path: string): { files: string[]; bytes: number } {
  const files: string[] = [];
  let bytes = 0;
  try {
    for (const file of readdirSync(path, { recursive: true, withFileTypes: true })) {
      if (!file.isFile()) continue;
      files.push(file.name);
      // Other processes may remove temporary files meanwhile.
      bytes += statSync(join(file.parentPath, file.name), { throwIfNoEntry: false })?.size ?? 0;
    }
  } catch (error) {
    // The folder may be missing, be none, or be of another user.
    const { code = '' } = error as NodeJS.ErrnoException;
    if (!['ENOENT', 'ENOTDIR', 'EACCES', 'EPERM'].includes(code)) throw error;
  }
  return { files, bytes };
}
