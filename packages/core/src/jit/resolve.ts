// SPDX-License-Identifier: Apache-2.0
// From a kernel spec to a cubin: user cache, add-on packages, compiler, in this order.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BinaryNotFoundError, CompileError, type FlashInferError } from '../errors.ts';
import { notice } from '../logging.ts';
import type { Target } from './arch.ts';
import { type Procedure, perform } from './bothWays.ts';
import type { KernelCache } from './cache.ts';
import { type Compiled, type Compiler, CompilerFailure, type CompileUnit } from './compilers/compiler.ts';
import { compilerNotFound } from './compilers/select.ts';
import type { JitConfig } from './config.ts';
import { canDownload, downloadStep, isDownloadFailure } from './download/download.ts';
import { manifestFile, manifestText } from './entry.ts';
import { type ModuleKey, moduleKey } from './key.ts';
import { acquireLock } from './lock.ts';
import type { KernelSource } from './sources.ts';
import type { KernelSpec } from './spec.ts';

export type ModuleOrigin = 'cache' | KernelSource['name'] | 'download' | 'compiled';

export interface ResolvedModule {
  readonly uri: string;
  readonly target: Target;
  readonly cubin: Uint8Array;
  readonly origin: ModuleOrigin;
  readonly path: string;
}

/** Everything resolution depends on; tests give their own. */
export interface JitEnvironment {
  readonly config: JitConfig;
  readonly cache: KernelCache;
  readonly sources: readonly KernelSource[];
  readonly findCompiler: (target: Target) => Compiler | undefined;
  /** Release of what findCompiler gives, without opening it. */
  readonly compilerRelease: (target: Target) => string | undefined;
}

export interface ResolveOptions {
  /** The caller waits in this thread: its locks must not be waited for, and compiling is worth a log line. */
  readonly blocking: boolean;
  /** Why what is in cache and packages cannot be used: compile anew. */
  readonly rejected?: string;
}

/** @throws BinaryNotFoundError, CompileError, CacheError */
export function* resolveModule(
  jit: JitEnvironment,
  spec: KernelSpec,
  target: Target,
  options: ResolveOptions,
): Procedure<ResolvedModule> {
  const key = moduleKey(spec, jit.config);
  if (options.rejected === undefined) {
    const found = findCompiled(jit, spec, key, target);
    if (found !== undefined) return found;
  }
  const downloaded = options.rejected === undefined ? yield* download(jit, key, target) : undefined;
  if (downloaded !== undefined && !('failure' in downloaded)) return downloaded;
  const compiler = jit.config.disableJit ? undefined : jit.findCompiler(target);
  if (downloaded !== undefined) {
    if (compiler === undefined) throw downloaded.failure;
    notice(`${downloaded.failure.message}; compiling ${key.uri} instead`);
  }
  if (jit.config.disableJit) throw jitDisabled(jit, key, target);
  if (compiler === undefined) throw compilerNotFound(key.uri, target);
  return yield* build(jit, spec, key, target, compiler, options);
}

/** From a repository, where one is set and has the module; a failure matters only where nothing can compile. */
function* download(
  { config }: JitEnvironment,
  { uri }: ModuleKey,
  target: Target,
): Procedure<ResolvedModule | { readonly failure: FlashInferError } | undefined> {
  if (!canDownload(config, target)) return undefined;
  try {
    const found = yield* perform(downloadStep(config, uri, target));
    return found && { uri, target, origin: 'download', ...found };
  } catch (error) {
    if (isDownloadFailure(error)) return { failure: error };
    throw error;
  }
}

function findCompiled(
  jit: JitEnvironment,
  spec: KernelSpec,
  { uri }: ModuleKey,
  target: Target,
): ResolvedModule | undefined {
  const release = jit.config.disableJit ? undefined : jit.compilerRelease(target);
  const state = jit.cache.read(target, uri, release);
  if (state.kind === 'valid') {
    return { uri, target, cubin: state.entry.cubin, origin: 'cache', path: jit.cache.root };
  }
  const nameFor = (version: string) =>
    version === jit.config.libraryVersion ? uri : moduleKey(spec, { ...jit.config, libraryVersion: version }).uri;
  for (const source of jit.sources) {
    const found = source.find(nameFor, target);
    if (found !== undefined) return { uri, target, origin: source.name, ...found };
  }
  return undefined;
}

/** Why a repository that was named is not among the places. */
function unasked(config: JitConfig, target: Target): string {
  const { repositories, noDownload } = config;
  if (repositories.length === 0 || canDownload(config, target)) return '';
  const reason = noDownload
    ? 'FLASHINFER_NO_DOWNLOAD is set'
    : `this build of the core carries no checksums for ${target}`;
  return ` (FLASHINFER_CUBINS_REPOSITORY is not asked: ${reason})`;
}

function jitDisabled({ config, cache, sources }: JitEnvironment, { uri }: ModuleKey, target: Target) {
  const places = [cache.root, ...new Set(sources.map((source) => source.name))].join(', ');
  return new BinaryNotFoundError(
    'ERR_FLASHINFER_BINARY_NOT_FOUND',
    `getKernel: module ${uri} for ${target} is not in ${places}${unasked(config, target)}, and ` +
      'FLASHINFER_DISABLE_JIT forbids compiling; expected ' +
      `it compiled beforehand; unset FLASHINFER_DISABLE_JIT, run warmup() once with the same FLASHINFER_WORKSPACE_BASE, ` +
      `install @flashinfer/jit-cache or @flashinfer/cubin ${config.libraryVersion}, or set FLASHINFER_CUBIN_DIR or ` +
      'FLASHINFER_CUBINS_REPOSITORY',
  );
}

/** Compiles under the entry's lock and publishes; returns another process's entry when that was faster. */
function* build(
  jit: JitEnvironment,
  spec: KernelSpec,
  key: ModuleKey,
  target: Target,
  compiler: Compiler,
  options: ResolveOptions,
): Procedure<ResolvedModule> {
  const { cache } = jit;
  const folder = cache.folder(target, key.uri, compiler.release);
  let unlock: (() => void) | undefined;
  try {
    const { lockPath } = cache.prepare(folder);
    unlock = yield* acquireLock(lockPath, key.uri, options.blocking);
    const state = cache.read(target, key.uri, compiler.release);
    if (state.kind === 'valid' && options.rejected === undefined) {
      return { uri: key.uri, target, cubin: state.entry.cubin, origin: 'cache', path: folder };
    }
    const reason = state.kind === 'corrupt' ? state.reason : options.rejected;
    if (state.kind !== 'absent' && unlock !== undefined) {
      notice(`rebuilding ${key.uri} for ${target}: ${reason}; the old entry is kept in ${cache.quarantine(folder)}`);
    }
    if (options.blocking) logBlockingCompile(key.uri, target, compiler, cache);
    return yield* compileAndPublish(jit, spec, key, target, compiler, folder, unlock !== undefined);
  } catch (error) {
    throw cache.unwritable(error);
  } finally {
    unlock?.();
  }
}

function logBlockingCompile(uri: string, target: Target, compiler: Compiler, cache: KernelCache): void {
  notice(
    `compiling ${uri} for ${target} with ${compiler.kind} ${compiler.release}, not found in ${cache.root} or an add-on ` +
      'package; this call blocks until it is done; `await warmup(...)` at start or @flashinfer/jit-cache avoids it',
  );
}

function* compileAndPublish(
  jit: JitEnvironment,
  spec: KernelSpec,
  { uri, source }: ModuleKey,
  target: Target,
  compiler: Compiler,
  folder: string,
  locked: boolean,
): Procedure<ResolvedModule> {
  const { cache, config } = jit;
  const temporary = cache.temporary(folder, locked);
  try {
    const sourcePath = join(temporary, 'source.cu');
    writeFileSync(sourcePath, source);
    const unit = {
      name: spec.name,
      source,
      sourcePath,
      target,
      includeRoots: config.includeRoots,
      options: config.codegen,
    };
    if (config.verbose) notice(compiler.command(unit));
    const start = performance.now();
    const { cubin, log } = yield* compileOrExplain(cache, uri, compiler, unit);
    const seconds = Math.round(performance.now() - start) / 1000;
    if (config.verbose) notice(`${uri}: ${seconds} s\n${log}`);
    const files = { 'kernel.cubin': cubin, 'source.cu': Buffer.from(source), 'log.txt': Buffer.from(log) };
    const manifest = manifestText(
      {
        uri,
        target,
        libraryVersion: config.libraryVersion,
        compiler: { kind: compiler.kind, release: compiler.release },
        header: spec.header,
        entry: spec.entry,
        seconds,
      },
      files,
    );
    const alreadyThere = !locked && cache.read(target, uri, compiler.release).kind !== 'absent';
    if (!alreadyThere) yield* publishOnce(jit, temporary, folder, { ...files, [manifestFile]: manifest });
    return { uri, target, cubin, origin: 'compiled', path: folder };
  } finally {
    cache.discard(temporary);
  }
}

/** The rename fails when a holder of the lock on another machine (shared folder, no working locks) was faster. */
function* publishOnce(
  { cache }: JitEnvironment,
  temporary: string,
  folder: string,
  files: Readonly<Record<string, Uint8Array | string>>,
): Procedure<void> {
  try {
    yield* perform(cache.publish(temporary, folder, files));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
  }
}

function* compileOrExplain(
  cache: KernelCache,
  uri: string,
  compiler: Compiler,
  unit: CompileUnit,
): Procedure<Compiled> {
  try {
    return yield* perform(compiler.compile(unit));
  } catch (error) {
    if (!(error instanceof CompilerFailure)) throw error;
    const folder = cache.failedFolder(unit.target, uri);
    const sourcePath = join(folder, 'source.cu');
    // The compiler saw a temporary file; what is kept must be what is named.
    const log = error.log.replaceAll(unit.sourcePath, sourcePath);
    const message = error.message.replaceAll(unit.sourcePath, sourcePath);
    cache.keepFailed(folder, { 'source.cu': unit.source, 'log.txt': log });
    const command = compiler.command({ ...unit, sourcePath });
    throw new CompileError(
      'ERR_FLASHINFER_COMPILE_FAILED',
      `getKernel: ${uri} does not compile for ${unit.target} with ${compiler.kind} ${compiler.release}: ${message}; ` +
        `source and whole log are in ${folder}; repeat it with: ${command}`,
      { command, sourcePath, log, cause: error },
    );
  }
}
