// SPDX-License-Identifier: Apache-2.0
// A lock between processes on one module; the system drops it when its holder dies, so it is never stale.
import { CacheError } from '../errors.ts';
import { notice } from '../logging.ts';
import { native } from '../native/load.ts';
import { type Procedure, perform } from './bothWays.ts';
import { sleep } from './sleep.ts';

const firstWaitMs = 5;
const longestWaitMs = 100;
const silentMs = 1000;
const timeoutMs = 15 * 60_000;

/** Locks held by this thread's event loop: a blocking wait for one of them would never end. */
const held = new Set<string>();

/**
 * Waits for the lock and returns what gives it back. Undefined when `blocking` and a procedure suspended on this
 * thread's event loop holds it: the caller then works without the lock.
 */
export function* acquireLock(path: string, what: string, blocking: boolean): Procedure<(() => void) | undefined> {
  const start = performance.now();
  let logged = false;
  for (let waitMs = firstWaitMs; ; waitMs = Math.min(waitMs * 2, longestWaitMs)) {
    const handle = native().host.tryLockFile(path);
    if (handle >= 0) {
      held.add(path);
      return () => {
        held.delete(path);
        native().host.unlockFile(handle);
      };
    }
    if (blocking && held.has(path)) return undefined;
    const waited = performance.now() - start;
    if (waited > timeoutMs) throw lockTimeout(path, what);
    if (waited > silentMs && !logged) {
      notice(`waiting for another process or thread that compiles ${what} (lock ${path})`);
      logged = true;
    }
    yield* perform(sleep(waitMs));
  }
}

function lockTimeout(path: string, what: string): CacheError {
  return new CacheError(
    'ERR_FLASHINFER_CACHE_LOCKED',
    `getKernel: ${what} is locked by ${path} for ${timeoutMs / 60_000} minutes; expected its holder to finish; ` +
      'end the process that compiles it',
  );
}
