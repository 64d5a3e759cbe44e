// SPDX-License-Identifier: Apache-2.0
// Small libraries for the cpu device, compiled by this machine's C++ compiler and kept beside the kernels: the same cache,
// locks, checksums and renames.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BinaryNotFoundError, CompileError } from '../errors.ts';
import { notice } from '../logging.ts';
import type { CpuIsa } from '../native/binding.ts';
import { type Procedure, perform, runSync } from './bothWays.ts';
import { CompilerFailure, shellQuote } from './compilers/compiler.ts';
import { findHostCompiler, type HostCompiler, hostCompilerNotFound, hostFlags } from './compilers/hostCompiler.ts';
import { runCompiler } from './compilers/runCompiler.ts';
import { hostFiles, manifestFile, manifestText, readFiles } from './entry.ts';
import { hashHeaders } from './headers.ts';
import { schemaVersion } from './key.ts';
import { acquireLock } from './lock.ts';
import type { JitEnvironment } from './resolve.ts';

/** One library: a header of `include/` and the source that uses it. */
export interface HostModule {
  /** Readable part of its URI, `[a-z0-9_]+`. */
  readonly name: string;
  /** What messages call it, e.g. `variant soft_cap`. */
  readonly label: string;
  /** Path below `include/`. */
  readonly header: string;
  /** After the include. */
  readonly source: string;
}

type HostJit = Pick<JitEnvironment, 'config' | 'cache'>;

interface HostBuild {
  readonly module: HostModule;
  readonly uri: string;
  readonly target: string;
  readonly source: string;
  readonly flags: readonly string[];
  readonly compiler: HostCompiler;
  readonly folder: string;
}

/**
 * Path of the library for an instruction set of the cpu device, compiled where the cache does not have it.
 * @throws CompileError, BinaryNotFoundError, CacheError
 */
export function resolveHostModule(jit: HostJit, module: HostModule, isa: CpuIsa): string {
  const { config, cache } = jit;
  const { compiler, searched } = findHostCompiler();
  const source = `#include <math.h>\n#include <${module.header}>\n${module.source}\n`;
  if (compiler === undefined) throw hostCompilerNotFound(module.label, searched);
  const flags = hostFlags(isa, compiler);
  const headers = hashHeaders(module.header, config.includeRoots);
  const key = JSON.stringify([schemaVersion, config.libraryVersion, flags, headers, source]);
  const uri = `${module.name}_${createHash('sha256').update(key).digest('hex').slice(0, 16)}`;
  const target = `cpu_${process.platform}_${process.arch}_${isa}`;
  const folder = join(cache.root, target, `${uri}_${compiler.id}`);
  const state = readFiles(folder, hostFiles, uri, target);
  if (state.kind === 'valid') return join(folder, hostFiles[0]);
  if (config.disableJit) {
    throw new BinaryNotFoundError(
      'ERR_FLASHINFER_BINARY_NOT_FOUND',
      `${module.label}: module ${uri} for ${target} is not in ${cache.root}, and FLASHINFER_DISABLE_JIT forbids compiling; ` +
        'expected it compiled beforehand; unset FLASHINFER_DISABLE_JIT, or run once without it with the same cache',
    );
  }
  return runSync(build(jit, { module, uri, target, source, flags, compiler, folder }));
}

/** Compiles under the entry's lock and publishes, as kernels are. */
function* build(jit: HostJit, { module, uri, target, source, flags, compiler, folder }: HostBuild): Procedure<string> {
  const { cache, config } = jit;
  const library = join(folder, hostFiles[0]);
  let unlock: (() => void) | undefined;
  let temporary: string | undefined;
  try {
    unlock = yield* acquireLock(cache.prepare(folder).lockPath, uri, true);
    const state = readFiles(folder, hostFiles, uri, target);
    if (state.kind === 'valid') return library;
    if (state.kind === 'corrupt') {
      notice(`rebuilding ${uri} for ${target}: ${state.reason}; the old entry is kept in ${cache.quarantine(folder)}`);
    }
    notice(`compiling ${uri} for ${target} with ${compiler.version}; this call blocks until it is done`);
    temporary = cache.temporary(folder, true);
    const sourcePath = join(temporary, 'source.cc');
    writeFileSync(sourcePath, source);
    const command = (from: string, to: string): string[] => [
      ...flags,
      ...config.includeRoots.map((root) => `-I${root}`),
      '-o',
      to,
      from,
    ];
    const start = performance.now();
    let log: string;
    try {
      log = yield* perform(runCompiler(compiler.path, command(sourcePath, join(temporary, hostFiles[0]))));
    } catch (error) {
      if (!(error instanceof CompilerFailure)) throw error;
      throw explain(jit, { module, uri, target, source, compiler }, sourcePath, command, error);
    }
    const seconds = Math.round(performance.now() - start) / 1000;
    const contents = {
      'variant.so': readFileSync(join(temporary, hostFiles[0])),
      'source.cc': Buffer.from(source),
      'log.txt': Buffer.from(log),
    };
    const manifest = manifestText(
      {
        uri,
        target,
        libraryVersion: config.libraryVersion,
        compiler: { kind: 'c++', release: compiler.version },
        header: module.header,
        entry: module.name,
        seconds,
      },
      contents,
    );
    yield* perform(cache.publish(temporary, folder, { ...contents, [manifestFile]: manifest }));
    return library;
  } catch (error) {
    throw cache.unwritable(error);
  } finally {
    if (temporary !== undefined) cache.discard(temporary);
    unlock?.();
  }
}

function explain(
  { cache }: HostJit,
  { module, uri, target, source, compiler }: Pick<HostBuild, 'module' | 'uri' | 'target' | 'source' | 'compiler'>,
  compiled: string,
  command: (from: string, to: string) => string[],
  error: CompilerFailure,
): CompileError {
  const folder = join(cache.root, 'failed', `${uri}_${target}`);
  const sourcePath = join(folder, 'source.cc');
  const log = error.log.replaceAll(compiled, sourcePath);
  cache.keepFailed(folder, { 'source.cc': source, 'log.txt': log });
  const repeat = [compiler.path, ...command(sourcePath, 'variant.so')].map((each) => shellQuote(each)).join(' ');
  return new CompileError(
    'ERR_FLASHINFER_COMPILE_FAILED',
    `${module.label}: it does not compile for the cpu with ${compiler.version}: ` +
      `${error.message.replaceAll(compiled, sourcePath)}; source and whole log are in ${folder}; repeat it with: ${repeat}`,
    { command: repeat, sourcePath, log, cause: error },
  );
}
