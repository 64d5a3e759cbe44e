// SPDX-License-Identifier: Apache-2.0
// What checkNan asks for.
import type { Checker } from '../check/checker.ts';
import { refuseInCapture } from '../runtime/capture.ts';
import { empty } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { SamplingRun } from './samplingRun.ts';

/**
 * Throws where x holds NaN, when the device has done what comes before. A softmax carries NaN to the first column of its
 * row; it does so for infinities too, so that only such rows are read to the host.
 */
export function refuseNan(check: Checker, name: string, x: Tensor): void {
  if (x.deviceIndex >= 0) {
    refuseInCapture(x.deviceIndex, check.functionName, 'leave checkNan out, and check before the capture');
  }
  using weights = new SamplingRun('softmax', x).into(empty(x.shape, { dtype: 'float32', device: x.device }));
  using first = weights.slice(1, 0, 1);
  const suspects = first.toArraySync() as Float32Array;
  for (let row = 0; row < suspects.length; row++) {
    if (Number.isNaN(suspects[row])) refuseRow(check, name, x, row);
  }
}

function refuseRow(check: Checker, name: string, x: Tensor, row: number): void {
  using values = x.select(0, row);
  const column = (values.toArraySync() as Float32Array).findIndex(Number.isNaN);
  if (column < 0) return;
  throw check.error(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${name} is NaN in row ${row} at ${column}; expected numbers, as checkNan is true; look at what computed it`,
  );
}
