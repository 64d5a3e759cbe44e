// SPDX-License-Identifier: Apache-2.0
// NVRTC through the addon: in this process, without a host compiler.
import { basename, delimiter, join } from 'node:path';
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
const libraryName = isWindows ? /^nvrtc64_(\d+)\d_\d+\.dll$/i : /^libnvrtc\.so(?:\.(\d+))?$/;
const builtinsName = isWindows ? /^nvrtc-builtins64_(\d+)(\d)\.dll$/i : /^libnvrtc-builtins\.so\.(\d+)\.(\d+)$/;

/** Looks in {@link libraryFolders}, then asks the system's loader. Opens the library: some 100 ms the first time. */
export function findNvrtc(): NvrtcProbe {
  const folders = libraryFolders();
  const candidates = folders.flatMap(librariesIn);
  const { ok, library, version, error, searched } = native().nvrtc.probe(candidates);
  const places = [...folders.filter((folder) => librariesIn(folder).length === 0), ...searched];
  return ok ? { path: library, release: version, searched: places } : { error, searched: places };
}

/** Release of the library that {@link findNvrtc} is going to open, as file names tell it, or undefined. */
export function nvrtcReleaseHint(): string | undefined {
  const folder = libraryFolders().find((each) => librariesIn(each).length > 0);
  if (folder === undefined) return undefined;
  const major = libraryName.exec(basename(librariesIn(folder)[0] as string))?.[1];
  return listFolder(folder)
    .map((name) => builtinsName.exec(name))
    .filter((match) => match !== null && (major === undefined || match[1] === major))
    .map((match) => `${match?.[1]}.${match?.[2]}`)
    .sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))[0];
}

/** Toolkits named by the environment, the loader's path, conda, then toolkits and libraries in their usual places. */
function libraryFolders(): string[] {
  const { LD_LIBRARY_PATH, PATH, CONDA_PREFIX } = process.env;
  const loaderPath = ((isWindows ? PATH : LD_LIBRARY_PATH) ?? '').split(delimiter).filter(Boolean);
  const conda = CONDA_PREFIX ? [join(CONDA_PREFIX, isWindows ? 'Library\\bin' : 'lib')] : [];
  const system = isWindows
    ? []
    : [`/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`, '/usr/lib64'];
  return [
    ...cudaHomes.fromEnvironment().flatMap(toolkitFolders),
    ...loaderPath,
    ...conda,
    ...cudaHomes.usual().flatMap(toolkitFolders),
    ...system,
  ];
}

function toolkitFolders(home: string): string[] {
  return isWindows ? [join(home, 'bin', 'x64'), join(home, 'bin')] : [join(home, 'lib64'), join(home, 'lib')];
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
        .map((each) => shellQuote(each))
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
