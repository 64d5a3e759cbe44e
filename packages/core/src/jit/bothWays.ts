// SPDX-License-Identifier: Apache-2.0
// One description of a procedure that is run either blocking or on the event loop: a generator yields its waiting steps,
// and the two drivers below carry them out. The JIT's lock, compile and publish logic exists once this way.

/** A step in both its forms. */
export interface Step<T> {
  sync(): T;
  async(signal: AbortSignal | undefined): Promise<T>;
}

/** A procedure of such steps. */
export type Procedure<T> = Generator<Step<unknown>, T, unknown>;

/** Runs one step from inside a procedure: `const x = yield* perform(step)`. */
export function* perform<T>(step: Step<T>): Procedure<T> {
  return (yield step) as T;
}

export function runSync<T>(procedure: Procedure<T>): T {
  let next = procedure.next();
  while (!next.done) {
    try {
      next = procedure.next(next.value.sync());
    } catch (error) {
      next = procedure.throw(error);
    }
  }
  return next.value;
}

/** Between steps an abort of `signal` is thrown into the procedure, whose `finally` blocks clean up. */
export async function runAsync<T>(procedure: Procedure<T>, signal?: AbortSignal): Promise<T> {
  let next = procedure.next();
  while (!next.done) {
    try {
      signal?.throwIfAborted();
      next = procedure.next(await next.value.async(signal));
    } catch (error) {
      next = procedure.throw(error);
    }
  }
  return next.value;
}
