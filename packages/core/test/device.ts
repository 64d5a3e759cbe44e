// SPDX-License-Identifier: Apache-2.0
// The device that device-independent tests run on: FLASHINFER_TEST_DEVICE, default cpu.
import { type Device, parseDevice } from '../src/runtime/device.ts';

export const testDevice: Device = parseDevice(process.env.FLASHINFER_TEST_DEVICE ?? 'cpu');
export const onCuda = testDevice !== 'cpu';

/** FLASHINFER_TEST_BACKEND=fa3 runs the attention cases that the fa3 template serves through it. */
const testBackend = process.env.FLASHINFER_TEST_BACKEND;

/** Option `backend` of a prefill case. */
export function backendOption(c: {
  readonly backend?: 'fa2' | 'fa3';
  readonly dtype: string;
  readonly kvDtype?: string;
  readonly maskDensity?: number;
  readonly options?: { readonly posEncodingMode?: string };
}): { backend?: 'fa2' | 'fa3' } {
  if (c.backend !== undefined) return { backend: c.backend };
  const served =
    (c.kvDtype ?? c.dtype) === c.dtype &&
    c.maskDensity === undefined &&
    c.options?.posEncodingMode !== 'ROPE_LLAMA' &&
    onCuda;
  return testBackend === 'fa3' && served ? { backend: 'fa3' } : {};
}
