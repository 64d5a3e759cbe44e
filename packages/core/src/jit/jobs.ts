// SPDX-License-Identifier: Apache-2.0
import { setMaxListeners } from 'node:events';
import { availableParallelism, freemem } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { env } from '../envVars.ts';

/** Memory one compilation may take: the largest attention kernels stay below it. */
const bytesPerJob = 1 << 30;

/** How many compilations run at once: MAX_JOBS, else as many as cores and free memory allow; at least one. */
export function parallelJobs(tasks: number): number {
  const limit = env.maxJobs ?? Math.min(availableParallelism(), Math.floor(freemem() / bytesPerJob));
  return Math.max(1, Math.min(limit, tasks));
}

/**
 * Runs `work` on every item, `jobs` at a time. After the first failure no further item is started, those that run are
 * told to stop through their signal, and once all have ended the failure is thrown.
 */
export async function runParallel<T>(
  items: readonly T[],
  jobs: number,
  signal: AbortSignal | undefined,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failed = new AbortController();
  const stop = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal;
  // A listener a job: Node warns from the eleventh on, as of a leak.
  setMaxListeners(0, stop);
  const queue = items.values();
  let failure: { readonly error: unknown } | undefined;
  const worker = async () => {
    for (const item of queue) {
      try {
        stop.throwIfAborted();
        await work(item, stop);
        // Items that are found in the cache never wait; the event loop gets its turn all the same.
        await setImmediate();
      } catch (error) {
        failure ??= { error };
        failed.abort();
        return;
      }
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  if (failure !== undefined) throw failure.error;
}
