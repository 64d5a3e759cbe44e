// SPDX-License-Identifier: Apache-2.0
// nvcc as a child process.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { nvccFlags } from '../flags.ts';
import { type Compiler, type CompileUnit, shellQuote } from './compiler.ts';
import { cudaHomes, isFile } from './cudaHomes.ts';
import { runCompiler } from './runCompiler.ts';

export interface NvccProbe {
  readonly path?: string;
  /** CUDA release, e.g. '13.0'. */
  readonly release?: string;
  /** Why the program found at `path` cannot be used. */
  readonly error?: string;
  readonly searched: readonly string[];
}

const program = process.platform === 'win32' ? 'nvcc.exe' : 'nvcc';
const releases = new Map<string, { release?: string; error?: string }>();

/** Looks in CUDA_HOME, CUDA_PATH, CUDA_ROOT, PATH and the usual place; asks each program found once for its version. */
export function findNvcc(): NvccProbe {
  const folders = [
    ...cudaHomes.fromEnvironment().map((home) => join(home, 'bin')),
    ...(process.env.PATH ?? '').split(delimiter).filter(Boolean),
    ...cudaHomes.usual().map((home) => join(home, 'bin')),
  ];
  const searched = [...new Set(folders.map((folder) => join(folder, program)))];
  const path = searched.find(isFile);
  if (path === undefined) return { searched };
  let found = releases.get(path);
  if (!found) {
    found = askRelease(path);
    releases.set(path, found);
  }
  return { path, ...found, searched };
}

function askRelease(path: string): { release?: string; error?: string } {
  const { stdout, stderr, error, status } = spawnSync(path, ['--version'], { encoding: 'utf8', windowsHide: true });
  const release = /release (\d+\.\d+)/.exec(stdout ?? '')?.[1];
  if (release !== undefined) return { release };
  return { error: `${path} --version gives no release (${error?.message ?? `exit ${status}: ${stderr.trim()}`})` };
}

export function nvccCompiler(path: string, release: string): Compiler {
  const outputPath = (unit: CompileUnit) => join(dirname(unit.sourcePath), 'kernel.cubin');
  const argumentsFor = (unit: CompileUnit, output: string) => [
    ...nvccFlags(unit.target, unit.options),
    ...unit.includeRoots.map((root) => `-I${root}`),
    '-o',
    output,
    unit.sourcePath,
  ];
  return {
    kind: 'nvcc',
    release,
    path,
    command: (unit) => [path, ...argumentsFor(unit, 'kernel.cubin')].map(shellQuote).join(' '),
    compile: (unit) => {
      const output = outputPath(unit);
      const run = runCompiler(path, argumentsFor(unit, output), hintOf);
      return {
        sync() {
          const log = run.sync();
          return { cubin: readFileSync(output), log };
        },
        async async(signal) {
          const log = await run.async(signal);
          return { cubin: await readFile(output), log };
        },
      };
    },
  };
}

function hintOf(log: string): string {
  return /host compiler/i.test(log) ? ' (nvcc needs a C++ compiler such as g++ on PATH; NVRTC needs none)' : '';
}
