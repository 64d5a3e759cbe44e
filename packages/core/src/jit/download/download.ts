// SPDX-License-Identifier: Apache-2.0
// Kernels from a repository, whose manifests the core knows by checksum: `<repository>/<version>/<arch>/`, in the form of
// packages. They go to the user's cache.
import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { BinaryNotFoundError, DownloadError, type FlashInferError } from '../../errors.ts';
import { notice } from '../../logging.ts';
import { packageRoot } from '../../packageRoot.ts';
import type { Target } from '../arch.ts';
import type { Step } from '../bothWays.ts';
import type { JitConfig } from '../config.ts';
import { sha256 } from '../entry.ts';
import { type FoundKernel, unpackModule } from '../prebuilt/folder.ts';
import {
  fileStamp,
  type PrebuiltManifest,
  packedName,
  parsePrebuiltManifest,
  prebuiltManifestFile,
} from '../prebuilt/manifest.ts';
import { renameWhenFree } from '../renameWhenFree.ts';
import { type ExpectedFile, fetchVerified, type RetryPolicy } from './fetchVerified.ts';

export interface DownloadOptions {
  readonly signal?: AbortSignal;
  readonly policy?: RetryPolicy;
}

export function downloadFolder(config: JitConfig): string {
  return join(config.cacheRoot, 'cubins');
}

/** Whether a repository may be asked for kernels of this architecture. */
export function canDownload({ noDownload, repositories, pinnedManifests }: JitConfig, target: Target): boolean {
  return !noDownload && repositories.length > 0 && pinnedManifests[target] !== undefined;
}

interface VerifiedManifest {
  readonly stamp: string;
  readonly sha256: string;
  readonly manifest: PrebuiltManifest | undefined;
}

const verified = new Map<string, VerifiedManifest>();

/**
 * The manifest that was downloaded, when it is the one the core knows. Each kernel asks for it, and it lists a thousand:
 * it is read again when the file changes.
 */
export function downloadedManifest(config: JitConfig, target: Target): PrebuiltManifest | undefined {
  const path = join(downloadFolder(config), target, prebuiltManifestFile);
  const pinned = config.pinnedManifests[target];
  const stamp = fileStamp(path);
  if (pinned === undefined || stamp === undefined) return undefined;
  const known = verified.get(path);
  if (known?.stamp === stamp && known.sha256 === pinned.sha256) return known.manifest;
  const manifest = parseIntact(readIntact(path, pinned));
  verified.set(path, { stamp, sha256: pinned.sha256, manifest });
  return manifest;
}

function parseIntact(content: Buffer | undefined): PrebuiltManifest | undefined {
  return content && parsePrebuiltManifest(content.toString('utf8'));
}

/** A module that was downloaded before and is intact; needs no repository. */
export function findDownloaded(config: JitConfig, uri: string, target: Target): FoundKernel | undefined {
  const module = downloadedManifest(config, target)?.modules[uri];
  if (module === undefined) return undefined;
  const path = join(downloadFolder(config), target, packedName(uri));
  const packed = readIntact(path, { bytes: module.packedBytes, sha256: module.packedSha256 });
  return packed && { cubin: unpackModule(packed, module, target, path), path };
}

/** Whether the module was downloaded before and is intact, of the manifest that the core knows. */
export function isDownloaded(config: JitConfig, { target, modules }: PrebuiltManifest, uri: string): boolean {
  const { packedBytes, packedSha256 } = modules[uri]!;
  const path = join(downloadFolder(config), target, packedName(uri));
  return readIntact(path, { bytes: packedBytes, sha256: packedSha256 }) !== undefined;
}

/** How many of the kernels that repositories have for these architectures are downloaded; asks no repository. */
export function downloadTotals(
  config: JitConfig,
  targets: readonly Target[],
): { path: string; downloaded: number; total: number } {
  let [downloaded, total] = [0, 0];
  for (const target of targets) {
    total += config.pinnedManifests[target]?.modules ?? 0;
    const manifest = downloadedManifest(config, target);
    if (manifest === undefined) continue;
    downloaded += Object.keys(manifest.modules).filter((uri) => isDownloaded(config, manifest, uri)).length;
  }
  return { path: downloadFolder(config), downloaded, total };
}

function readIntact(path: string, expected: ExpectedFile | undefined): Buffer | undefined {
  if (expected === undefined) return undefined;
  try {
    const content = readFileSync(path);
    return content.byteLength === expected.bytes && sha256(content) === expected.sha256 ? content : undefined;
  } catch {
    // Not there, or not to be read by this user; writing it says why not.
    return undefined;
  }
}

/** @throws DownloadError where the core knows no manifest, downloads are forbidden, or none is there */
export async function downloadManifest(
  config: JitConfig,
  target: Target,
  options: DownloadOptions = {},
): Promise<PrebuiltManifest> {
  const known = downloadedManifest(config, target);
  if (known !== undefined) return known;
  checkAllowed(config, target);
  const content = await fetchTo(config, target, prebuiltManifestFile, config.pinnedManifests[target]!, options);
  const manifest = parsePrebuiltManifest(content.toString('utf8'));
  if (manifest !== undefined) return manifest;
  throw new DownloadError(`download: the manifest of ${target} is not one of this version; reinstall @flashinfer/core`);
}

/** The module, from the folder of downloads or a repository; undefined where the repository does not have it. */
export async function downloadModule(
  config: JitConfig,
  uri: string,
  target: Target,
  options: DownloadOptions = {},
): Promise<FoundKernel | undefined> {
  const present = findDownloaded(config, uri, target);
  if (present !== undefined) return present;
  const module = (await downloadManifest(config, target, options)).modules[uri];
  if (module === undefined) return undefined;
  checkAllowed(config, target);
  const expected = { bytes: module.packedBytes, sha256: module.packedSha256 };
  const packed = await fetchTo(config, target, packedName(uri), expected, options);
  const path = join(downloadFolder(config), target, packedName(uri));
  return { cubin: unpackModule(packed, module, target, path), path };
}

function checkAllowed({ noDownload, repositories, libraryVersion, pinnedManifests }: JitConfig, target: Target): void {
  const refuse = (given: string, fix: string) =>
    new DownloadError(`download: ${given}; expected a repository with the kernels of ${target}; ${fix}`);
  const instead = 'or install @flashinfer/cubin';
  if (noDownload) throw refuse('FLASHINFER_NO_DOWNLOAD is set', `unset it, ${instead}`);
  if (repositories.length === 0) throw refuse('no repository is set', `set FLASHINFER_CUBINS_REPOSITORY, ${instead}`);
  if (pinnedManifests[target] === undefined) {
    throw refuse(`@flashinfer/core ${libraryVersion} knows no published kernels for ${target}`, 'compile them');
  }
}

async function fetchTo(
  config: JitConfig,
  target: Target,
  name: string,
  expected: ExpectedFile,
  { signal, policy }: DownloadOptions,
): Promise<Buffer> {
  const path = `${config.libraryVersion}/${target}/${name}`;
  const urls = config.repositories.map((base) => new URL(path, base.endsWith('/') ? base : `${base}/`).href);
  const content = await fetchVerified(urls, expected, signal, policy);
  await writeWhole(join(downloadFolder(config), target), name, content);
  return content;
}

/** The file appears under its name when all of it is on the disk. */
async function writeWhole(folder: string, name: string, content: Buffer): Promise<void> {
  const temporary = join(folder, `.${name}.${randomUUID()}`);
  try {
    mkdirSync(folder, { recursive: true });
    const file = await open(temporary, 'wx');
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await renameWhenFree(temporary, join(folder, name)).async(undefined);
  } catch (error) {
    throw new DownloadError(
      `download: ${folder} cannot be written (${(error as Error).message}); expected a writable folder with free space; set ` +
        'FLASHINFER_WORKSPACE_BASE to one, or install @flashinfer/cubin',
      { cause: error },
    );
  } finally {
    // Where the folder could not be made, neither was the file.
    await rm(temporary, { force: true }).catch(() => undefined);
  }
}

/** The same as a step; blocking, a child process downloads while this one waits. */
export function downloadStep(config: JitConfig, uri: string, target: Target): Step<FoundKernel | undefined> {
  return {
    sync: () => downloadBlocking(config, uri, target),
    async: (signal) => downloadModule(config, uri, target, { signal }),
  };
}

function downloadBlocking(config: JitConfig, uri: string, target: Target): FoundKernel | undefined {
  const manifest = downloadedManifest(config, target);
  if (manifest !== undefined && manifest.modules[uri] === undefined) return undefined;
  notice(
    `downloading ${uri} for ${target} from ${config.repositories[0]}; this call blocks until it is done; ` +
      '`await warmup(...)` at start or @flashinfer/cubin avoids it',
  );
  const command = [join(packageRoot(), 'bin', 'flashinfer.js'), 'download-cubin', '--arch', target, '--module', uri];
  const env = { ...process.env, ELECTRON_RUN_AS_NODE: '1' };
  const { status, stderr, error } = spawnSync(process.execPath, command, { env, encoding: 'utf8', windowsHide: true });
  // The repository does not have it: the command says so by failing.
  const fetched = downloadedManifest(config, target);
  if (fetched !== undefined && fetched.modules[uri] === undefined) return undefined;
  if (status !== 0) throw new DownloadError(error?.message ?? stderr.replace(/^flashinfer: /, '').trim());
  return findDownloaded(config, uri, target);
}

/** Whether another way to the kernel may be tried after this. */
export function isDownloadFailure(error: unknown): error is FlashInferError {
  return error instanceof DownloadError || error instanceof BinaryNotFoundError;
}
