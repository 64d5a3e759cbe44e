// SPDX-License-Identifier: Apache-2.0
// A cache, headers and kernels of a test's own.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { devNull, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, vi } from 'vitest';
import { KernelCache } from '../../src/jit/cache.ts';
import type { Compiled, Compiler, CompileUnit } from '../../src/jit/compilers/compiler.ts';
import { findNvcc, nvccCompiler } from '../../src/jit/compilers/nvcc.ts';
import { findNvrtc, nvrtcCompiler } from '../../src/jit/compilers/nvrtc.ts';
import { jitConfig } from '../../src/jit/config.ts';
import type { JitEnvironment } from '../../src/jit/resolve.ts';
import type { KernelSpec } from '../../src/jit/spec.ts';
import { resetLogging } from '../../src/logging.ts';

// Log lines of these tests are either looked at (captureLog) or noise.
process.env.FLASHINFER_LOGDEST ??= devNull;

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'flashinfer-jit-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** `out[i] = factor * i` in a header that includes another one. */
export function writeScaleHeaders(includeRoot: string): void {
  writeHeader(includeRoot, 'flashinfer/test/scale.cuh', [
    '#pragma once',
    '#include "multiply.cuh"',
    'namespace test {',
    'template <int kFactor, class Params>',
    '__device__ void scale(const Params& params) {',
    '  const unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;',
    '  if (i < params.count) static_cast<float*>(params.out)[i] = multiply(params.factor * kFactor, i);',
    '}',
    '}  // namespace test',
  ]);
  writeHeader(includeRoot, 'flashinfer/test/multiply.cuh', [
    '#pragma once',
    'namespace test {',
    'constexpr float multiply(float a, float b) { return a * b; }',
    '}  // namespace test',
  ]);
}

export function writeHeader(includeRoot: string, name: string, lines: readonly string[]): void {
  const path = join(includeRoot, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${lines.join('\n')}\n`);
}

export function scaleSpec(factor: number, changes: Partial<KernelSpec> = {}): KernelSpec {
  return {
    name: `scale_by_${factor}`,
    header: 'flashinfer/test/scale.cuh',
    entry: `test::scale<${factor}>`,
    params: [
      { name: 'out', type: 'ptr' },
      { name: 'count', type: 'u32' },
      { name: 'factor', type: 'f32' },
    ],
    threads: 128,
    ...changes,
  };
}

/** nvcc of this machine, or undefined after saying why tests that compile are left out. */
export function requireNvcc(): Compiler | undefined {
  const { path, release, error, searched } = findNvcc();
  if (path !== undefined && release !== undefined) return nvccCompiler(path, release);
  console.warn(`tests that compile are skipped: no nvcc (${error ?? searched.join(', ')})`);
  return undefined;
}

/** NVRTC of a toolkit, or of the pip package nvidia-cuda-nvrtc, whose folder serves as CUDA_HOME. */
export function findNvrtcHome(): string | undefined {
  const found = findNvrtc();
  if (found.path !== undefined) return join(found.path, '..', '..');
  try {
    const code = "import importlib.util as u; print(*(u.find_spec('nvidia').submodule_search_locations))";
    const folder = execFileSync('python3', ['-c', code], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
    const home = ['cu13', 'cuda_nvrtc'].map((name) => join(folder, name)).find((path) => existsSync(join(path, 'lib')));
    if (home !== undefined) return home;
  } catch {
    // No python, or no such package.
  }
  console.warn('NVRTC tests are skipped: no libnvrtc (install the CUDA toolkit, or pip install nvidia-cuda-nvrtc)');
  return undefined;
}

/** NVRTC of this machine, or undefined after saying why its tests are left out. */
export function requireNvrtc(): Compiler | undefined {
  const home = findNvrtcHome();
  if (home === undefined) return undefined;
  vi.stubEnv('CUDA_HOME', home);
  const { path, release } = findNvrtc();
  vi.unstubAllEnvs();
  return path === undefined || release === undefined ? undefined : nvrtcCompiler(path, release);
}

/** The same compiler, counting how often it is asked; each source is really compiled once. */
export function countingCompiler(compiler: Compiler): Compiler & { compilations: number } {
  const known = new Map<string, Compiled>();
  const counting = {
    ...compiler,
    compilations: 0,
    compile: (unit: CompileUnit) => {
      const { sync, async } = compiler.compile(unit);
      const id = `${unit.target} ${unit.source}`;
      const remember = (compiled: Compiled) => {
        known.set(id, compiled);
        return compiled;
      };
      counting.compilations++;
      return {
        sync: () => known.get(id) ?? remember(sync()),
        async: async (signal: AbortSignal | undefined) => known.get(id) ?? remember(await async(signal)),
      };
    },
  };
  return counting;
}

export interface TestJit extends JitEnvironment {
  readonly includeRoot: string;
}

export function testJit(
  compiler: Compiler | undefined,
  changes: Partial<JitEnvironment> & { cacheRoot?: string } = {},
): TestJit {
  const folder = temporaryFolder();
  const includeRoot = join(folder, 'include');
  writeScaleHeaders(includeRoot);
  const cacheRoot = changes.cacheRoot ?? join(folder, 'cache');
  const config = { ...jitConfig(), cacheRoot, includeRoots: [includeRoot], disableJit: false };
  return {
    config,
    cache: new KernelCache(cacheRoot),
    sources: [],
    findCompiler: () => compiler,
    compilerRelease: () => compiler?.release,
    ...changes,
    includeRoot,
  };
}

/** An nvcc that first runs shell commands; `$0` is its own path. The real one must exist. */
export function wrapNvcc(nvcc: Compiler, commands: string): Compiler {
  const path = join(temporaryFolder(), 'nvcc');
  writeFileSync(path, `#!/bin/sh\n${commands}\nexec '${nvcc.path}' "$@"\n`, { mode: 0o755 });
  return nvccCompiler(path, nvcc.release);
}

/** Waits until `condition` holds. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (const end = Date.now() + 30_000; !condition(); await sleep(10)) {
    if (Date.now() > end) throw new Error(`timed out waiting for ${what}`);
  }
}

/** Log lines this process writes while `body` runs. */
export async function captureLog(body: () => unknown): Promise<string> {
  const path = join(temporaryFolder(), 'log');
  vi.stubEnv('FLASHINFER_LOGDEST', path);
  resetLogging();
  try {
    await body();
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  } finally {
    vi.unstubAllEnvs();
    resetLogging();
  }
}
