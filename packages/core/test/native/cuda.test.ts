// SPDX-License-Identifier: Apache-2.0
// csrc/cuda against the fake driver in fakeCuda/: what it calls, with which bytes, in which order, and what it gives back.
import { afterAll, describe, expect, it } from 'vitest';
import { CudaError, UnsupportedError } from '../../src/errors.ts';
import { addonCandidates, native, toFlashInferError } from '../../src/native/load.ts';
import { packageRoot } from '../../src/packageRoot.ts';
import { FakeCuda } from './fakeCuda/fakeCuda.ts';

const fake = new FakeCuda();
afterAll(() => fake.dispose());

/** Opens a device, and gives random bytes and a kernel on request. */
const prelude = `
  const { randomBytes } = require('node:crypto');
  const stream = cuda.initDevice(0).defaultStream;
  const bytes = (n) => new Uint8Array(randomBytes(n));
  const readBack = (ptr, n, on = stream) => { const out = new Uint8Array(n); cuda.readSync(0, ptr, out, on); return out; };
  const same = (a, b) => Buffer.compare(a, b) === 0;
  const makeKernel = (shared = 0) => {
    const params = new ArrayBuffer(16);
    const module = cuda.moduleLoad(0, Buffer.from('.version 8.0'));
    const kernel = cuda.kernelCreate(0, module, 'store', params, shared);
    const set = (address, value) => {
      const view = new DataView(params);
      view.setBigUint64(0, BigInt(address), true);
      view.setUint32(8, value, true);
      view.setUint32(12, 0xabcd, true);
    };
    return { params, module, kernel, set };
  };
`;

describe.runIf(process.platform === 'linux' && !native().cuda.probe().ok)('without a driver', () => {
  it('says where it was looked for, and throws from the first call that needs it', () => {
    const probe = native().cuda.probe();
    expect(probe.ok).toBe(false);
    expect(probe.searched[0]).toContain('libcuda.so.1');
    expect(probe.error).toMatch(/driver/);
    try {
      native().cuda.initDevice(0);
      expect.unreachable();
    } catch (error) {
      const mapped = toFlashInferError(error, 'empty');
      expect(mapped).toBeInstanceOf(CudaError);
      expect(mapped.code).toBe('ERR_FLASHINFER_CUDA_UNAVAILABLE');
      expect(mapped.message).toContain('libcuda.so.1');
    }
  });
});

describe.runIf(process.platform === 'linux')('against the fake driver', () => {
  it('probes: library, version, devices; and other drivers with a reason', () => {
    const full = fake.run('return cuda.probe();').value;
    expect(full).toMatchObject({
      ok: true,
      driverVersion: 13000,
      deviceCount: 2,
    });
    expect(full.library).toMatch(/libcuda\.so\.1$/);
    expect(full.searched[0]).toMatch(/libcuda\.so\.1: opened$/);
    const noDevice = fake.run(
      'return { probe: cuda.probe(), init: check(() => cuda.initDevice(0)) };',
      'no_device',
    ).value;
    expect(noDevice.probe).toMatchObject({ ok: false, driverVersion: 13000 });
    expect(noDevice.probe.error).toContain('CUDA_ERROR_NO_DEVICE (100)');
    expect(noDevice.init.code).toBe('CUDA_UNAVAILABLE');
    const stub = fake.run('return cuda.probe();', 'stub').value;
    expect(stub.ok).toBe(false);
    expect(stub.error).toMatch(/lacks cuGetErrorName; update/);
  });

  it('reads device properties', () => {
    const { value } = fake.run(
      'return [cuda.deviceProperties(0), cuda.deviceProperties(1), check(() => cuda.deviceProperties(7))];',
    );
    expect(value[0]).toMatchObject({
      name: 'Fake 0',
      major: 9,
      minor: 0,
      multiProcessorCount: 1600,
      totalMemory: 6 * 2 ** 32,
      l2CacheBytes: 3800,
      sharedMemPerBlock: 800,
      sharedMemPerBlockOptin: 9700,
      sharedMemPerMultiprocessor: 8100,
      regsPerMultiprocessor: 8200,
      maxThreadsPerMultiprocessor: 3900,
      maxThreadsPerBlock: 100,
      warpSize: 1000,
      clockRateKHz: 1300,
      memoryClockRateKHz: 3600,
      memoryBusWidthBits: 3700,
      memoryPoolsSupported: true,
      pciBusId: '0000:00:00.0',
      uuid: 'GPU-00102030-4050-6070-8090-a0b0c0d0e0f0',
      integrated: true,
      computeMode: 2000,
    });
    expect(value[1]).toMatchObject({
      name: 'Fake 1',
      memoryPoolsSupported: false,
    });
    expect(value[2]).toMatchObject({ code: 'CUDA', driverCode: 101 });
    expect(value[2].message).toContain('cuDeviceGet failed on cuda:7: CUDA_ERROR_INVALID_DEVICE (101)');
  });

  it('raises the release threshold of the pool, makes a non-blocking stream, once a device', () => {
    const { value, calls } = fake.run('return [cuda.initDevice(0), cuda.initDevice(0), cuda.initDevice(1)];');
    expect(value[0]).toEqual(value[1]);
    expect(value[2].defaultStream).not.toBe(value[0].defaultStream);
    expect(calls).toEqual([
      'cuMemPoolSetAttribute 4 ffffffffffffffff',
      'cuStreamCreate flags=1 priority=0',
      'cuStreamCreate flags=1 priority=0',
      ...['cuStreamDestroy', 'cuStreamDestroy'],
      expect.stringMatching(/^release device=0 retained=0 blocks=0/),
      expect.stringMatching(/^release device=1 retained=0 blocks=0 pinned=0 events=0 streams=0/),
    ]);
  });

  it('moves bytes in stream order; the source of write may change at once', () => {
    const { value } = fake.run(`${prelude}
      const results = [];
      for (const n of [1, 100, (1 << 20) + 3, 20 << 20]) {
        const a = cuda.memAlloc(0, n, stream);
        const b = cuda.memAlloc(0, n, stream);
        const source = bytes(n);
        const expected = source.slice();
        cuda.write(0, a, source, stream);
        source.fill(0);
        cuda.copyDtoD(b, a, n, stream);
        results.push(same(readBack(b, n), expected));
        cuda.memFree(0, a, stream);
        cuda.memFree(0, b, stream);
      }
      return results;`);
    expect(value).toEqual([true, true, true, true]);
  });

  it('writes two arrays behind each other, small ones with one copy', () => {
    const { value, calls } = fake.run(`${prelude}
      const results = [];
      for (const [m, n] of [[3, 5], [0, 7], [8, 0], [0, 0], [1 << 20, 1], [(1 << 20) - 1, 1]]) {
        const block = cuda.memAlloc(0, m + n, stream);
        const [first, second] = [bytes(m), bytes(n)];
        const expected = Buffer.concat([first, second]);
        cuda.writeBoth(0, block, first, second, stream);
        first.fill(0);
        second.fill(0);
        results.push(same(readBack(block, m + n), expected));
      }
      return results;`);
    expect(value).toEqual([true, true, true, true, true, true]);
    expect(calls.filter((call) => call.startsWith('cuMemcpyHtoDAsync'))).toEqual(
      [8, 7, 8, 1 << 20, 1, 1 << 20].map((size) => `cuMemcpyHtoDAsync ${size}`),
    );
  });

  it('never reuses staging memory before its copy ran, for any mix of sizes and streams', () => {
    const { value } = fake.run(`${prelude}
      const other = cuda.streamCreate(0, 0);
      const size = 24 << 20;
      const block = cuda.memAlloc(0, size, stream);
      cuda.memset(block, 0xee, 1, size, stream);
      cuda.streamSynchronize(stream);
      const expected = new Uint8Array(size).fill(0xee);
      for (let at = 0; ;) {
        const n = 1 + Math.floor(Math.random() ** 4 * (3 << 20));
        if (at + n > size) break;
        const piece = bytes(n);
        cuda.write(0, block + at, piece, Math.random() < 0.5 ? stream : other);
        expected.set(piece, at);
        at += n;
      }
      cuda.streamSynchronize(other);
      return same(readBack(block, size), expected);`);
    expect(value).toBe(true);
  });

  it('takes staging memory back as soon as its copy ran', () => {
    const { value, calls } = fake.run(`${prelude}
      const block = cuda.memAlloc(0, 4096, stream);
      const results = [];
      for (let round = 0; round < 20; round++) {
        const piece = bytes(4096);
        cuda.write(0, block, piece, stream);
        results.push(same(readBack(block, 4096), piece));
      }
      return results;`);
    expect(value).toEqual(Array(20).fill(true));
    expect(calls.filter((call) => call.startsWith('cuEventCreate'))).toHaveLength(1);
  });

  it('reads asynchronously what the stream had written by then, and not what came after', () => {
    const { value, calls } = fake.run(`${prelude}
      const n = 300_001;
      const block = cuda.memAlloc(0, n, stream);
      const reads = [];
      for (let round = 0; round < 8; round++) {
        const source = bytes(n);
        cuda.write(0, block, source, stream);
        const into = new Uint8Array(n).fill(0xab);
        reads.push(cuda.read(0, block, into, stream).then(() => same(into, source)));
      }
      cuda.memFree(0, block, stream);
      const first = await Promise.all(reads);
      const empty = await cuda.read(0, block, new Uint8Array(0), stream);
      return { first, undefined: empty === undefined };`);
    expect(value).toEqual({ first: Array(8).fill(true), undefined: true });
    expect(calls.filter((call) => call.startsWith('cuMemHostAlloc 524288')).length).toBeLessThanOrEqual(8);
    expect(calls.at(-1)).toMatch(/blocks=0 pinned=0 events=0 streams=0 .* sticky=0/);
  });

  it('copies to and from pinned memory, and fills with 1, 2 and 4 byte values', () => {
    const { value } = fake.run(`${prelude}
      const pinned = cuda.pinnedAlloc(0, 64);
      const block = cuda.memAlloc(0, 64, stream);
      const source = bytes(64);
      host.write(pinned, source);
      cuda.copyHtoD(block, pinned, 64, stream);
      const first = same(readBack(block, 64), source);
      cuda.memset(block, 0x7f, 1, 3, stream);
      cuda.memset(block + 4, 0xbeef, 2, 3, stream);
      cuda.memset(block + 12, 0xfedcba98, 4, 2, stream);
      cuda.copyDtoH(pinned, block, 24, stream);
      cuda.streamSynchronize(stream);
      const filled = new Uint8Array(24);
      host.read(pinned, filled);
      cuda.pinnedFree(pinned);
      return { first, filled: Buffer.from(filled).toString('hex'), keep: Buffer.from(source).toString('hex'),
        twice: check(() => cuda.pinnedFree(pinned)) };`);
    const keep = (from: number, to: number) => value.keep.slice(2 * from, 2 * to);
    expect(value.first).toBe(true);
    expect(value.filled).toBe(`7f7f7f${keep(3, 4)}efbeefbeefbe${keep(10, 12)}98badcfe98badcfe${keep(20, 24)}`);
    expect(value.twice.code).toBe('INVALID_POINTER');
  });

  it('retries after returning cached memory, then reports out of memory with the numbers', () => {
    const { value, calls } = fake.run(`${prelude}
      const most = 48 << 20;
      const first = cuda.memAlloc(0, most, stream);
      cuda.memFree(0, first, stream);  // in stream order: not free yet
      const second = cuda.memAlloc(0, most, stream);
      const error = check(() => cuda.memAlloc(0, most, stream));
      const info = cuda.memInfo(0);
      cuda.memFree(0, second, stream);
      return { error, info, unknown: check(() => cuda.memFree(0, second, stream)) };`);
    expect(calls).toContain('cuMemPoolTrimTo 0');
    expect(value.error).toMatchObject({ code: 'OOM', driverCode: 2 });
    expect(value.error.message).toContain(`${48 << 20} bytes asked, ${16 << 20} of ${64 << 20} bytes are free`);
    expect(value.info).toEqual({
      free: 16 << 20,
      total: 64 << 20,
      poolUsed: 48 << 20,
      poolReserved: 64 << 20,
    });
    expect(value.unknown.code).toBe('INVALID_POINTER');
    expect(toFlashInferError(Object.assign(new Error('x'), value.error), 'empty')).toMatchObject({
      code: 'ERR_FLASHINFER_OUT_OF_MEMORY',
      driverCode: 2,
    });
  });

  it('does not wait for the device, which would invalidate a capture, when memory runs out during one', () => {
    const { value } = fake.run(`${prelude}
      const captured = cuda.streamCreate(0, 0);
      cuda.captureBegin(captured);
      const error = check(() => cuda.memAlloc(0, 80 << 20, stream));
      cuda.graphDestroy(cuda.captureEnd(captured));
      return error;`);
    expect(value).toMatchObject({ code: 'OOM', driverCode: 2 });
  });

  it('works on a device without memory pools', () => {
    const { value, calls } = fake.run(`
      const stream = cuda.initDevice(1).defaultStream;
      const block = cuda.memAlloc(1, 1000, stream);
      const source = new Uint8Array(1000).map((_, i) => i * 7);
      cuda.write(1, block, source, stream);
      const back = new Uint8Array(1000);
      cuda.readSync(1, block, back, stream);
      cuda.memFree(1, block, stream);
      return { same: Buffer.compare(back, source) === 0, info: cuda.memInfo(1) };`);
    expect(value.same).toBe(true);
    expect(value.info.poolUsed).toBe(0);
    expect(calls).toContain('cuMemFree');
    expect(calls.some((call) => call.startsWith('cuMemAllocAsync'))).toBe(false);
  });

  it('orders streams by events, and queries, times and awaits them', () => {
    const { value, calls } = fake.run(`${prelude}
      const side = cuda.streamCreate(0, -3);
      const block = cuda.memAlloc(0, 4, stream);
      const ready = cuda.eventCreate(0, false, true);
      cuda.memset(block, 0x11, 1, 4, side);
      cuda.eventRecord(ready, side);
      const before = cuda.eventQuery(ready);
      cuda.streamWaitEvent(stream, ready);
      const ordered = readBack(block, 4)[0];
      const [start, end] = [cuda.eventCreate(0, true, true), cuda.eventCreate(0, true, false)];
      cuda.eventRecord(start, stream);
      cuda.memset(block, 0, 1, 4, stream);
      cuda.eventRecord(end, stream);
      const early = check(() => cuda.eventElapsedMs(start, end));
      const waits = [cuda.eventSynchronizeAsync(0, end), cuda.streamSynchronizeAsync(0, side), cuda.deviceSynchronizeAsync(0)];
      cuda.eventDestroy(end);  // the wait holds on to it
      cuda.streamDestroy(side);
      await Promise.all(waits);
      return { before, after: cuda.eventQuery(ready), ordered, early, capturing: cuda.streamIsCapturing(stream),
        gone: [check(() => cuda.eventQuery(end)), check(() => cuda.streamSynchronize(side)),
          check(() => cuda.streamDestroy(stream)), check(() => cuda.streamSynchronize(0))] };`);
    expect(value).toMatchObject({
      before: false,
      after: true,
      ordered: 0x11,
      capturing: false,
    });
    expect(value.early).toMatchObject({ code: 'CUDA', driverCode: 600 });
    expect(value.gone.map((error: { code: string }) => error.code)).toEqual(Array(4).fill('INVALID_POINTER'));
    expect(value.gone[0].message).toMatch(/event \d+ is not a live event/);
    expect(calls).toContain('cuStreamCreate flags=1 priority=-3');
    // Blocking sync is 1, no timing 2.
    for (const flags of [3, 1, 0]) expect(calls).toContain(`cuEventCreate flags=${flags}`);
    expect(calls.at(-1)).toMatch(/events=0 streams=0/);
  });

  it('frees a block whose stream is gone after that stream finished with it', () => {
    const { value, calls } = fake.run(`${prelude}
      const side = cuda.streamCreate(0, 0);
      const block = cuda.memAlloc(0, 1 << 20, side);
      cuda.memset(block, 1, 1, 1 << 20, side);
      cuda.streamDestroy(side);
      cuda.memFree(0, block, side);
      cuda.streamSynchronize(stream);
      cuda.deviceSynchronize(0);
      return cuda.memInfo(0).poolUsed;`);
    expect(value).toBe(0);
    expect(calls.at(-1)).toMatch(/sticky=0/);
  });

  it('launches with the struct of that moment, dimensions, shared memory and attributes', () => {
    const { value, calls } = fake.run(`${prelude}
      const { kernel, set } = makeKernel(100_000);
      const block = cuda.memAlloc(0, 64, stream);
      const launch = (i, ...rest) => { set(block + 4 * i, 1000 + i); cuda.launch(kernel, ...rest); };
      launch(0, 1, 2, 3, 128, 0, stream, 0, false);
      launch(1, 4, 1, 1, 256, 65536, stream, 2, false);
      launch(2, 4, 1, 1, 32, 8, stream, 0, true);
      launch(3, 8, 1, 1, 32, 8, stream, 4, true);
      const error = check(() => launch(4, 7, 6, 5, 4096, 9, stream, 0, false));
      return { values: [...new Uint32Array(readBack(block, 16).buffer)], error,
        info: cuda.kernelInfo(kernel), occupancy: cuda.kernelOccupancy(kernel, 128, 77) };`);
    expect(value.values).toEqual([1000, 1001, 1002, 1003]);
    expect(calls.filter((call) => call.startsWith('cuLaunchKernelEx'))).toEqual([
      'cuLaunchKernelEx grid=1,2,3 block=128,1,1 shared=0 value=1000 pad=abcd',
      'cuLaunchKernelEx grid=4,1,1 block=256,1,1 shared=65536 value=1001 pad=abcd cluster=2,1,1',
      'cuLaunchKernelEx grid=4,1,1 block=32,1,1 shared=8 value=1002 pad=abcd attribute6=1',
      'cuLaunchKernelEx grid=8,1,1 block=32,1,1 shared=8 value=1003 pad=abcd cluster=4,1,1 attribute6=1',
    ]);
    expect(calls.filter((call) => call.startsWith('cuFunc'))).toEqual([
      'cuFuncLoad',
      'cuFuncSetAttribute 8 100000',
      'cuFuncSetAttribute 9 100',
    ]);
    expect(value.error.message).toContain('store with grid (7, 6, 5), 4096 threads, 9 bytes');
    expect(value.error).toMatchObject({ code: 'CUDA', driverCode: 1 });
    expect(value.info).toEqual({
      numRegs: 14,
      localBytes: 13,
      staticSharedBytes: 11,
      maxThreadsPerBlock: 10,
      binaryVersion: 16,
      paramBytes: [16],
    });
    expect(value.occupancy).toBe(128_077);
  });

  it('says how many clusters run at once, and allows large ones', () => {
    const { value, calls } = fake.run(`${prelude}
      const { kernel } = makeKernel();
      return [8, 16, 32].map((cluster) => cuda.kernelClusters(kernel, 256, cluster));`);
    expect(value).toEqual([7, 7, 0]);
    expect(calls.filter((call) => /^(cuFuncSetAttribute|cuOccupancy)/.test(call))).toEqual([
      'cuOccupancyMaxActiveClusters grid=8 block=256 cluster=8',
      'cuFuncSetAttribute 14 1',
      'cuOccupancyMaxActiveClusters grid=16 block=256 cluster=16',
      'cuFuncSetAttribute 14 1',
      'cuOccupancyMaxActiveClusters grid=32 block=256 cluster=32',
    ]);
  });

  it('keeps the struct alive for as long as the kernel', () => {
    const { value } = fake.run(`${prelude}
      let kernel, block = cuda.memAlloc(0, 4, stream);
      (() => { const made = makeKernel(); made.set(block, 77); kernel = made.kernel; })();
      require('node:v8').setFlagsFromString('--expose-gc');
      const gc = require('node:vm').runInNewContext('gc');
      for (let i = 0; i < 5; i++) { gc(); new ArrayBuffer(16); await new Promise(setImmediate); }
      cuda.launch(kernel, 1, 1, 1, 32, 0, stream, 0, false);
      return new Uint32Array(readBack(block, 4).buffer)[0];`);
    expect(value).toBe(77);
  });

  it('refuses kernels that are gone, too small a struct, a stream of another device, and unknown names', () => {
    const { value } = fake.run(`${prelude}
      const { kernel, module } = makeKernel();
      const launch = (handle, on) => check(() => cuda.launch(handle, 1, 1, 1, 32, 0, on, 0, false));
      const small = check(() => cuda.kernelCreate(0, module, 'store', new ArrayBuffer(12), 0));
      const missing = check(() => cuda.kernelCreate(0, module, 'nope', new ArrayBuffer(16), 0));
      const wrongDevice = launch(kernel, cuda.initDevice(1).defaultStream);
      const second = cuda.kernelCreate(0, module, 'store', new ArrayBuffer(16), 0);
      cuda.kernelDestroy(second);
      const destroyed = launch(second, stream);
      cuda.moduleUnload(0, module);
      return { small, missing, wrongDevice, destroyed, unloaded: launch(kernel, stream), never: launch(99, stream),
        zero: launch(0, stream), twice: check(() => cuda.moduleUnload(0, module)) };`);
    expect(value.small.message).toMatch(/takes 16 bytes of parameters, the struct has 12/);
    expect(value.missing).toMatchObject({ code: 'CUDA', driverCode: 500 });
    expect(value.wrongDevice.message).toMatch(/loaded on cuda:0, the stream is of cuda:1/);
    for (const gone of ['destroyed', 'unloaded', 'never', 'zero', 'twice']) {
      expect(value[gone].code, gone).toBe('INVALID_POINTER');
    }
  });

  it('reports images for another GPU and broken images by driverCode, with the log', () => {
    const { value } = fake.run(`${prelude}
      return [check(() => cuda.moduleLoad(0, Buffer.from('for another GPU'))), check(() => cuda.moduleLoad(0, Buffer.from('junk')))];`);
    expect(value[0]).toMatchObject({ code: 'CUDA', driverCode: 209 });
    expect(value[0].message).toContain('CUDA_ERROR_NO_BINARY_FOR_GPU');
    expect(value[1]).toMatchObject({ code: 'CUDA', driverCode: 200 });
    expect(value[1].message).toContain('ptxas: line 1 is not PTX');
  });

  it('captures in relaxed mode and replays with the struct of the capture', () => {
    const { value, calls } = fake.run(`${prelude}
      const { kernel, set } = makeKernel();
      const block = cuda.memAlloc(0, 16, stream);
      const early = cuda.memAlloc(0, 16, stream);
      cuda.memset(block, 0, 1, 16, stream);
      cuda.captureBegin(stream);
      const capturing = cuda.streamIsCapturing(stream);
      set(block + 4, 42);
      cuda.launch(kernel, 1, 1, 1, 32, 0, stream, 0, false);
      const inside = cuda.memAlloc(0, 16, stream);
      cuda.memFree(0, inside, stream);
      cuda.memFree(0, early, stream);  // not of this graph: freed when the capture ends
      const refused = [check(() => cuda.write(0, block, bytes(4), stream)), check(() => cuda.readSync(0, block, bytes(4), stream)),
        check(() => cuda.read(0, block, bytes(4), stream)), check(() => cuda.streamSynchronizeAsync(0, stream))];
      const graph = cuda.captureEnd(stream);
      const nodes = cuda.graphNodeCount(graph);
      set(block + 8, 43);  // must not reach the graph
      const before = [...new Uint32Array(readBack(block, 16).buffer)];
      const used = cuda.memInfo(0).poolUsed;
      const exec = cuda.graphInstantiate(0, graph);
      cuda.graphDestroy(graph);
      cuda.graphLaunch(exec, stream);
      const after = [...new Uint32Array(readBack(block, 16).buffer)];
      cuda.graphExecDestroy(exec);
      return { capturing, refused, nodes, before, after, used,
        gone: [check(() => cuda.graphLaunch(exec, stream)), check(() => cuda.graphNodeCount(graph)), check(() => cuda.captureEnd(stream))] };`);
    expect(value.capturing).toBe(true);
    expect(value.before).toEqual([0, 0, 0, 0]);
    expect(value.after).toEqual([0, 42, 0, 0]);
    expect(value.nodes).toBe(2);
    for (const error of value.refused) {
      expect(error.code).toBe('UNSUPPORTED');
      expect(error.message).toMatch(/stream that is being captured; /);
      expect(toFlashInferError(Object.assign(new Error(), error), 'f')).toBeInstanceOf(UnsupportedError);
    }
    for (const error of value.gone) expect(error.code).toBe('INVALID_POINTER');
    expect(value.used).toBe(32);
    expect(calls).toContain('cuStreamBeginCapture mode=2');
    expect(calls).toContain('cuGraphInstantiate flags=1');
    expect(calls.filter((call) => call.startsWith('cuMemFreeAsync')).slice(0, 2)).toEqual([
      'cuMemFreeAsync capturing=1',
      'cuMemFreeAsync capturing=0',
    ]);
  });

  it('encodes tensor maps, and says which driver has them', () => {
    const encode = `cuda.tensorMapEncodeTiled({ dtype: 9, rank: 2, address: 4096 * 5, dims: [64, 2 ** 33], strides: [2 ** 35],
      box: [64, 128], elementStrides: [1, 2], interleave: 0, swizzle: 3, l2Promotion: 2, oobFill: 1 })`;
    const { value } = fake.run(`${prelude}
      const map = ${encode};
      const odd = check(() => cuda.tensorMapEncodeTiled({ dtype: 9, rank: 2, address: 0, dims: [64], strides: [128], box: [1, 1],
        elementStrides: [1, 1], interleave: 0, swizzle: 0, l2Promotion: 0, oobFill: 0 }));
      return { words: [...new BigUint64Array(map.slice().buffer)].map(Number), odd };`);
    expect(value.words.slice(0, 15)).toEqual([9, 2, 20480, 64, 2 ** 33, 2 ** 35, 64, 128, 1, 2, 0, 3, 2, 1, 0]);
    expect(value.odd.message).toMatch(/dims has 1 entries; expected 2/);
    const old = fake.run(
      `${prelude}
      const { kernel } = makeKernel();
      return { error: check(() => ${encode}), info: cuda.kernelInfo(kernel) };`,
      'old',
    ).value;
    expect(old.error.code).toBe('UNSUPPORTED');
    expect(old.error.message).toMatch(/CUDA 12\.0 or newer/);
    expect(old.info).not.toHaveProperty('paramBytes');
  });

  it('gives everything back when a worker ends or is terminated mid-work, context last', () => {
    const { value, calls } = fake.run(
      `
      const { Worker } = require('node:worker_threads');
      cuda.initDevice(0);
      const work = (end) => new Promise((done, fail) => {
        const worker = new Worker(\`
          const { cuda } = require(process.env.ADDON_PATH);
          const stream = cuda.initDevice(0).defaultStream;
          const side = cuda.streamCreate(0, 0);
          const block = cuda.memAlloc(0, 1 << 20, stream);
          cuda.pinnedAlloc(0, 4096);
          cuda.eventCreate(0, true, true);
          const module = cuda.moduleLoad(0, Buffer.from('.version 8.0'));
          cuda.kernelCreate(0, module, 'store', new ArrayBuffer(16), 0);
          cuda.write(0, block, new Uint8Array(100), stream);
          cuda.captureBegin(side);
          cuda.memset(block, 0, 1, 1, side);
          cuda.graphInstantiate(0, cuda.captureEnd(side));
          cuda.captureBegin(side);
          for (let i = 0; i < 20; i++) cuda.read(0, block, new Uint8Array(100), stream);
          require('node:worker_threads').parentPort.postMessage('ready');
          \${end}\`, { eval: true });
        worker.on('error', fail);
        worker.on('exit', done);
        worker.on('message', () => { if (end.includes('for')) worker.terminate(); });
      });
      for (let round = 0; round < 3; round++) {
        await work('');
        await work('for (;;);');
        await work('process.exit(0)');
      }
      return cuda.memInfo(0).poolUsed;`,
      'full',
      { ADDON_PATH: addonCandidates(packageRoot())[0] as string },
    );
    expect(value).toBe(0);
    const releases = calls.filter((call) => call.startsWith('release'));
    expect(releases).toHaveLength(10);
    // The main thread's one stream is alive while workers end.
    for (const line of releases.slice(0, 9)) {
      expect(line).toBe(
        'release device=0 retained=1 blocks=0 pinned=0 events=0 streams=1 graphs=0 execs=0 modules=0 sticky=0',
      );
    }
    expect(releases[9]).toBe(
      'release device=0 retained=0 blocks=0 pinned=0 events=0 streams=0 graphs=0 execs=0 modules=0 sticky=0',
    );
  });

  it('adds well under half a microsecond to a launch', () => {
    const { value } = fake.run(
      `${prelude}
      const { kernel, set } = makeKernel();
      const block = cuda.memAlloc(0, 4, stream);
      set(block, 1);
      let best = Infinity;
      for (let round = 0; round < 20; round++) {
        const start = process.hrtime.bigint();
        for (let i = 0; i < 20_000; i++) cuda.launch(kernel, 1, 1, 1, 32, 0, stream, 0, false);
        best = Math.min(best, Number(process.hrtime.bigint() - start) / 20_000);
      }
      return best;`,
      'full',
      { FAKE_CUDA_QUIET: '1' },
    );
    console.log(`launch: ${value.toFixed(0)} ns with an empty driver`);
    expect(value).toBeLessThan(500);
  });
});
