// SPDX-License-Identifier: Apache-2.0
// The C++ compiler of this machine: makes the libraries of custom variants for the cpu device.
import { createHash } from 'node:crypto';
import { delimiter, join } from 'node:path';
import { env } from '../../envVars.ts';
import { CompileError } from '../../errors.ts';
import type { CpuIsa } from '../../native/binding.ts';
import { isFile } from './cudaHomes.ts';
import { runProgram } from './runCompiler.ts';

export interface HostCompiler {
  readonly path: string;
  /** First line of `--version`. */
  readonly version: string;
  /** Tells compilers and versions apart in the names of entries. */
  readonly id: string;
}

interface HostCompilerProbe {
  readonly compiler: HostCompiler | undefined;
  readonly searched: readonly string[];
}

const suffix = process.platform === 'win32' ? '.exe' : '';
const names = ['c++', 'g++', 'clang++'];
const known = new Map<string, HostCompiler | string>();

/** The variable CXX, a path or a name on PATH; without it c++, g++ or clang++ on PATH. */
export function findHostCompiler(): HostCompilerProbe {
  const searched: string[] = [];
  for (const path of candidates()) {
    if (!isFile(path)) {
      searched.push(path);
      continue;
    }
    let found = known.get(path);
    if (found === undefined) {
      found = askVersion(path);
      known.set(path, found);
    }
    if (typeof found !== 'string') return { compiler: found, searched };
    searched.push(`${path} (${found})`);
  }
  return { compiler: undefined, searched };
}

function candidates(): string[] {
  const given = env.cxx;
  if (given?.includes('/') || given?.includes('\\')) return [given];
  const folders = (process.env.PATH ?? '').split(delimiter).filter(Boolean);
  const wanted = given === undefined ? names : [given];
  return wanted.flatMap((name) => folders.map((folder) => join(folder, name.replace(/\.exe$/, '') + suffix)));
}

function askVersion(path: string): HostCompiler | string {
  const { stdout, error, status } = runProgram(path, ['--version']);
  const version = stdout?.split(/\r?\n/)[0]?.trim();
  if (status !== 0 || !version) return `--version failed: ${error?.message ?? `exit ${status}`}`;
  const id = createHash('sha256').update(version).digest('hex').slice(0, 8);
  return { path, version, id };
}

/** As csrc/cpu/cpu.cmake compiles the kernels of an instruction set. */
const isaFlags: Record<CpuIsa, readonly string[]> = {
  generic: [],
  neon: [],
  avx2: ['-mavx2', '-mfma', '-mf16c'],
  avx512: ['-mavx2', '-mfma', '-mf16c', '-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl'],
  avx512bf16: ['-mavx2', '-mfma', '-mf16c', '-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx512bf16'],
};

/** Everything but the include folders, the output and the source; part of a library's key. */
export function hostFlags(isa: CpuIsa, { version }: HostCompiler, platform: string = process.platform): string[] {
  const system = platform === 'win32' ? windowsFlags(isa, version) : ['-fPIC'];
  const math = ['-ffp-contract=off', '-fno-math-errno', '-fno-trapping-math'];
  return ['-std=c++17', '-O3', '-DNDEBUG', '-shared', '-fvisibility=hidden', ...system, ...math, ...isaFlags[isa]];
}

/** The compiler's own libraries are not beside ours; and as csrc/mingw/mingw.cmake, whose reason is GCC's alone. */
function windowsFlags(isa: CpuIsa, version: string): string[] {
  const wide = isa.startsWith('avx') && !version.includes('clang');
  return wide ? ['-static', '-Wa,-muse-unaligned-vector-move'] : ['-static'];
}

export function hostCompilerNotFound(what: string, searched: readonly string[]): CompileError {
  return new CompileError(
    'ERR_FLASHINFER_COMPILER_NOT_FOUND',
    `${what} must be compiled for the cpu, and no C++ compiler was found; expected c++, g++ or clang++ on PATH, or CXX to ` +
      `name one (looked for ${searched.join(', ') || 'c++, g++ and clang++; PATH is empty'}); install g++ (Debian, Ubuntu: ` +
      'apt install g++; Fedora: dnf install gcc-c++; Alpine: apk add g++), clang (macOS: xcode-select --install) or LLVM ' +
      '(Windows), or use a CUDA device',
  );
}
