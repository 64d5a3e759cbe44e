// SPDX-License-Identifier: Apache-2.0
// Unpacks the tarball of @flashinfer/jit-cache into the user's cache, without npm. Nothing of it is used before all of it
// has proved to be what it says.
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { BinaryNotFoundError } from '../../errors.ts';
import { checkVersion } from '../addOns.ts';
import type { Target } from '../arch.ts';
import { listFolder } from '../compilers/cudaHomes.ts';
import type { JitConfig } from '../config.ts';
import { renameWhenFree } from '../renameWhenFree.ts';
import { installedJitCacheFolder } from '../sources.ts';
import { unpackModule } from './folder.ts';
import { packedName, prebuiltManifestFile, readPrebuiltManifest } from './manifest.ts';

export interface InstalledJitCache {
  readonly path: string;
  readonly version: string;
  /** CUDA versions, e.g. `cu130`. */
  readonly releases: readonly string[];
  readonly targets: readonly string[];
  readonly modules: number;
  readonly bytes: number;
}

/** What a tarball may hold, in all: more is a mistake or an attack. */
const maxBytes = 4 * 2 ** 30;

/** @throws BinaryNotFoundError where the file is not an intact tarball of this version; nothing is installed then */
export async function installJitCache(file: string, config: JitConfig): Promise<InstalledJitCache> {
  const path = resolve(file);
  if (!existsSync(path)) throw refused(path, 'does not exist');
  await checkEntries(path);
  const home = installedJitCacheFolder(config);
  const temporary = join(config.cacheRoot, '.tmp', `jit-cache-${randomUUID()}`);
  const discard = () => rmSync(temporary, { recursive: true, force: true });
  // A process that ends meanwhile, as an interrupted command does, leaves nothing either.
  process.once('exit', discard);
  try {
    mkdirSync(temporary, { recursive: true });
    const { extract } = await import('tar');
    await extract({ file: path, cwd: temporary, strip: 1, strict: true, filter: isWanted, noChmod: true });
    const { version } = checkPackage(path, temporary, config);
    const releases = listFolder(join(temporary, 'modules')).filter((name) => /^cu\d+$/.test(name));
    if (releases.length === 0) throw refused(path, 'has no modules');
    const checked = releases.flatMap((release) => checkRelease(path, join(temporary, 'modules', release)));
    mkdirSync(home, { recursive: true });
    for (const release of releases) replace(join(temporary, 'modules', release), join(home, release), temporary);
    const modules = checked.reduce((sum, target) => sum + target.modules, 0);
    const bytes = checked.reduce((sum, target) => sum + target.bytes, 0);
    return { path: home, version, releases, targets: checked.map(({ target }) => target), modules, bytes };
  } finally {
    process.off('exit', discard);
    discard();
  }
}

const isWanted = (path: string): boolean => path === 'package/package.json' || path.startsWith('package/modules/');

/** Every entry is a file or folder below `package/`: no links, no devices, no way out. */
async function checkEntries(path: string): Promise<void> {
  const { list } = await import('tar');
  let problem: string | undefined;
  let bytes = 0;
  const onReadEntry = ({ path: name, type, size }: { path: string; type: string; size: number }) => {
    bytes += size;
    if (type !== 'File' && type !== 'OldFile' && type !== 'Directory') problem ??= `has ${name}, a ${type}`;
    else if (!name.startsWith('package/') || name.includes('\\') || name.split('/').includes('..')) {
      problem ??= `has ${name}, which is not below package/`;
    } else if (bytes > maxBytes) problem ??= `holds more than ${maxBytes} bytes`;
  };
  try {
    await list({ file: path, strict: true, onReadEntry });
  } catch (error) {
    throw refused(path, `cannot be read (${error instanceof Error ? error.message : error})`, error);
  }
  if (problem !== undefined) throw refused(path, problem);
  if (bytes === 0) throw refused(path, 'is empty');
}

function checkPackage(path: string, folder: string, config: JitConfig): { version: string } {
  let manifest: { name?: unknown; version?: unknown };
  try {
    manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  } catch (error) {
    throw refused(path, 'has no readable package/package.json', error);
  }
  const { name, version } = manifest;
  if (name !== '@flashinfer/jit-cache' || typeof version !== 'string') {
    throw refused(path, `is the package ${name} ${version}`);
  }
  const fix = `get flashinfer-jit-cache-${config.libraryVersion}+cu<version>.tgz`;
  checkVersion(`${path} is version ${version}`, version, config, fix);
  return { version };
}

/** Every file of every architecture is listed and matches its checksum, and nothing else is there. */
function checkRelease(path: string, folder: string): { target: Target; modules: number; bytes: number }[] {
  return readdirSync(folder).map((name) => {
    const target = name as Target;
    const manifest = /^sm_\d+[af]?$/.test(name) ? readPrebuiltManifest(folder, target) : undefined;
    if (typeof manifest !== 'object') throw refused(path, `has no sound ${name}/${prebuiltManifestFile}`);
    const expected = new Set([prebuiltManifestFile, ...Object.keys(manifest.modules).map(packedName)]);
    const unlisted = readdirSync(join(folder, target)).find((file) => !expected.delete(file));
    if (unlisted !== undefined) throw refused(path, `has ${target}/${unlisted}, which its manifest does not list`);
    const [missing] = expected;
    if (missing !== undefined) throw refused(path, `lacks ${target}/${missing}`);
    let bytes = 0;
    for (const [uri, module] of Object.entries(manifest.modules)) {
      const packed = readFileSync(join(folder, target, packedName(uri)));
      bytes += packed.byteLength;
      try {
        unpackModule(packed, module, target, `${target}/${packedName(uri)}`);
      } catch (error) {
        throw refused(path, `is damaged: ${error instanceof Error ? error.message : error}`, error);
      }
    }
    return { target, modules: Object.keys(manifest.modules).length, bytes };
  });
}

/** Readers see the old folder or the new one, or for a moment none. */
function replace(from: string, to: string, temporary: string): void {
  if (existsSync(to)) renameWhenFree(to, join(temporary, `replaced-${randomUUID()}`)).sync();
  renameWhenFree(from, to).sync();
}

function refused(path: string, problem: string, cause?: unknown): BinaryNotFoundError {
  return new BinaryNotFoundError(
    'ERR_FLASHINFER_BINARY_MISMATCH',
    `installJitCache: ${path} ${problem}; expected an intact tarball of @flashinfer/jit-cache; copy or download it again`,
    { cause },
  );
}
