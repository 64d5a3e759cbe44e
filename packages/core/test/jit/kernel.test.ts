// SPDX-License-Identifier: Apache-2.0
// Kernels against a recording driver: what is loaded, launched and rebuilt.
import { describe, expect, it, vi } from 'vitest';
import { runSync } from '../../src/jit/bothWays.ts';
import { instantiate } from '../../src/jit/kernel.ts';
import { resolveModule } from '../../src/jit/resolve.ts';
import type { NativeCuda } from '../../src/native/binding.ts';
import { countingCompiler, requireNvcc, scaleSpec, testJit } from './fixture.ts';

const nvcc = requireNvcc();
const spec = scaleSpec(3);
const cudaError = (driverCode: number) =>
  Object.assign(new Error('cuModuleLoadDataEx failed'), { code: 'CUDA', driverCode });

/** A driver that accepts every module; `paramBytes` is what it says of each kernel it creates, in order. */
function recordingDriver(paramBytes: (number[] | undefined)[] = []) {
  const launches: { params: Uint8Array; args: unknown[] }[] = [];
  const buffers: ArrayBuffer[] = [];
  const cuda = {
    moduleLoad: vi.fn((_device: number, _image: Uint8Array) => 1),
    moduleUnload: vi.fn(),
    kernelCreate: vi.fn((_device: number, _module: number, _name: string, params: ArrayBuffer, _shared: number) =>
      buffers.push(params),
    ),
    kernelDestroy: vi.fn(),
    kernelInfo: vi.fn(() => ({ paramBytes: paramBytes.length > 0 ? paramBytes.shift() : [16] })),
    kernelOccupancy: vi.fn((_kernel: number, threads: number, shared: number) => threads + shared),
    launch: vi.fn((kernel: number, ...args: unknown[]) => {
      launches.push({ params: new Uint8Array(buffers[kernel - 1] as ArrayBuffer).slice(), args });
    }),
  };
  return { cuda: cuda as unknown as NativeCuda & typeof cuda, launches };
}

describe.skipIf(!nvcc)('Kernel', () => {
  const compiler = countingCompiler(nvcc!);
  const jit = testJit(compiler);
  const resolve = () => runSync(resolveModule(jit, spec, 'sm_90a', { blocking: true }));
  const load = (cuda: NativeCuda) => instantiate(cuda, jit, spec, 0, resolve());

  it('launches with the packed struct, the block size of the spec or the given one, and the given grid', () => {
    const { cuda, launches } = recordingDriver();
    const kernel = load(cuda);
    kernel.launch([5, 6, 7], { out: 2 ** 40 + 8, count: 9, factor: 0.25 }, { stream: 77, cluster: 2, pdl: true });
    expect(launches[0]?.args).toEqual([5, 6, 7, 128, 0, 77, 2, true]);
    kernel.launch([1, 1, 1], { out: 0, count: 0, factor: 0 }, { stream: 77, threads: 96 });
    expect(launches[1]?.args).toEqual([1, 1, 1, 96, 0, 77, 0, false]);
    const view = new DataView(launches[0]!.params.buffer);
    expect([view.getBigUint64(0, true), view.getUint32(8, true), view.getFloat32(12, true)]).toEqual([
      2n ** 40n + 8n,
      9,
      0.25,
    ]);
    expect(cuda.kernelCreate.mock.calls.map((call) => [call[2], call[4]])).toEqual([['scale_by_3', 0]]);
  });

  it('raises the shared memory limit when a launch needs more, once', () => {
    const { cuda, launches } = recordingDriver();
    const kernel = load(cuda);
    const args = { out: 0, count: 0, factor: 0 };
    for (const sharedBytes of [1024, 90_000, 90_000, 2048]) kernel.launch([1, 1, 1], args, { stream: 0, sharedBytes });
    expect(cuda.kernelCreate.mock.calls.map((call) => call[4])).toEqual([0, 1024, 90_000]);
    expect(cuda.kernelDestroy).toHaveBeenCalledTimes(2);
    expect(launches.map((launch) => launch.args[4])).toEqual([1024, 90_000, 90_000, 2048]);
    expect(kernel.occupancy(100)).toBe(228);
  });

  it('rebuilds a cached module whose parameters are not the spec’s', () => {
    resolve();
    const before = compiler.compilations;
    const { cuda } = recordingDriver([[24], [16]]);
    expect(load(cuda).info.paramBytes).toEqual([16]);
    expect(compiler.compilations).toBe(before + 1);
    expect(cuda.moduleUnload).toHaveBeenCalledTimes(1);
    expect(resolve().origin).toBe('cache');
  });

  it.each([200, 209, 500])('rebuilds a cached module that the driver refuses with CUresult %i', (driverCode) => {
    resolve();
    const before = compiler.compilations;
    const { cuda } = recordingDriver();
    cuda.moduleLoad.mockImplementationOnce(() => {
      throw cudaError(driverCode);
    });
    load(cuda);
    expect(compiler.compilations).toBe(before + 1);
  });

  it('does not rebuild for errors that say nothing of the module', () => {
    resolve();
    const before = compiler.compilations;
    const { cuda } = recordingDriver();
    cuda.moduleLoad.mockImplementation(() => {
      throw Object.assign(new Error('no memory'), { code: 'OOM', driverCode: 2 });
    });
    expect(() => load(cuda)).toThrow(
      expect.objectContaining({
        code: 'ERR_FLASHINFER_OUT_OF_MEMORY',
        message: expect.stringContaining('getKernel: scale_by_3'),
      }),
    );
    expect(compiler.compilations).toBe(before);
  });

  it('ends after one rebuild', () => {
    const { cuda } = recordingDriver([[24], [24]]);
    expect(() => load(cuda)).toThrow(/takes parameters of 24 bytes; expected one of 16/);
  });
});
