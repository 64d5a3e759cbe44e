// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleepAsync } from 'node:timers/promises';
import type { Step } from './bothWays.ts';

export function sleep(ms: number): Step<void> {
  return {
    sync: () => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
    async: (signal) => sleepAsync(ms, undefined, { signal }),
  };
}
