// SPDX-License-Identifier: Apache-2.0
// Several processes on one cache: each module is compiled once, and a process that is killed leaves nothing behind.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { build } from 'tsdown';
import { beforeAll, describe, expect, it } from 'vitest';
import { runSync } from '../../src/jit/bothWays.ts';
import { resolveModule } from '../../src/jit/resolve.ts';
import { packageRoot } from '../../src/packageRoot.ts';
import type { CompileTask } from './compileProcess.ts';
import { requireNvcc, scaleSpec, temporaryFolder, testJit, until, wrapNvcc } from './fixture.ts';

const nvcc = requireNvcc();
// Inside the package: the program finds the addon from where it lies.
const outDir = join(packageRoot(), 'build', 'test');
const program = join(outDir, 'compileProcess.mjs');

function start(task: CompileTask): ChildProcess {
  return spawn(process.execPath, [program, JSON.stringify(task)], { stdio: ['ignore', 'pipe', 'inherit'] });
}

async function finish(child: ChildProcess): Promise<{ uri: string; origin: string; sha256: string }[]> {
  const [output, [status]] = await Promise.all([text(child.stdout!), once(child, 'exit')]);
  expect(status).toBe(0);
  return JSON.parse(output);
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    // A zombie answers too, until its parent asks for it.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};

describe.skipIf(!nvcc || process.platform !== 'linux')('processes', () => {
  beforeAll(async () => {
    const entry = { compileProcess: join(import.meta.dirname, 'compileProcess.ts') };
    await build({
      entry,
      outDir,
      config: false,
      dts: false,
      clean: false,
      logLevel: 'error',
      outExtensions: () => ({ js: '.mjs' }),
    });
  });

  it('six at once compile each module once and get the same cubins', async () => {
    const counter = join(temporaryFolder(), 'compilations');
    const counted = wrapNvcc(nvcc!, `echo compiled >> '${counter}'; sleep 0.3`);
    const { config, includeRoot } = testJit(nvcc);
    const specs = [2, 3, 4].map((factor) => scaleSpec(factor));
    const children = Array.from({ length: 6 }, (_, i) =>
      start({
        // Different orders: they meet at different modules.
        specs: specs.map((_, k) => specs[(k + i) % specs.length]!),
        cacheRoot: config.cacheRoot,
        includeRoot,
        nvcc: { path: counted.path, release: counted.release },
        blocking: i % 2 === 0,
        startTime: Date.now() + 1500,
      }),
    );
    const results = (await Promise.all(children.map(finish))).flat();
    expect(readFileSync(counter, 'utf8').trim().split('\n')).toHaveLength(3);
    expect(results.filter((module) => module.origin === 'compiled')).toHaveLength(3);
    for (const uri of new Set(results.map((module) => module.uri))) {
      const same = results.filter((module) => module.uri === uri);
      expect(same).toHaveLength(6);
      expect(new Set(same.map((module) => module.sha256)).size).toBe(1);
    }
  });

  it.each([true, false])(
    'one killed in the middle of a compilation holds nobody up (blocking: %s)',
    async (blocking) => {
      const pidFile = join(temporaryFolder(), 'pid');
      const stuck = wrapNvcc(nvcc!, `echo $$ > '${pidFile}.new'; mv '${pidFile}.new' '${pidFile}'; exec sleep 60`);
      const jit = testJit(nvcc);
      const child = start({
        specs: [scaleSpec(2)],
        cacheRoot: jit.config.cacheRoot,
        includeRoot: jit.includeRoot,
        nvcc: { path: stuck.path, release: stuck.release },
        blocking,
        startTime: 0,
      });
      await until(() => existsSync(pidFile), 'the compiler to start');
      const target = join(jit.config.cacheRoot, 'sm_90a');
      expect(readdirSync(join(target, '.tmp'))).toHaveLength(1);
      child.kill('SIGKILL');
      await once(child, 'exit');
      try {
        const start = performance.now();
        expect(runSync(resolveModule(jit, scaleSpec(2), 'sm_90a', { blocking: true })).origin).toBe('compiled');
        expect(performance.now() - start).toBeLessThan(20_000);
        expect(readdirSync(join(target, '.tmp'))).toEqual([]);
        expect(readdirSync(target).filter((name) => !name.startsWith('.'))).toHaveLength(1);
      } finally {
        process.kill(Number(readFileSync(pidFile, 'utf8')), 'SIGKILL');
      }
    },
  );

  it('one that exits takes its compiler with it', async () => {
    const pidFile = join(temporaryFolder(), 'pid');
    const stuck = wrapNvcc(nvcc!, `echo $$ > '${pidFile}.new'; mv '${pidFile}.new' '${pidFile}'; sleep 60`);
    const { config, includeRoot } = testJit(nvcc);
    const child = start({
      specs: [scaleSpec(2)],
      cacheRoot: config.cacheRoot,
      includeRoot,
      nvcc: { path: stuck.path, release: stuck.release },
      blocking: false,
      startTime: 0,
      exitWhen: pidFile,
    });
    const exited = once(child, 'exit');
    await until(() => existsSync(pidFile), 'the compiler to start');
    const pid = Number(readFileSync(pidFile, 'utf8'));
    await exited;
    await until(() => !isAlive(pid), 'the compiler to end');
  });
});
