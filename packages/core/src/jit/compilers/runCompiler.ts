// SPDX-License-Identifier: Apache-2.0
// A compiler as a child process.
import { type ChildProcess, type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { basename } from 'node:path';
import type { Step } from '../bothWays.ts';
import { CompilerFailure, firstError } from './compiler.ts';

/** Runs a program to its end; that it did not start is in `error`, as is that the permission model forbids it. */
export function runProgram(
  path: string,
  args: readonly string[],
): Pick<SpawnSyncReturns<string>, 'stdout' | 'stderr' | 'status' | 'signal' | 'error'> {
  try {
    return spawnSync(path, args, { encoding: 'utf8', windowsHide: true, maxBuffer: 64 << 20 });
  } catch (error) {
    return { stdout: '', stderr: '', status: null, signal: null, error: error as Error };
  }
}

/** Runs a compiler and returns its log. `hintOf` may add to what a failed one says. @throws CompilerFailure */
export function runCompiler(
  path: string,
  args: readonly string[],
  hintOf: (log: string) => string = () => '',
): Step<string> {
  return {
    sync() {
      const run = runProgram(path, args);
      if (run.error) throw new CompilerFailure(`${path} did not run: ${run.error.message}`, '', { cause: run.error });
      return check(path, run.status, run.signal, run.stdout + run.stderr, hintOf);
    },
    async: (signal) => runChild(path, args, hintOf, signal),
  };
}

function check(
  path: string,
  status: number | null,
  signal: NodeJS.Signals | null,
  log: string,
  hintOf: (log: string) => string,
): string {
  if (status === 0) return log;
  const name = basename(path).replace(/\.exe$/, '');
  if (signal !== null) {
    throw new CompilerFailure(`${name} was ended by ${signal}; when memory ran out, lower MAX_JOBS`, log);
  }
  throw new CompilerFailure((firstError(log) ?? `${name} exited with ${status}`) + hintOf(log), log);
}

/**
 * Children end with this process, and as a group when aborted: nvcc itself starts cicc and ptxas. LIMIT: a signal that
 * kills this process kills no group; its compilers end by themselves, in a folder that the next build of the module clears.
 */
const running = new Set<ChildProcess>();

function start(path: string, args: readonly string[]) {
  try {
    return spawn(path, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      windowsHide: true,
      detached: process.platform !== 'win32',
    });
  } catch (error) {
    throw new CompilerFailure(`${path} did not run: ${(error as Error).message}`, '', { cause: error });
  }
}

async function runChild(
  path: string,
  args: readonly string[],
  hintOf: (log: string) => string,
  signal: AbortSignal | undefined,
): Promise<string> {
  const child = start(path, args);
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
    return check(path, status, endSignal, Buffer.concat(chunks).toString('utf8'), hintOf);
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
