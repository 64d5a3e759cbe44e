// SPDX-License-Identifier: Apache-2.0
// Measures what this machine can do at best.
import type { Device } from '@flashinfer/core';
import { deviceIndex, deviceProperties, native } from '@flashinfer/core/internal';
import { type Ceilings, dataSheetPeak } from './floor.ts';
import { copyBandwidth } from './timing/cuda.ts';

export function measureCeilings(device: Device, quick: boolean): Ceilings {
  if (device === 'cpu') {
    const { numThreads } = native().cpu.info();
    const bytes = quick ? 1 << 27 : 1 << 29;
    return {
      bandwidth: native().cpu.readBandwidth(bytes, quick ? 3 : 10),
      bandwidthMethod: `best read of ${bytes / 2 ** 20} MiB by ${numThreads} threads`,
      peakTflops: {},
    };
  }
  return {
    bandwidth: copyBandwidth(device),
    bandwidthMethod: 'best device copy of 1 GiB, read and write counted',
    peakTflops: dataSheetPeak(deviceProperties(deviceIndex(device)).name),
  };
}
