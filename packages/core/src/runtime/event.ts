// SPDX-License-Identifier: Apache-2.0
import { describeValue } from '../check/describeValue.ts';
import { checkOptions } from '../check/options.ts';
import { DisposedError, InvalidArgumentError } from '../errors.ts';
import type { Ptr } from '../native/binding.ts';
import { native, toFlashInferError } from '../native/load.ts';
import { defaultDevice, deviceIndex } from './device.ts';
import { disposeSymbol } from './disposeSymbol.ts';
import { currentStreamObject, requireStream, type Stream } from './stream.ts';

export interface EventOptions {
  /** Whether `elapsedTime` may be asked; default true. Without it, waiting is cheaper. */
  timing?: boolean;
}

/** A mark in a stream, as `torch.cuda.Event`: to order streams, to wait for, and to measure time. */
export class Event {
  private ptr: Ptr = 0;
  private index = -1;
  private isDisposed = false;
  private readonly timing: boolean;

  constructor(options: EventOptions = {}) {
    checkOptions('Event', options, ['timing']);
    this.timing = options.timing ?? true;
  }

  /** Marks the point after the work that `stream` holds now; default: the current stream of the default device. */
  record(stream: Stream = currentStreamOfDefaultDevice()): this {
    this.requireLive('record');
    const streamPtr = requireStream('Event.record', stream).livePtr('record');
    if (this.ptr !== 0 && this.index !== stream.deviceIndex) {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_DEVICE_MISMATCH',
        `Event.record: the stream is on ${stream.device}; expected cuda:${this.index}, where the event was recorded ` +
          'first; use one event a device',
      );
    }
    try {
      if (this.ptr === 0) this.create(stream.deviceIndex);
      native().cuda.eventRecord(this.ptr, streamPtr);
    } catch (error) {
      throw toFlashInferError(error, 'Event.record');
    }
    return this;
  }

  private create(index: number): void {
    this.ptr = native().cuda.eventCreate(index, this.timing, true);
    this.index = index;
    abandonedEvents.register(this, this.ptr, this);
  }

  /** Whether the work before the mark is done. */
  query(): boolean {
    return this.call('query', (ptr) => native().cuda.eventQuery(ptr));
  }

  /** Resolves when the work before the mark is done; the event loop stays free. */
  async synchronize(): Promise<void> {
    const ptr = this.recordedPtr('Event.synchronize');
    try {
      await native().cuda.eventSynchronizeAsync(this.index, ptr);
    } catch (error) {
      throw toFlashInferError(error, 'Event.synchronize');
    }
  }

  /** Blocks this thread until the work before the mark is done. */
  synchronizeSync(): void {
    this.call('synchronizeSync', (ptr) => native().cuda.eventSynchronize(ptr));
  }

  /** Milliseconds of GPU time from this mark to `end`, which must both have been reached (`await end.synchronize()`). */
  elapsedTime(end: Event): number {
    if (!(end instanceof Event)) {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `Event.elapsedTime: end is ${describeValue(end)}; expected an Event; pass the one recorded after the work`,
      );
    }
    const endPtr = end.recordedPtr('Event.elapsedTime');
    return this.call('elapsedTime', (ptr) => {
      if (!this.timing || !end.timing) {
        throw new InvalidArgumentError(
          'ERR_FLASHINFER_INVALID_ARGUMENT',
          'Event.elapsedTime: an event was made with timing false; expected both with timing; leave the option out',
        );
      }
      return native().cuda.eventElapsedMs(ptr, endPtr);
    });
  }

  get disposed(): boolean {
    return this.isDisposed;
  }

  /** Gives the event back. Idempotent; work that waits for it still does. */
  dispose(): void {
    if (this.isDisposed) return;
    this.isDisposed = true;
    if (this.ptr === 0) return;
    abandonedEvents.unregister(this);
    try {
      native().cuda.eventDestroy(this.ptr);
    } catch (error) {
      throw toFlashInferError(error, 'Event.dispose');
    }
  }

  [disposeSymbol](): void {
    this.dispose();
  }

  /** @internal The driver handle; throws where there is nothing to wait for. */
  recordedPtr(caller: string): Ptr {
    this.requireLive(caller.slice(caller.indexOf('.') + 1));
    if (this.ptr !== 0) return this.ptr;
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${caller}: the event was never recorded; expected a recorded event; call record() first`,
    );
  }

  private requireLive(method: string): void {
    if (this.isDisposed) throw new DisposedError(`Event.${method}: the event was disposed; make a new cuda.Event`);
  }

  private call<T>(method: string, body: (ptr: Ptr) => T): T {
    const ptr = this.recordedPtr(`Event.${method}`);
    try {
      return body(ptr);
    } catch (error) {
      throw toFlashInferError(error, `Event.${method}`);
    }
  }
}

const abandonedEvents = new FinalizationRegistry<Ptr>((ptr) => {
  try {
    native().cuda.eventDestroy(ptr);
  } catch {
    // A finaliser has nobody to tell; the event goes with the thread.
  }
});

function currentStreamOfDefaultDevice(): Stream {
  const device = defaultDevice();
  if (device !== 'cpu') return currentStreamObject(deviceIndex(device));
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    "Event.record: the default device is 'cpu', which has no stream; expected a Stream; pass the stream to record on",
  );
}
