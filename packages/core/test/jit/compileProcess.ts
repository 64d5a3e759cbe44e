// SPDX-License-Identifier: Apache-2.0
// A process of processes.test.ts: resolves kernels as its JSON argument says, and prints what it got.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { runAsync, runSync } from '../../src/jit/bothWays.ts';
import { KernelCache } from '../../src/jit/cache.ts';
import { nvccCompiler } from '../../src/jit/compilers/nvcc.ts';
import { jitConfig } from '../../src/jit/config.ts';
import { resolveModule } from '../../src/jit/resolve.ts';
import type { KernelSpec } from '../../src/jit/spec.ts';

export interface CompileTask {
  readonly specs: readonly KernelSpec[];
  readonly cacheRoot: string;
  readonly includeRoot: string;
  readonly nvcc: { readonly path: string; readonly release: string };
  readonly blocking: boolean;
  /** When to begin, so that all processes do at once. */
  readonly startTime: number;
  /** A file at whose appearance the process exits. */
  readonly exitWhen?: string;
}

const task = JSON.parse(process.argv[2] as string) as CompileTask;
const compiler = nvccCompiler(task.nvcc.path, task.nvcc.release);
const jit = {
  config: { ...jitConfig(), cacheRoot: task.cacheRoot, includeRoots: [task.includeRoot] },
  cache: new KernelCache(task.cacheRoot),
  sources: [],
  findCompiler: () => compiler,
  compilerRelease: () => compiler.release,
};

if (task.exitWhen !== undefined) {
  const path = task.exitWhen;
  setInterval(() => existsSync(path) && process.exit(0), 10);
}
await new Promise((resolve) => setTimeout(resolve, task.startTime - Date.now()));
const modules = [];
for (const spec of task.specs) {
  const procedure = resolveModule(jit, spec, 'sm_90a', { blocking: task.blocking });
  modules.push(task.blocking ? runSync(procedure) : await runAsync(procedure));
}
const results = modules.map(({ uri, origin, cubin }) => ({
  uri,
  origin,
  sha256: createHash('sha256').update(cubin).digest('hex'),
}));
console.log(JSON.stringify(results));
