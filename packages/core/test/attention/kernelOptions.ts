// SPDX-License-Identifier: Apache-2.0
// Options and limits for tests of what is decided without a GPU.
import type { DeviceLimits } from '../../src/attention/deviceLimits.ts';
import type { KernelOptions } from '../../src/attention/kernelName.ts';

export const h200: DeviceLimits = { numSms: 132, sharedPerBlock: 232_448, sharedPerSm: 233_472, l2Bytes: 50 << 20 };

export const plain: KernelOptions = {
  qDtype: 'bfloat16',
  kvDtype: 'bfloat16',
  headDim: 128,
  maskMode: 'none',
  posEncodingMode: 'NONE',
  windowLeft: -1,
  logitsSoftCap: 0,
};
