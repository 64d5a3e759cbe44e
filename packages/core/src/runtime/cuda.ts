// SPDX-License-Identifier: Apache-2.0
// The public `cuda` namespace. Everything in it can be imported without a GPU; isAvailable() tells.
import type { DeviceProperties } from '../native/binding.ts';
import { native, toFlashInferError } from '../native/load.ts';
import { refuseInCapture } from './capture.ts';
import { cudaDevice, cudaDeviceCount, defaultDevice, deviceIndex, deviceProperties, parseDevice } from './device.ts';

export { Event, type EventOptions } from './event.ts';
export { capture, Graph } from './graph.ts';
export { type MemoryStats, memoryStats, resetPeakMemoryStats } from './memory.ts';
export { Stream, type StreamOptions, setStream, withStream } from './stream.ts';
export type { DeviceProperties };

/** Whether the CUDA driver loads and sees a GPU. Never throws for want of one. */
export function isAvailable(): boolean {
  return cudaDeviceCount() > 0;
}

/** GPUs the driver sees; 0 without a driver. CUDA_VISIBLE_DEVICES applies. */
export function deviceCount(): number {
  return cudaDeviceCount();
}

/** Name, compute capability, memory and limits of a GPU. */
export function getDeviceProperties(device: number | string = 'cuda:0'): DeviceProperties {
  return deviceProperties(typeof device === 'number' ? device : deviceIndex(parseDevice(device)));
}

/** Resolves when all work on a device is done; the event loop stays free. At once on a machine without a GPU. */
export async function synchronize(device: string = defaultDevice()): Promise<void> {
  const index = synchronizable(device, 'synchronize');
  if (index < 0) return;
  try {
    await native().cuda.deviceSynchronizeAsync(index);
  } catch (error) {
    throw toFlashInferError(error, 'synchronize');
  }
}

/** Blocks this thread until all work on a device is done. */
export function synchronizeSync(device: string = defaultDevice()): void {
  const index = synchronizable(device, 'synchronizeSync');
  if (index < 0) return;
  try {
    native().cuda.deviceSynchronize(index);
  } catch (error) {
    throw toFlashInferError(error, 'synchronizeSync');
  }
}

function synchronizable(device: string, caller: string): number {
  const index = deviceIndex(parseDevice(device));
  if (index < 0) return index;
  cudaDevice(index, caller);
  refuseInCapture(index, caller, 'synchronize after the capture');
  return index;
}
