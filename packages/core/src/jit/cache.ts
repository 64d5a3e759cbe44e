// SPDX-License-Identifier: Apache-2.0
// The user's cache of compiled modules: <cacheRoot>/<arch>/<uri>_cu<release>/. Entries appear by one rename.
import { randomUUID } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CacheError } from '../errors.ts';
import type { Target } from './arch.ts';
import type { Step } from './bothWays.ts';
import { listFolder } from './compilers/cudaHomes.ts';
import { type EntryState, readEntry } from './entry.ts';
import { entryName } from './key.ts';
import { renameWhenFree } from './renameWhenFree.ts';

/** Folders of the cache that hold no entries begin with a dot. */
const lockFolder = '.locks';
const temporaryFolder = '.tmp';
const quarantineFolder = '.quarantine';
const failedFolder = 'failed';

export class KernelCache {
  readonly root: string;
  constructor(root: string) {
    this.root = root;
  }

  folder(target: Target, uri: string, release: string): string {
    return join(this.root, target, entryName(uri, release));
  }

  /** The entry of one compiler release, or of the newest there is when `release` is undefined. */
  read(target: Target, uri: string, release: string | undefined): EntryState {
    if (release !== undefined) return readEntry(this.folder(target, uri, release), uri, target);
    const states = listFolder(join(this.root, target))
      .filter((name) => name.startsWith(uri) && /^_cu\d+$/.test(name.slice(uri.length)))
      .sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))
      .map((name) => readEntry(join(this.root, target, name), uri, target));
    return states.find((state) => state.kind === 'valid') ?? states[0] ?? { kind: 'absent' };
  }

  /** Makes the folders that locking and writing this entry need. @throws CacheError when they cannot be written */
  prepare(folder: string): { lockPath: string } {
    const locks = join(dirname(folder), lockFolder);
    try {
      mkdirSync(locks, { recursive: true });
    } catch (error) {
      throw this.unwritable(error);
    }
    return { lockPath: join(locks, `${basename(folder)}.lock`) };
  }

  /** A fresh folder to compile in. The lock is held, so older ones of this entry are left from processes that died. */
  temporary(folder: string, locked: boolean): string {
    const base = join(dirname(folder), temporaryFolder);
    const name = basename(folder);
    if (locked) {
      for (const stale of listFolder(base).filter((other) => other.startsWith(`${name}.locked-`))) {
        rmSync(join(base, stale), { recursive: true, force: true });
      }
    }
    const path = join(base, `${name}.${locked ? 'locked' : 'unlocked'}-${randomUUID()}`);
    mkdirSync(path, { recursive: true });
    return path;
  }

  /** Moves a damaged entry aside; kept for the curious, never read again. */
  quarantine(folder: string): string {
    const base = join(dirname(folder), quarantineFolder);
    mkdirSync(base, { recursive: true });
    const path = join(base, `${basename(folder)}.${randomUUID()}`);
    renameWhenFree(folder, path).sync();
    return path;
  }

  /** Where the source and output of a failed compilation are kept. */
  failedFolder(target: Target, uri: string): string {
    return join(this.root, failedFolder, `${uri}_${target}`);
  }

  keepFailed(folder: string, files: Readonly<Record<string, string>>): void {
    mkdirSync(folder, { recursive: true });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  }

  /** Writes the files to `temporary`, flushes them to disk and renames the folder into place. */
  publish(temporary: string, folder: string, files: Readonly<Record<string, Uint8Array | string>>): Step<void> {
    const rename = renameWhenFree(temporary, folder);
    return {
      sync: () => {
        for (const [name, content] of Object.entries(files)) writeFlushed(join(temporary, name), content);
        flushFolder(temporary);
        rename.sync();
        flushFolder(dirname(folder));
      },
      async: async (signal) => {
        for (const [name, content] of Object.entries(files)) await writeFlushedAsync(join(temporary, name), content);
        await flushFolderAsync(temporary);
        await rename.async(signal);
        await flushFolderAsync(dirname(folder));
      },
    };
  }

  discard(temporary: string): void {
    rmSync(temporary, { recursive: true, force: true });
  }

  /** The error for a failed write, or `error` itself when it is none. */
  unwritable(error: unknown): unknown {
    const { code, syscall, message } = error as NodeJS.ErrnoException;
    const isWrite = code === 'IO' || code === 'ERR_ACCESS_DENIED' || (code !== undefined && syscall !== undefined);
    if (!isWrite) return error;
    return new CacheError(
      'ERR_FLASHINFER_CACHE_UNWRITABLE',
      `getKernel: the kernel cache ${this.root} cannot be written (${message}); expected a writable folder with free ` +
        'space; set FLASHINFER_WORKSPACE_BASE to one, or install @flashinfer/jit-cache, whose kernels are compiled already',
      { cause: error },
    );
  }
}

function writeFlushed(path: string, content: Uint8Array | string): void {
  const file = openSync(path, 'w');
  try {
    writeFileSync(file, content);
    flush(file);
  } finally {
    closeSync(file);
  }
}

async function writeFlushedAsync(path: string, content: Uint8Array | string): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.writeFile(content);
    await file.sync().catch(ignoreForbidden);
  } finally {
    await file.close();
  }
}

function flush(file: number): void {
  try {
    fsyncSync(file);
  } catch (error) {
    ignoreForbidden(error);
  }
}

/** The permission model has no flush. What a crash then leaves half written fails its checksum and is made again. */
function ignoreForbidden(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ERR_ACCESS_DENIED') throw error;
}

// Windows cannot open a folder for this and does not need it.
function flushFolder(path: string): void {
  if (process.platform === 'win32') return;
  const folder = openSync(path, 'r');
  try {
    flush(folder);
  } finally {
    closeSync(folder);
  }
}

async function flushFolderAsync(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync().catch(ignoreForbidden);
  } finally {
    await folder.close();
  }
}
