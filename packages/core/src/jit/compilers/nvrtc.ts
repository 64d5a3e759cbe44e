// SPDX-License-Identifier: Apache-2.0
// NVRTC through the addon: in this process, without a host compiler.
import { join } from 'node:path';
import { native } from '../../native/load.ts';
import { nvccFlags, nvrtcFlags } from '../flags.ts';
import { type Compiled, type Compiler, CompilerFailure, type CompileUnit, firstError, shellQuote } from './compiler.ts';
import { cudaHomes, isFile, listFolder } from './cudaHomes.ts';

export interface NvrtcProbe {
  readonly path?: string;
  /** CUDA release, e.g. '13.0'. */
  readonly release?: string;
  readonly error?: string;
  readonly searched: readonly string[];
}

const isWindows = process.platform === 'win32';
// libnvrtc.so.13, nvrtc64_130_0.dll; not libnvrtc-builtins, not libnvrtc.alt.so.
const libraryName = isWindows ? /^nvrtc64_\d+_\d+\.dll$/i : /^libnvrtc\.so(?:\.\d+)?$/;

/** Looks in the toolkits' library folders, then asks the system's loader (LD_LIBRARY_PATH, ld.so.cache, PATH). */
export function findNvrtc(): NvrtcProbe {
  const folders = [...cudaHomes.fromEnvironment(), ...cudaHomes.usual()].flatMap(libraryFolders);
  const candidates = folders.flatMap((folder) => librariesIn(folder));
  const { ok, library, version, error, searched } = native().nvrtc.probe(candidates);
  const places = [...folders.filter((folder) => librariesIn(folder).length === 0), ...searched];
  return ok ? { path: library, release: version, searched: places } : { error, searched: places };
}

function libraryFolders(home: string): string[] {
  return isWindows
    ? [join(home, 'bin', 'x64'), join(home, 'bin')]
    : [
        join(home, 'lib64'),
        join(home, 'lib'),
        join(home, 'targets', `${process.arch === 'arm64' ? 'sbsa' : 'x86_64'}-linux`, 'lib'),
      ];
}

/** Versioned names first, newest first: the bare name is there only with development files. */
function librariesIn(folder: string): string[] {
  return listFolder(folder)
    .filter((name) => libraryName.test(name))
    .sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))
    .map((name) => join(folder, name))
    .filter(isFile);
}

export function nvrtcCompiler(path: string, release: string): Compiler {
  const options = (unit: CompileUnit) => [
    ...nvrtcFlags(unit.target, unit.options),
    ...unit.includeRoots.map((root) => `-I${root}`),
  ];
  return {
    kind: 'nvrtc',
    release,
    path,
    // NVRTC has no command; nvcc shows the same errors.
    command: (unit) =>
      [
        'nvcc',
        ...nvccFlags(unit.target, unit.options),
        ...unit.includeRoots.map((root) => `-I${root}`),
        '-o',
        'kernel.cubin',
        unit.sourcePath,
      ]
        .map(shellQuote)
        .join(' '),
    compile: (unit) => ({
      sync() {
        try {
          return native().nvrtc.compileSync(unit.source, `${unit.name}.cu`, options(unit));
        } catch (error) {
          throw asFailure(error);
        }
      },
      // A running NVRTC cannot be stopped: an abort leaves its thread to finish and drops the result.
      async async(signal) {
        const compiled = native()
          .nvrtc.compile(unit.source, `${unit.name}.cu`, options(unit))
          .catch((error: unknown) => {
            throw asFailure(error);
          });
        return signal ? await Promise.race([compiled, rejectOnAbort(signal, compiled)]) : await compiled;
      },
    }),
  };
}

function rejectOnAbort(signal: AbortSignal, until: Promise<Compiled>): Promise<never> {
  return new Promise((_, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const forget = () => signal.removeEventListener('abort', onAbort);
    until.then(forget, forget);
  });
}

function asFailure(error: unknown): unknown {
  const { code, log = '', message } = error as { code?: string; log?: string; message: string };
  if (code !== 'COMPILE') return error;
  return new CompilerFailure(firstError(log) ?? message, log, { cause: error });
}
