// SPDX-License-Identifier: Apache-2.0
// CUDA streams and which one is current.
import { AsyncLocalStorage } from 'node:async_hooks';
import { describeValue } from '../check/describeValue.ts';
import { checkOptions } from '../check/options.ts';
import { DisposedError, InvalidArgumentError } from '../errors.ts';
import type { Ptr } from '../native/binding.ts';
import { native, toFlashInferError } from '../native/load.ts';
import { cudaDevice, type Device, defaultDevice, deviceIndex, deviceOf, parseDevice } from './device.ts';
import { disposeSymbol } from './disposeSymbol.ts';
import type { Event } from './event.ts';
import { releaseStreamBlocks } from './keptBlocks.ts';

export interface StreamOptions {
  /** A CUDA device; default: the default device. */
  device?: string;
  /** Lower numbers run first; default 0, the lowest. The driver clamps it to what the GPU has. */
  priority?: number;
}

/**
 * An ordered queue of GPU work, as `torch.cuda.Stream`. Work of different streams may overlap; events order it.
 * Every thread has one default stream a device, independent of other threads'.
 */
export class Stream {
  /** @internal CUstream. */
  readonly ptr: Ptr;
  readonly device: Device;
  /** @internal */
  readonly deviceIndex: number;
  private isDisposed = false;
  private readonly owned: boolean;

  constructor(options: StreamOptions = {}) {
    checkOptions('Stream', options, ['device', 'priority']);
    const device = parseDevice(options.device ?? defaultDevice());
    if (device === 'cpu') {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        "Stream: device is 'cpu'; expected a CUDA device; cpu operators are done when they return and need no stream",
      );
    }
    this.device = device;
    this.deviceIndex = deviceIndex(device);
    const { defaultStream } = cudaDevice(this.deviceIndex, 'Stream');
    this.owned = options !== forDefaultStream;
    this.ptr = this.owned ? createStream(this.deviceIndex, options.priority ?? 0) : defaultStream;
    if (this.owned) abandonedStreams.register(this, this.ptr, this);
  }

  /** @internal Wraps the default stream of an initialised device. */
  static defaultOf(index: number): Stream {
    forDefaultStream.device = deviceOf(index);
    return new Stream(forDefaultStream);
  }

  /** Resolves when all work enqueued so far is done; the event loop stays free. */
  async synchronize(): Promise<void> {
    const ptr = this.livePtr('synchronize');
    try {
      await native().cuda.streamSynchronizeAsync(this.deviceIndex, ptr);
    } catch (error) {
      throw toFlashInferError(error, 'Stream.synchronize');
    }
  }

  /** Blocks this thread until all work enqueued so far is done. */
  synchronizeSync(): void {
    this.call('synchronizeSync', (ptr) => native().cuda.streamSynchronize(ptr));
  }

  /** Later work of this stream waits until `event`'s last record is reached. Does not block. */
  waitEvent(event: Event): void {
    if (typeof event?.recordedPtr !== 'function') {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `Stream.waitEvent: event is ${describeValue(event)}; expected an Event; make one with new cuda.Event()`,
      );
    }
    this.call('waitEvent', (ptr) => native().cuda.streamWaitEvent(ptr, event.recordedPtr('Stream.waitEvent')));
  }

  /** Later work of this stream waits for what `other` holds now. Does not block. */
  waitStream(other: Stream): void {
    const otherPtr = requireStream('Stream.waitStream', other).livePtr('waitStream');
    this.call('waitStream', (ptr) => orderAfter(ptr, other.deviceIndex, otherPtr));
  }

  get disposed(): boolean {
    return this.isDisposed;
  }

  /**
   * Gives the stream back; its work still runs to the end, and tensors made on it stay valid. Idempotent. A thread's
   * default stream is not disposed of.
   */
  dispose(): void {
    if (this.isDisposed || !this.owned) return;
    this.isDisposed = true;
    abandonedStreams.unregister(this);
    if (current[this.deviceIndex] === this) current[this.deviceIndex] = undefined;
    try {
      destroyStream(this.ptr);
    } catch (error) {
      throw toFlashInferError(error, 'Stream.dispose');
    }
  }

  [disposeSymbol](): void {
    this.dispose();
  }

  /** @internal */
  livePtr(method: string): Ptr {
    if (!this.isDisposed) return this.ptr;
    throw new DisposedError(`Stream.${method}: the stream of ${this.device} was disposed; make a new cuda.Stream`);
  }

  private call(method: string, body: (ptr: Ptr) => void): void {
    const ptr = this.livePtr(method);
    try {
      body(ptr);
    } catch (error) {
      throw toFlashInferError(error, `Stream.${method}`);
    }
  }
}

/** @internal Later work of `stream` waits for what `earlier`, a stream of device `index`, holds now. */
export function orderAfter(stream: Ptr, index: number, earlier: Ptr): void {
  const cuda = native().cuda;
  const event = cuda.eventCreate(index, false, true);
  try {
    cuda.eventRecord(event, earlier);
    cuda.streamWaitEvent(stream, event);
  } finally {
    cuda.eventDestroy(event);
  }
}

/** Compared by identity: only this file can wrap a default stream. */
const forDefaultStream: StreamOptions = {};

function destroyStream(ptr: Ptr): void {
  releaseStreamBlocks(ptr);
  native().cuda.streamDestroy(ptr);
}

const abandonedStreams = new FinalizationRegistry<Ptr>((ptr) => {
  try {
    destroyStream(ptr);
  } catch {
    // A finaliser has nobody to tell; the stream goes with the thread.
  }
});

function createStream(index: number, priority: number): Ptr {
  if (!Number.isInteger(priority)) {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `Stream: priority is ${describeValue(priority)}; expected an integer, lower runs first; leave it out for 0`,
    );
  }
  try {
    return native().cuda.streamCreate(index, priority);
  } catch (error) {
    throw toFlashInferError(error, 'Stream');
  }
}

/** Current stream of each device outside `withStream`; undefined means the default stream, made when first needed. */
const current: (Stream | undefined)[] = [];
const defaults: Stream[] = [];

/** Streams of the enclosing `withStream` by device. Made at the first `withStream`: before, nothing pays for it. */
let scopes: AsyncLocalStorage<(Stream | undefined)[]> | undefined;

/** @internal The stream that work for device `index` goes to now. */
export function currentStreamObject(index: number): Stream {
  if (scopes !== undefined) {
    const scoped = scopes.getStore()?.[index];
    if (scoped !== undefined) return live(scoped);
  }
  return current[index] ?? initCurrent(index);
}

/** Driver handle of the stream that work for device `index` goes to now. Hot path: one array look-up. */
export function currentStream(index: number): Ptr {
  return currentStreamObject(index).ptr;
}

/** @internal This thread's default stream of a device. */
export function defaultStreamObject(index: number): Stream {
  defaults[index] ??= Stream.defaultOf(index);
  return defaults[index];
}

function initCurrent(index: number): Stream {
  const stream = defaultStreamObject(index);
  current[index] = stream;
  return stream;
}

function live(stream: Stream): Stream {
  stream.livePtr('withStream');
  return stream;
}

/** @internal What a caller passed as a stream. @throws InvalidArgumentError where it is none */
export function requireStream(caller: string, stream: unknown): Stream {
  if (stream instanceof Stream) return stream;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${caller}: stream is ${describeValue(stream)}; expected a Stream; make one with new cuda.Stream()`,
  );
}

/** @internal */
export function requireFunction(caller: string, fn: unknown): void {
  if (typeof fn === 'function') return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${caller}: fn is ${describeValue(fn)}; expected a function; pass () => { ... }`,
  );
}

/**
 * Makes `stream` the current stream of its device: for the rest of the enclosing `withStream`, else for this thread.
 * Pass a device name to go back to that device's default stream.
 */
export function setStream(stream: Stream | string): void {
  const chosen = typeof stream === 'string' ? defaultStreamOf(stream) : live(requireStream('setStream', stream));
  const target = scopes?.getStore() ?? current;
  target[chosen.deviceIndex] = chosen;
}

function defaultStreamOf(device: string): Stream {
  const index = deviceIndex(parseDevice(device));
  if (index >= 0) return defaultStreamObject(index);
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    "setStream: device is 'cpu'; expected a CUDA device or a Stream; the cpu has no streams",
  );
}

/**
 * Runs `fn` with `stream` as the current stream of its device and returns what it returns. An async `fn` keeps the
 * stream across its awaits; code that runs meanwhile keeps its own.
 */
export function withStream<T>(stream: Stream, fn: () => T): T {
  live(requireStream('withStream', stream));
  requireFunction('withStream', fn);
  scopes ??= new AsyncLocalStorage();
  const streams = [...(scopes.getStore() ?? [])];
  streams[stream.deviceIndex] = stream;
  return scopes.run(streams, fn);
}
