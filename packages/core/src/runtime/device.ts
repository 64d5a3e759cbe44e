// SPDX-License-Identifier: Apache-2.0
// Device names, the default device, and properties of GPUs.
import { describeValue } from '../check/describeValue.ts';
import { CudaError, InvalidArgumentError } from '../errors.ts';
import { notice } from '../logging.ts';
import type { DeviceProperties, NativeCuda, Ptr } from '../native/binding.ts';
import { native, toFlashInferError } from '../native/load.ts';

/** Where a tensor lives: `'cpu'` or `'cuda:<index>'`. */
export type Device = 'cpu' | `cuda:${number}`;

interface CudaDevice {
  readonly defaultStream: Ptr;
}

/** Devices this thread has initialised, and properties it has asked for, by index. */
const devices: CudaDevice[] = [];
const properties: DeviceProperties[] = [];
let chosenDefault: Device | undefined;

/**
 * The device of a name; `'cuda'` is `'cuda:0'`. Does not ask whether that GPU exists.
 *
 * @throws InvalidArgumentError `ERR_FLASHINFER_INVALID_ARGUMENT` for any other text
 */
export function parseDevice(device: string): Device {
  if (device === 'cpu' || device === 'cuda:0') return device;
  if (device === 'cuda') return 'cuda:0';
  if (typeof device === 'string' && /^cuda:(0|[1-9]\d{0,3})$/.test(device)) return device as Device;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `device: ${describeValue(device)} is no device; expected 'cpu', 'cuda' or 'cuda:<index>'; pass one of these`,
  );
}

/** Index of a CUDA device, -1 for the cpu. */
export function deviceIndex(device: Device): number {
  return device === 'cpu' ? -1 : Number(device.slice(5));
}

/** The device of an index; -1 is the cpu. */
export function deviceOf(index: number): Device {
  return index < 0 ? 'cpu' : `cuda:${index}`;
}

/**
 * The device that tensors are made on when none is named: what `setDefaultDevice` chose, else `'cuda:0'` where a GPU
 * works, else `'cpu'`. The first call initialises the GPU.
 * @example
 * ```ts
 * import { defaultDevice } from '@flashinfer/core';
 *
 * console.log(defaultDevice()); // 'cuda:0' or 'cpu'
 * ```
 */
export function defaultDevice(): Device {
  chosenDefault ??= findDefaultDevice();
  return chosenDefault;
}

/**
 * Makes `device` the default of this thread. Throws where the device does not work.
 * @example
 * ```ts
 * import { setDefaultDevice, zeros } from '@flashinfer/core';
 *
 * setDefaultDevice('cpu');
 * console.log(zeros([2]).device); // 'cpu'
 * ```
 */
export function setDefaultDevice(device: string): void {
  const parsed = parseDevice(device);
  if (parsed !== 'cpu') cudaDevice(deviceIndex(parsed), 'setDefaultDevice');
  chosenDefault = parsed;
}

function findDefaultDevice(): Device {
  if (cudaDeviceCount() === 0) return 'cpu';
  try {
    cudaDevice(0, 'defaultDevice');
    return 'cuda:0';
  } catch (error) {
    // Reported, because a GPU that is there and does not work is not what the user expects.
    notice(`cuda:0 does not work, the default device is the cpu: ${error instanceof Error ? error.message : error}`);
    return 'cpu';
  }
}

/** GPUs the driver sees; 0 where there is no driver. */
export function cudaDeviceCount(): number {
  const probe = native().cuda.probe();
  return probe.ok ? (probe.deviceCount ?? 0) : 0;
}

/**
 * The initialised device of an index.
 *
 * @throws CudaError `ERR_FLASHINFER_CUDA_UNAVAILABLE` without a driver, saying where it was looked for
 * @throws InvalidArgumentError for an index the driver does not have
 */
export function cudaDevice(index: number, caller: string): CudaDevice {
  return devices[index] ?? initDevice(index, caller);
}

function initDevice(index: number, caller: string): CudaDevice {
  const cuda = native().cuda;
  requireIndex(cuda, index, caller);
  try {
    const device = cuda.initDevice(index);
    devices[index] = device;
    return device;
  } catch (error) {
    throw toFlashInferError(error, caller);
  }
}

function requireIndex(cuda: NativeCuda, index: number, caller: string): void {
  const probe = cuda.probe();
  if (!probe.ok) {
    throw new CudaError(
      'ERR_FLASHINFER_CUDA_UNAVAILABLE',
      `${caller}: cuda:${index} needs the CUDA driver: ${probe.error ?? 'it did not load'}; searched ` +
        `${probe.searched.join(' and ')}; or use device 'cpu'`,
    );
  }
  const count = probe.deviceCount ?? 0;
  if (Number.isInteger(index) && index >= 0 && index < count) return;
  const allowed = count === 0 ? 'no GPU is visible' : `an index below ${count}`;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${caller}: device index ${index} does not exist; expected ${allowed}; see CUDA_VISIBLE_DEVICES and cuda.deviceCount()`,
  );
}

/** Properties of a GPU, asked from the driver once. Does not create a context on it. */
export function deviceProperties(index: number): DeviceProperties {
  return properties[index] ?? readProperties(index);
}

function readProperties(index: number): DeviceProperties {
  const cuda = native().cuda;
  requireIndex(cuda, index, 'getDeviceProperties');
  try {
    const read = Object.freeze(cuda.deviceProperties(index));
    properties[index] = read;
    return read;
  } catch (error) {
    throw toFlashInferError(error, 'getDeviceProperties');
  }
}

/** Compute capability as one number: 90 for sm_90, 120 for sm_120. */
export function smArch(index: number): number {
  const { major, minor } = deviceProperties(index);
  return major * 10 + minor;
}
