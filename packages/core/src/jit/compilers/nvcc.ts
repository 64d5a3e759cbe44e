// SPDX-License-Identifier: Apache-2.0
// nvcc as a child process.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { nvccFlags } from '../flags.ts';
import { type Compiler, CompilerFailure, type CompileUnit, firstError, shellQuote } from './compiler.ts';
import { cudaHomes, isFile } from './cudaHomes.ts';

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
      const args = argumentsFor(unit, output);
      return {
        sync() {
          const run = spawnSync(path, args, { encoding: 'utf8', windowsHide: true, maxBuffer: 64 << 20 });
          if (run.error)
            throw new CompilerFailure(`${path} did not run: ${run.error.message}`, '', { cause: run.error });
          const log = check(run.status, run.signal, run.stdout + run.stderr);
          return { cubin: readFileSync(output), log };
        },
        async async(signal) {
          const log = await runChild(path, args, signal);
          return { cubin: await readFile(output), log };
        },
      };
    },
  };
}

function check(status: number | null, signal: NodeJS.Signals | null, log: string): string {
  if (status === 0) return log;
  if (signal !== null) {
    throw new CompilerFailure(`nvcc was ended by ${signal}; when memory ran out, lower MAX_JOBS`, log);
  }
  const hint = /host compiler/i.test(log) ? ' (nvcc needs a C++ compiler such as g++ on PATH; NVRTC needs none)' : '';
  throw new CompilerFailure((firstError(log) ?? `nvcc exited with ${status}`) + hint, log);
}

/**
 * Children end with this process, and as a group when aborted: nvcc itself starts cicc and ptxas. LIMIT: a signal that
 * kills this process kills no group; its compilers end by themselves, in a folder that the next build of the module clears.
 */
const running = new Set<ChildProcess>();

async function runChild(path: string, args: readonly string[], signal: AbortSignal | undefined): Promise<string> {
  const child = spawn(path, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    windowsHide: true,
    detached: process.platform !== 'win32',
  });
  if (running.size === 0) process.once('exit', killAll);
  running.add(child);
  const onAbort = () => killTree(child);
  signal?.addEventListener('abort', onAbort);
  try {
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => chunks.push(chunk));
    const [status, endSignal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.once('error', (cause) =>
        reject(new CompilerFailure(`${path} did not run: ${cause.message}`, '', { cause })),
      );
      child.once('close', (code, name) => resolve([code, name]));
    });
    signal?.throwIfAborted();
    return check(status, endSignal, Buffer.concat(chunks).toString('utf8'));
  } finally {
    signal?.removeEventListener('abort', onAbort);
    running.delete(child);
    if (running.size === 0) process.removeListener('exit', killAll);
  }
}

function killAll(): void {
  for (const child of running) killTree(child);
}

function killTree(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null) return;
  if (process.platform === 'win32') {
    spawnSync('taskkill', ['/pid', String(child.pid), '/t', '/f'], { windowsHide: true });
    return;
  }
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // Already gone.
  }
}
