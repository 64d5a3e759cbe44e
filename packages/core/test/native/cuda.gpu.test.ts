// SPDX-License-Identifier: Apache-2.0
// csrc/cuda on a real device: FLASHINFER_TEST_DEVICE=cuda:0 vitest run test/native/cuda.gpu.test.ts
import { randomBytes } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import { beforeAll, describe, expect, it } from 'vitest';
import { addonCandidates, native } from '../../src/native/load.ts';
import { packageRoot } from '../../src/packageRoot.ts';

const testDevice = process.env.FLASHINFER_TEST_DEVICE ?? '';
const enabled = testDevice.startsWith('cuda');
if (!enabled) console.log(`skipped: FLASHINFER_TEST_DEVICE is '${testDevice}', not a cuda device`);

/** Waits `cycles`, then stores `value`; the struct is {u64 address; u32 value; u32 cycles}. */
const storePtx = `.version 7.0
.target sm_75
.address_size 64
.visible .entry store(.param .align 8 .b8 params[16]) {
  .reg .pred %p; .reg .b64 %address, %start, %now, %cycles; .reg .b32 %value, %c;
  ld.param.u64 %address, [params];
  ld.param.u32 %value, [params+8];
  ld.param.u32 %c, [params+12];
  cvt.u64.u32 %cycles, %c;
  cvta.to.global.u64 %address, %address;
  mov.u64 %start, %clock64;
again:
  mov.u64 %now, %clock64;
  sub.u64 %now, %now, %start;
  setp.lt.u64 %p, %now, %cycles;
  @%p bra again;
  st.global.u32 [%address], %value;
  ret;
}`;

/** Stores the number of blocks of its cluster. */
const clusterPtx = `.version 8.0
.target sm_90
.address_size 64
.visible .entry cluster(.param .align 8 .b8 params[16]) {
  .reg .b64 %address; .reg .b32 %size;
  ld.param.u64 %address, [params];
  cvta.to.global.u64 %address, %address;
  mov.u32 %size, %cluster_nctarank;
  st.global.u32 [%address], %size;
  ret;
}`;

/** ~1 ms at the clocks of current devices. */
const longCycles = 2_000_000;

describe.runIf(enabled)('a real device', () => {
  const { cuda, host } = native();
  const device = Number(testDevice.split(':')[1] ?? 0);
  let stream: number;

  beforeAll(() => {
    stream = cuda.initDevice(device).defaultStream;
  });

  function makeKernel(ptx: string, name: string, sharedBytes = 0) {
    const params = new ArrayBuffer(16);
    const view = new DataView(params);
    const module = cuda.moduleLoad(device, Buffer.from(ptx));
    const kernel = cuda.kernelCreate(device, module, name, params, sharedBytes);
    const launch = (
      address: number,
      value: number,
      { cycles = 0, on = stream, cluster = 0, pdl = false, grid = 1 } = {},
    ) => {
      view.setBigUint64(0, BigInt(address), true);
      view.setUint32(8, value, true);
      view.setUint32(12, cycles, true);
      cuda.launch(kernel, grid, 1, 1, 1, 0, on, cluster, pdl);
    };
    return { module, kernel, launch };
  }

  function readWords(ptr: number, count: number, on = stream): number[] {
    const bytes = new Uint8Array(4 * count);
    cuda.readSync(device, ptr, bytes, on);
    return [...new Uint32Array(bytes.buffer)];
  }

  it('has a driver and sensible properties', () => {
    const probe = cuda.probe();
    expect(probe).toMatchObject({ ok: true });
    const properties = cuda.deviceProperties(device);
    expect(properties.major).toBeGreaterThanOrEqual(7);
    expect(properties.warpSize).toBe(32);
    expect(properties.totalMemory).toBeGreaterThan(2 ** 30);
    expect(properties.uuid).toMatch(/^GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    console.log(`${properties.name}, driver ${probe.driverVersion}, ${probe.library}`);
  });

  it.each([1, 4097, 3 * 2 ** 20 + 5, 40 * 2 ** 20])('moves %i bytes through the device', async (bytes) => {
    const source = new Uint8Array(randomBytes(bytes));
    const expected = source.slice();
    const [a, b] = [cuda.memAlloc(device, bytes, stream), cuda.memAlloc(device, bytes, stream)];
    cuda.write(device, a, source, stream);
    source.fill(0);
    cuda.copyDtoD(b, a, bytes, stream);
    const sync = new Uint8Array(bytes);
    cuda.readSync(device, b, sync, stream);
    const async = new Uint8Array(bytes);
    const reading = cuda.read(device, b, async, stream);
    cuda.memset(b, 0, 1, bytes, stream);
    cuda.memFree(device, a, stream);
    cuda.memFree(device, b, stream);
    await reading;
    expect(Buffer.compare(sync, expected)).toBe(0);
    expect(Buffer.compare(async, expected)).toBe(0);
  });

  it('allocates from the pool at small cost, and gives freed memory back to it', () => {
    cuda.memFree(device, cuda.memAlloc(device, 64 << 20, stream), stream);
    cuda.streamSynchronize(stream);
    const before = cuda.memInfo(device);
    const start = performance.now();
    for (let i = 0; i < 1000; i++) cuda.memFree(device, cuda.memAlloc(device, 32 << 20, stream), stream);
    const microseconds = performance.now() - start;
    cuda.streamSynchronize(stream);
    expect(cuda.memInfo(device).poolUsed).toBe(before.poolUsed);
    expect(cuda.memInfo(device).poolReserved).toBe(before.poolReserved);
    console.log(`memAlloc + memFree: ${microseconds.toFixed(2)} us`);
    expect(microseconds).toBeLessThan(50);
  });

  it('reports an impossible allocation as out of memory, and stays usable', () => {
    const { total } = cuda.memInfo(device);
    expect(() => cuda.memAlloc(device, total * 2, stream)).toThrow(
      expect.objectContaining({ code: 'OOM', driverCode: 2 }),
    );
    cuda.memFree(device, cuda.memAlloc(device, 1000, stream), stream);
  });

  it('copies through pinned memory', () => {
    const pinned = cuda.pinnedAlloc(device, 256);
    const block = cuda.memAlloc(device, 256, stream);
    const source = new Uint8Array(randomBytes(256));
    host.write(pinned, source);
    cuda.copyHtoD(block, pinned, 256, stream);
    cuda.streamSynchronize(stream);
    host.fill(pinned, 0, 256);
    cuda.copyDtoH(pinned, block, 256, stream);
    cuda.streamSynchronize(stream);
    const back = new Uint8Array(256);
    host.read(pinned, back);
    expect(back).toEqual(source);
    cuda.pinnedFree(pinned);
    cuda.memFree(device, block, stream);
  });

  it('launches PTX, times it with events, and orders streams', async () => {
    const { launch, kernel } = makeKernel(storePtx, 'store', 64 << 10);
    const info = cuda.kernelInfo(kernel);
    expect(info.numRegs).toBeGreaterThan(0);
    if (info.paramBytes) expect(info.paramBytes).toEqual([16]);
    expect(cuda.kernelOccupancy(kernel, 128, 0)).toBeGreaterThan(0);
    const side = cuda.streamCreate(device, 0);
    const block = cuda.memAlloc(device, 8, stream);
    cuda.memset(block, 0, 4, 2, stream);
    const [start, end] = [true, false].map((interrupts) => cuda.eventCreate(device, true, interrupts)) as [
      number,
      number,
    ];
    cuda.eventRecord(start, stream);
    launch(block, 11, { cycles: longCycles });
    cuda.eventRecord(end, stream);
    expect(cuda.eventQuery(end)).toBe(false);
    cuda.streamWaitEvent(side, end);
    launch(block, 12, { on: side });
    launch(block + 4, 13, { on: side });
    await cuda.streamSynchronizeAsync(device, side);
    expect(readWords(block, 2)).toEqual([12, 13]);
    expect(cuda.eventElapsedMs(start, end)).toBeGreaterThan(0.2);
    await cuda.eventSynchronizeAsync(device, end);
    await cuda.deviceSynchronizeAsync(device);
    cuda.eventDestroy(start);
    cuda.eventDestroy(end);
    cuda.streamDestroy(side);
    cuda.memFree(device, block, stream);
  });

  it('captures and replays a graph, with memory of its own', () => {
    const { launch } = makeKernel(storePtx, 'store');
    const block = cuda.memAlloc(device, 8, stream);
    const unrelated = cuda.memAlloc(device, 8, stream);
    cuda.memset(block, 0, 4, 2, stream);
    const capturing = cuda.streamCreate(device, 0);
    cuda.streamSynchronize(stream);
    cuda.captureBegin(capturing);
    const inside = cuda.memAlloc(device, 4, capturing);
    launch(inside, 21, { on: capturing });
    cuda.copyDtoD(block, inside, 4, capturing);
    launch(block + 4, 22, { on: capturing });
    cuda.memFree(device, inside, capturing);
    cuda.memFree(device, unrelated, capturing);
    const late = makeKernel(storePtx, 'store'); // loading a module must not invalidate the capture
    const graph = cuda.captureEnd(capturing);
    cuda.moduleUnload(device, late.module);
    expect(cuda.graphNodeCount(graph)).toBe(5);
    expect(readWords(block, 2)).toEqual([0, 0]);
    const exec = cuda.graphInstantiate(device, graph);
    for (let round = 0; round < 3; round++) {
      cuda.memset(block, 0, 4, 2, capturing);
      cuda.graphLaunch(exec, capturing);
      expect(readWords(block, 2, capturing)).toEqual([21, 22]);
    }
    cuda.graphExecDestroy(exec);
    cuda.graphDestroy(graph);
    cuda.streamDestroy(capturing);
    cuda.memFree(device, block, stream);
  });

  it('relaunches a graph that keeps memory it allocated', () => {
    const { launch } = makeKernel(storePtx, 'store');
    const capturing = cuda.streamCreate(device, 0);
    cuda.captureBegin(capturing);
    const output = cuda.memAlloc(device, 4, capturing);
    launch(output, 31, { on: capturing });
    const graph = cuda.captureEnd(capturing);
    const exec = cuda.graphInstantiate(device, graph);
    for (let round = 0; round < 2; round++) {
      cuda.graphLaunch(exec, capturing);
      expect(readWords(output, 1, capturing)).toEqual([31]);
    }
    cuda.memFree(device, output, capturing);
    cuda.graphExecDestroy(exec);
    cuda.graphDestroy(graph);
    cuda.streamDestroy(capturing);
  });

  it('applies cluster and programmatic launch attributes', ({ skip }) => {
    if (cuda.deviceProperties(device).major < 9) skip('needs compute capability 9.0');
    const { launch } = makeKernel(clusterPtx, 'cluster');
    const block = cuda.memAlloc(device, 4, stream);
    for (const cluster of [1, 2, 4]) {
      launch(block, 0, { cluster, grid: 8, pdl: cluster === 2 });
      expect(readWords(block, 1)).toEqual([cluster]);
    }
    expect(() => launch(block, 0, { cluster: 3, grid: 8 })).toThrow(/cuLaunchKernelEx failed.*cluster 3/);
    cuda.memFree(device, block, stream);
  });

  it('encodes a tensor map', () => {
    const block = cuda.memAlloc(device, 1 << 20, stream);
    const args = {
      dtype: 9,
      rank: 2,
      address: block,
      dims: [64, 1024],
      strides: [128],
      box: [64, 64],
      elementStrides: [1, 1],
      interleave: 0,
      swizzle: 3,
      l2Promotion: 2,
      oobFill: 0,
    };
    const map = cuda.tensorMapEncodeTiled(args);
    expect(map.byteLength).toBe(128);
    expect(map.some((byte) => byte !== 0)).toBe(true);
    expect(() => cuda.tensorMapEncodeTiled({ ...args, box: [512, 1] })).toThrow(/cuTensorMapEncodeTiled failed/);
    cuda.memFree(device, block, stream);
  });

  it('recognises images that are no module', () => {
    expect(() => cuda.moduleLoad(device, Buffer.from('junk'))).toThrow(
      expect.objectContaining({
        code: 'CUDA',
        driverCode: expect.toBeOneOf([200, 218]),
      }),
    );
    expect(() => cuda.moduleLoad(device, Buffer.from(storePtx.replace('sub.u64', 'sub.what')))).toThrow(
      expect.objectContaining({
        driverCode: 218,
        message: expect.stringMatching(/ptxas|sub\.what|line/),
      }),
    );
  });

  it('serves two workers with two streams each, and a terminated one', async () => {
    const work = (end: string) =>
      new Promise<unknown>((resolve, reject) => {
        const source = `
          const { cuda } = require(${JSON.stringify(addonCandidates(packageRoot())[0])});
          const { parentPort } = require('node:worker_threads');
          const streams = [cuda.initDevice(${device}).defaultStream, cuda.streamCreate(${device}, 0)];
          const module = cuda.moduleLoad(${device}, Buffer.from(${JSON.stringify(storePtx)}));
          const params = new ArrayBuffer(16);
          const view = new DataView(params);
          const kernel = cuda.kernelCreate(${device}, module, 'store', params, 0);
          const block = cuda.memAlloc(${device}, 8000, streams[0]);
          cuda.streamSynchronize(streams[0]);
          for (let i = 0; i < 2000; i++) {
            view.setBigUint64(0, BigInt(block + 4 * i), true);
            view.setUint32(8, i, true);
            cuda.launch(kernel, 1, 1, 1, 1, 0, streams[i % 2], 0, false);
          }
          cuda.streamSynchronize(streams[1]);
          const out = new Uint8Array(8000);
          cuda.read(${device}, block, out, streams[0]).then(() => {
            parentPort.postMessage(new Uint32Array(out.buffer).every((value, i) => value === i));
            ${end}
          });`;
        const worker = new Worker(source, { eval: true });
        worker.once('error', reject);
        worker.once('message', async (value) => {
          if (end) await worker.terminate();
          resolve(value);
        });
      });
    expect(await Promise.all([work(''), work('')])).toEqual([true, true]);
    expect(await work('for (;;);')).toBe(true);
    expect(await work('')).toBe(true);
  });

  it('launches at the cost of the driver', () => {
    const { launch, kernel } = makeKernel(storePtx, 'store');
    const block = cuda.memAlloc(device, 4, stream);
    launch(block, 1);
    const perCall = (run: () => void): number => {
      let best = Infinity;
      for (let round = 0; round < 20; round++) {
        cuda.streamSynchronize(stream);
        const start = performance.now();
        for (let i = 0; i < 500; i++) run();
        best = Math.min(best, ((performance.now() - start) * 1e3) / 500);
      }
      return best;
    };
    const launchUs = perCall(() => cuda.launch(kernel, 1, 1, 1, 1, 0, stream, 0, false));
    // What the addon adds: Node-API, handle and stream checks, and the context check, without a driver launch.
    const callUs = perCall(() => cuda.streamIsCapturing(stream));
    console.log(`launch ${launchUs.toFixed(2)} us; a call with the same checks and no launch ${callUs.toFixed(2)} us`);
    expect(callUs).toBeLessThan(0.5);
    expect(launchUs).toBeLessThan(20);
    cuda.memFree(device, block, stream);
  });
});
