// SPDX-License-Identifier: Apache-2.0
// Time of one operation on a CUDA device, by events.
import { cuda, type Device } from '@flashinfer/core';
import { currentStream, deviceIndex, deviceProperties, native } from '@flashinfer/core/internal';
import type { Operation } from '../cases/benchCase.ts';
import { nowUs } from './host.ts';

export interface CudaTimingOptions {
  readonly device: Device;
  readonly rotations: number;
  readonly budgetMs: number;
  readonly minSamples: number;
}

/** Bytes that must be written to push everything else out of L2. */
export function flushBytes(device: Device): number {
  return 2 * deviceProperties(deviceIndex(device)).l2CacheBytes;
}

/**
 * What a flush writes: as much as triton's do_bench, by which the peers were measured. It also keeps the device busy,
 * some 60 us on an H200, while the host enqueues the next launch, so that the events see the kernel and not the launch;
 * with 100 MB the host was late now and then, and calls of 2 us seemed to take 40.
 */
const launchFlushBytes = 256 * 2 ** 20;

/**
 * Events without interrupts, as torch's are: an interrupt at the first event delays the launch behind it by 0.9 us on an
 * H200, which would count as the kernel's.
 */
const timingEvent = (index: number): number => native().cuda.eventCreate(index, true, false);

/** Single launches, each after a flush of L2. */
export function timeLaunches(operation: Operation, options: CudaTimingOptions): number[] {
  const { device, rotations } = options;
  const index = deviceIndex(device);
  const stream = currentStream(index);
  const api = native().cuda;
  const flushSize = Math.max(launchFlushBytes, flushBytes(device));
  const flushBuffer = api.memAlloc(index, flushSize, stream);
  const batch = 32;
  const events = Array.from({ length: 2 * batch }, () => timingEvent(index));
  try {
    for (let n = 0; n < 3; ++n) operation.run(n % rotations);
    api.streamSynchronize(stream);
    const samplesUs: number[] = [];
    const end = nowUs() + options.budgetMs * 1000;
    while (samplesUs.length < options.minSamples || (samplesUs.length < 2000 && nowUs() < end)) {
      for (let n = 0; n < batch; ++n) {
        api.memset(flushBuffer, 0, 4, flushSize / 4, stream);
        api.eventRecord(events[2 * n]!, stream);
        operation.run(n % rotations);
        api.eventRecord(events[2 * n + 1]!, stream);
      }
      api.streamSynchronize(stream);
      for (let n = 0; n < batch; ++n) samplesUs.push(1000 * api.eventElapsedMs(events[2 * n]!, events[2 * n + 1]!));
    }
    return samplesUs;
  } finally {
    for (const event of events) api.eventDestroy(event);
    api.memFree(index, flushBuffer, stream);
  }
}

/**
 * A CUDA graph of many launches that walk through the buffer sets: no launch cost between kernels, and inputs that are
 * out of L2 where the sets together are larger. One sample is a whole graph divided by its launches.
 */
export function timeGraph(operation: Operation, options: CudaTimingOptions): number[] {
  const { device, rotations } = options;
  const index = deviceIndex(device);
  const api = native().cuda;
  const launches = rotations * Math.max(1, Math.round(24 / rotations));
  const stream = new cuda.Stream({ device });
  const start = timingEvent(index);
  const stop = timingEvent(index);
  try {
    const handle = stream.ptr;
    // Modules load and workspaces grow before the capture.
    cuda.withStream(stream, () => operation.run(0));
    api.streamSynchronize(handle);
    const graph = cuda.capture(stream, () => {
      for (let n = 0; n < launches; ++n) operation.run(n % rotations);
    });
    const samplesUs: number[] = [];
    graph.launch(stream);
    const end = nowUs() + options.budgetMs * 1000;
    const enough = Math.ceil(options.minSamples / 2);
    while (samplesUs.length < enough || (samplesUs.length < 500 && nowUs() < end)) {
      api.eventRecord(start, handle);
      graph.launch(stream);
      api.eventRecord(stop, handle);
      api.streamSynchronize(handle);
      samplesUs.push((1000 * api.eventElapsedMs(start, stop)) / launches);
    }
    graph.dispose();
    return samplesUs;
  } finally {
    api.eventDestroy(start);
    api.eventDestroy(stop);
    stream.dispose();
  }
}

/** GB/s of reading and writing in one large device copy, best of several. */
export function copyBandwidth(device: Device): number {
  const index = deviceIndex(device);
  const stream = currentStream(index);
  const api = native().cuda;
  const bytes = 1 << 30;
  const [src, dst] = [0, 1].map(() => api.memAlloc(index, bytes, stream)) as [number, number];
  const start = timingEvent(index);
  const stop = timingEvent(index);
  let best = 0;
  for (let n = 0; n < 10; ++n) {
    api.eventRecord(start, stream);
    api.copyDtoD(dst, src, bytes, stream);
    api.eventRecord(stop, stream);
    api.streamSynchronize(stream);
    best = Math.max(best, (2 * bytes) / api.eventElapsedMs(start, stop) / 1e6);
  }
  api.eventDestroy(start);
  api.eventDestroy(stop);
  api.memFree(index, src, stream);
  api.memFree(index, dst, stream);
  return best;
}
