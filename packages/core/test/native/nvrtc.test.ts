// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CompileError } from '../../src/errors.ts';
import { addonCandidates, native, toFlashInferError } from '../../src/native/load.ts';
import { packageRoot } from '../../src/packageRoot.ts';

const { nvrtc } = native();
const real = nvrtc.probe(process.env.CUDA_HOME ? [join(process.env.CUDA_HOME, 'lib64', 'libnvrtc.so')] : []);

async function failure(run: () => unknown): Promise<Error & { code?: string; log?: string }> {
  try {
    await run();
  } catch (error) {
    return error as Error;
  }
  throw new Error('expected a failure');
}

const newestName = process.platform === 'win32' ? 'nvrtc64_130_0.dll' : 'libnvrtc.so.13';

it('says where NVRTC was looked for', () => {
  const probe = nvrtc.probe(['/nowhere/libnvrtc.so.99']);
  expect(probe.searched[0]).toMatch(/^\/nowhere\/libnvrtc\.so\.99: ./);
  if (!probe.ok) {
    expect(probe.searched.map((line) => line.split(':')[0])).toContain(newestName);
    expect(probe.error).toMatch(/NVRTC/);
  }
});

it.skipIf(real.ok)('cannot compile without NVRTC, and says so', async () => {
  const error = await failure(() => nvrtc.compileSync('', 'k.cu', []));
  const mapped = toFlashInferError(error, 'getKernel');
  expect(mapped.code).toBe('ERR_FLASHINFER_COMPILER_NOT_FOUND');
  expect(mapped.message).toContain(newestName);
});

describe.runIf(process.platform === 'linux')('with a fake NVRTC', () => {
  const folder = mkdtempSync(join(tmpdir(), 'flashinfer-nvrtc-'));
  const library = join(folder, 'libnvrtc.so.13');
  const decode = (bytes: Uint8Array) => Buffer.from(bytes).toString();
  beforeAll(() => {
    execFileSync(process.env.CC || 'cc', ['-shared', '-fPIC', '-o', library, join(import.meta.dirname, 'fakeNvrtc.c')]);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('reports library, version and architectures, and prefers the given path', () => {
    expect(nvrtc.probe(['/nowhere/libnvrtc.so', library])).toMatchObject({
      ok: true,
      library,
      version: '13.7',
      archs: [75, 90, 120],
      searched: [expect.stringContaining('/nowhere/'), `${library}: opened`],
    });
  });

  it('passes source and options on, in both forms', async () => {
    nvrtc.probe([library]);
    const sync = nvrtc.compileSync('ünicode', 'k.cu', ['-arch=sm_90a', '-DX=1']);
    expect(decode(sync.cubin)).toBe('-arch=sm_90a\n-DX=1\nünicode');
    expect(sync.log).toBe('k.cu(1): warning: fake\n');
    const many = await Promise.all(Array.from({ length: 16 }, (_, i) => nvrtc.compile(`s${i}`, `${i}.cu`, [`-D${i}`])));
    many.forEach(({ cubin, log }, i) => {
      expect(decode(cubin)).toBe(`-D${i}\ns${i}`);
      expect(log).toContain(`${i}.cu(1)`);
    });
  });

  it('fails with the first error in the message and the whole log beside it', async () => {
    nvrtc.probe([library]);
    for (const compile of [nvrtc.compileSync, nvrtc.compile]) {
      const error = await failure(() => compile('broken', 'k.cu', []));
      expect(error.code).toBe('COMPILE');
      expect(error.message).toBe('k.cu does not compile (NVRTC_ERROR_COMPILATION): k.cu(7): error: expected a ";"');
      expect(error.log).toBe('k.cu(1): warning: fake\nk.cu(7): error: expected a ";"\n1 error detected\n');
      const mapped = toFlashInferError(error, 'warmup');
      expect(mapped).toBeInstanceOf(CompileError);
      expect((mapped as CompileError).log).toBe(error.log);
    }
    const virtual = await failure(() => nvrtc.compileSync('x', 'k.cu', ['-arch=compute_90']));
    expect(virtual.message).toMatch(/no cubin; the options need a real architecture/);
  });

  it('survives a worker that is terminated with compilations under way', async () => {
    const worker = new Worker(
      `const { nvrtc } = require(${JSON.stringify(addonCandidates(packageRoot())[0])});
       nvrtc.probe([${JSON.stringify(library)}]);
       for (let i = 0; i < 200; i++) nvrtc.compile('s', 'k.cu', []);
       require('node:worker_threads').parentPort.postMessage(1);
       for (;;);`,
      { eval: true },
    );
    await new Promise((resolve) => worker.once('message', resolve));
    expect(await worker.terminate()).toBe(1);
  });
});

describe.runIf(real.ok)('with the NVRTC of this machine', () => {
  it('compiles a kernel to a cubin, and gives the log of one that does not', async () => {
    nvrtc.probe(process.env.CUDA_HOME ? [join(process.env.CUDA_HOME, 'lib64', 'libnvrtc.so')] : []);
    const good = 'extern "C" __global__ void store(int* p) { *p = 1; }';
    const { cubin } = await nvrtc.compile(good, 'store.cu', ['-arch=sm_90']);
    expect(Buffer.from(cubin.subarray(0, 4)).toString('latin1')).toBe('\x7fELF');
    const error = await failure(() => nvrtc.compile(good.replace('= 1', '= one'), 'store.cu', ['-arch=sm_90']));
    expect(error.message).toMatch(/store\.cu\(1\): error: identifier "one" is undefined/);
  });
});
