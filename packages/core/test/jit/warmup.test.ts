// SPDX-License-Identifier: Apache-2.0
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { runSync } from '../../src/jit/bothWays.ts';
import { parallelJobs, runParallel } from '../../src/jit/jobs.ts';
import { resolveModule } from '../../src/jit/resolve.ts';
import type { KernelSpec } from '../../src/jit/spec.ts';
import { type WarmupProgress, warmup, warmupIn } from '../../src/jit/warmup.ts';
import {
  countingCompiler,
  requireNvcc,
  scaleSpec,
  temporaryFolder,
  testJit,
  until,
  wrapNvcc,
  writeHeader,
} from './fixture.ts';

const nvcc = requireNvcc();
afterEach(() => void vi.unstubAllEnvs());

const entries = (folder: string) => readdirSync(folder).filter((name) => !name.startsWith('.'));

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe.skipIf(!nvcc)('warmup', () => {
  it('compiles in parallel with progress, each kernel once, and then finds all in the cache', async () => {
    const compiler = countingCompiler(nvcc!);
    const jit = testJit(compiler);
    const specs = [2, 3, 4, 2].map((factor) => scaleSpec(factor));
    const run = async () => {
      const events: WarmupProgress[] = [];
      await warmupIn(jit, specs, { arch: '9.0', onProgress: (event) => events.push(event) });
      return events;
    };
    const first = await run();
    expect(first.map((event) => [event.done, event.total, event.source])).toEqual(
      [1, 2, 3].map((done) => [done, 3, 'compiled']),
    );
    expect(first.map((event) => event.name).sort()).toEqual(['scale_by_2', 'scale_by_3', 'scale_by_4']);
    expect(first.every((event) => event.seconds > 0)).toBe(true);
    expect((await run()).map((event) => event.source)).toEqual(['cache', 'cache', 'cache']);
    expect(compiler.compilations).toBe(3);
    expect(runSync(resolveModule(jit, specs[0]!, 'sm_90a', { blocking: true })).origin).toBe('cache');
  });

  it('leaves the event loop free', async () => {
    const jit = testJit(wrapNvcc(nvcc!, 'sleep 0.3'));
    let longest = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 5);
    await warmupIn(jit, [scaleSpec(2)], { arch: '90a' });
    clearInterval(timer);
    expect(longest).toBeLessThan(250);
  });

  it('ends compilers and leaves nothing half-written when aborted', async () => {
    const folder = temporaryFolder();
    const stuck = wrapNvcc(
      nvcc!,
      `echo $$ > '${folder}/pid.new'; mv '${folder}/pid.new' '${folder}/pid'; sleep 60 & wait`,
    );
    const jit = testJit(stuck);
    const controller = new AbortController();
    const aborted = warmupIn(jit, [scaleSpec(2), scaleSpec(3)], { arch: '9.0a', signal: controller.signal });
    await until(() => existsSync(join(folder, 'pid')), 'the compiler to start');
    const reason = new Error('shutting down');
    controller.abort(reason);
    await expect(aborted).rejects.toMatchObject({
      name: 'AbortedError',
      code: 'ERR_FLASHINFER_ABORTED',
      message: expect.stringMatching(/warmup: aborted after 0 of 2 kernels/),
      cause: reason,
    });
    const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'));
    await until(() => !isAlive(pid), 'the compiler to end');
    const target = join(jit.config.cacheRoot, 'sm_90a');
    expect(entries(target)).toEqual([]);
    expect(readdirSync(join(target, '.tmp'))).toEqual([]);
    // The locks are free again.
    await warmupIn({ ...jit, findCompiler: () => nvcc }, [scaleSpec(2)], { arch: '9.0a' });
    expect(entries(target)).toHaveLength(1);
  });

  it('does nothing when the signal is aborted already', async () => {
    const compiler = countingCompiler(nvcc!);
    const run = warmupIn(testJit(compiler), [scaleSpec(2)], { arch: '9.0a', signal: AbortSignal.abort() });
    await expect(run).rejects.toMatchObject({ code: 'ERR_FLASHINFER_ABORTED' });
    expect(compiler.compilations).toBe(0);
  });

  it('fails with the error of the kernel that does not compile', async () => {
    const jit = testJit(nvcc);
    writeHeader(jit.includeRoot, 'flashinfer/test/broken.cuh', ['#error no such thing']);
    const broken = scaleSpec(9, { header: 'flashinfer/test/broken.cuh' });
    await expect(warmupIn(jit, [broken, scaleSpec(2)], { arch: '9.0a' })).rejects.toMatchObject({
      code: 'ERR_FLASHINFER_COMPILE_FAILED',
      message: expect.stringMatching(/scale_by_9_.*no such thing/),
    });
  });

  it('compiles for what FLASHINFER_CUDA_ARCH_LIST names where there is no GPU', async () => {
    const jit = testJit(nvcc);
    const events: string[] = [];
    const config = { ...jit.config, archList: ['sm_80', 'sm_90a'] as const };
    if ((await import('../../src/runtime/device.ts')).cudaDeviceCount() > 0) return;
    await warmupIn({ ...jit, config }, [scaleSpec(2)], { onProgress: (event) => events.push(event.source) });
    expect(events).toEqual(['compiled', 'compiled']);
    expect(entries(jit.config.cacheRoot).sort()).toEqual(['sm_80', 'sm_90a']);
  });
});

describe('warmup arguments', () => {
  it('takes plans and specs, and refuses what is neither', async () => {
    const plan = { kernelSpecs: (): KernelSpec[] => [] };
    await warmup(plan, { arch: '9.0a' });
    await warmup({ arch: '9.0a' });
    await expect(warmup(plan, null as never)).rejects.toThrow(
      /argument 1 is null; expected kernel specs and planned wrappers/,
    );
    await expect(warmup([scaleSpec(2)] as never, plan)).rejects.toThrow(/argument 0 is \[an object\]/);
    await expect(warmup(scaleSpec(2), { arch: '6.0' })).rejects.toThrow(/arch '6.0' is not known/);
    await expect(warmup(scaleSpec(2), { device: 'cpu' })).rejects.toThrow(
      /device cpu loads no CUDA kernels.*arch: '9.0a'/,
    );
  });
});

describe('parallelJobs', () => {
  it('follows MAX_JOBS, never exceeds the tasks, and is at least one', () => {
    vi.stubEnv('MAX_JOBS', '3');
    expect([parallelJobs(10), parallelJobs(2), parallelJobs(0)]).toEqual([3, 2, 1]);
    vi.stubEnv('MAX_JOBS', '');
    expect(parallelJobs(1)).toBe(1);
    vi.stubEnv('MAX_JOBS', 'many');
    expect(() => parallelJobs(4)).toThrow(expect.objectContaining({ code: 'ERR_FLASHINFER_INVALID_ENV' }));
  });

  it('lets every job listen for the end of all, without a warning', async () => {
    const warnings: Error[] = [];
    const note = (warning: Error) => void warnings.push(warning);
    process.on('warning', note);
    const items = Array.from({ length: 16 }, (_, n) => n);
    await runParallel(items, items.length, undefined, async (_, stop) => {
      stop.addEventListener('abort', () => undefined);
      await new Promise(setImmediate);
    });
    process.off('warning', note);
    expect(warnings).toEqual([]);
  });

  it('bounds what runs at once, and stops the rest at the first failure', async () => {
    let running = 0;
    let most = 0;
    const done: number[] = [];
    const work = async (item: number) => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setTimeout(resolve, 5));
      running--;
      if (item === 5) throw new Error('five');
      done.push(item);
    };
    await runParallel([1, 2, 3, 4], 2, undefined, work);
    expect([most, done.length]).toEqual([2, 4]);
    await expect(runParallel([5, 6, 7, 8, 9], 2, undefined, work)).rejects.toThrow('five');
    expect(running).toBe(0);
    expect(done.length).toBeLessThanOrEqual(5);
  });
});
