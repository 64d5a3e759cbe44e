// SPDX-License-Identifier: Apache-2.0
import { describeValue } from '../check/describeValue.ts';
import { InvalidArgumentError } from '../errors.ts';
import { native } from '../native/load.ts';

/**
 * Threads that operators of the cpu device compute with, for the whole process. Default: the cores it may run on.
 * Results do not depend on it.
 * @example
 * ```ts
 * import { setNumThreads } from '@flashinfer/core';
 *
 * setNumThreads(2);
 * ```
 */
export function setNumThreads(numThreads: number): void {
  if (!Number.isInteger(numThreads) || numThreads < 1 || numThreads > 4096) {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `setNumThreads: numThreads is ${describeValue(numThreads)}; expected an integer from 1 to 4096; ` +
        'os.availableParallelism() is a good value',
    );
  }
  native().cpu.setNumThreads(numThreads);
}
