// SPDX-License-Identifier: Apache-2.0
// The device that device-independent tests run on: FLASHINFER_TEST_DEVICE, default cpu.
import { type Device, parseDevice } from '../src/runtime/device.ts';

export const testDevice: Device = parseDevice(process.env.FLASHINFER_TEST_DEVICE ?? 'cpu');
export const onCuda = testDevice !== 'cpu';
