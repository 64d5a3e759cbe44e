// SPDX-License-Identifier: Apache-2.0
// nvcc as a child process.
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { nvccFlags } from '../flags.ts';
import { type Compiler, type CompileUnit, shellQuote } from './compiler.ts';
import { cudaHomes, isFile } from './cudaHomes.ts';
import { runCompiler, runProgram } from './runCompiler.ts';
import { findVisualStudio } from './visualStudio.ts';

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
  const { stdout, stderr, error, status } = runProgram(path, ['--version']);
  const release = /release (\d+\.\d+)/.exec(stdout ?? '')?.[1];
  if (release !== undefined) return { release };
  return { error: `${path} --version gives no release (${error?.message ?? `exit ${status}: ${stderr.trim()}`})` };
}

export function nvccCompiler(path: string, release: string): Compiler {
  const host = hostCompilerFlags();
  const outputPath = (unit: CompileUnit) => join(dirname(unit.sourcePath), 'kernel.cubin');
  const argumentsFor = (unit: CompileUnit, output: string) => [
    ...nvccFlags(unit.target, unit.options),
    ...host,
    ...unit.includeRoots.map((root) => `-I${root}`),
    '-o',
    output,
    unit.sourcePath,
  ];
  return {
    kind: 'nvcc',
    release,
    path,
    command: (unit) => [path, ...argumentsFor(unit, 'kernel.cubin')].map((each) => shellQuote(each)).join(' '),
    compile: (unit) => {
      const output = outputPath(unit);
      const run = runCompiler(path, argumentsFor(unit, output), (log) => hintOf(log, output));
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

/** Visual Studio's compiler where nvcc would not find it. */
function hostCompilerFlags(): string[] {
  const folder = process.platform === 'win32' ? findVisualStudio().folder : undefined;
  return folder === undefined ? [] : ['-ccbin', folder];
}

/** What nvcc does not say itself. Exported for tests. */
export function hintOf(log: string, output: string, platform: string = process.platform): string {
  const noCompiler = /host compiler|cannot find compiler/i.test(log);
  if (platform !== 'win32') {
    return noCompiler ? ' (nvcc needs a C++ compiler such as g++ on PATH; NVRTC needs none)' : '';
  }
  if (noCompiler) {
    return (
      ' (nvcc needs cl.exe: install "Desktop development with C++" of Visual Studio or its Build Tools, or run in a Visual ' +
      'Studio developer prompt; NVRTC needs none)'
    );
  }
  // MAX_PATH counts the end of the text too; nvcc's own files beside the output have longer names.
  const longest = 240;
  if (output.length <= longest) return '';
  return ` (${output} has ${output.length} characters, and CUDA's programs take 260: set FLASHINFER_WORKSPACE_BASE to a shorter path)`;
}
