// SPDX-License-Identifier: Apache-2.0
// The capture in progress: what a graph must keep alive, and where memory comes from meanwhile.
import { UnsupportedError } from '../errors.ts';
import type { Ptr } from '../native/binding.ts';
import { native } from '../native/load.ts';
import type { Storage } from './storage.ts';
import type { Stream } from './stream.ts';

/** One a device. */
const sideStreams: Ptr[] = [];

/**
 * One capture. Kernels of a replay use the addresses of the capture again, so the graph keeps every tensor that was
 * touched, also those disposed of inside. Memory comes from a stream that is not captured: the tensors are ordinary,
 * can be read after any replay and outlive the graph; memory nodes would give none of that before the first launch.
 */
export class Capture {
  readonly retained = new Set<Storage>();
  /** Run when the capture has ended: freeing records events, which would become part of the graph. */
  readonly deferredFrees: (() => void)[] = [];
  readonly stream: Stream;
  /** For allocations and fills that belong before the first replay, not into the graph. */
  readonly sideStream: Ptr;
  private readonly adopted: Storage[] = [];
  private readonly scratchOwners = new Map<Stream, object>();

  /** Before the capture begins, since not every driver call is allowed inside. */
  constructor(stream: Stream) {
    this.stream = stream;
    sideStreams[stream.deviceIndex] ??= native().cuda.streamCreate(stream.deviceIndex, 0);
    this.sideStream = sideStreams[stream.deviceIndex]!;
  }

  /** Called at each use of a tensor's address. */
  retain(storage: Storage): void {
    if (this.retained.has(storage)) return;
    storage.retain();
    this.retained.add(storage);
  }

  /** Key of the scratch memory that this capture's work on `stream` uses; eager work on it has other scratch. */
  scratchOwner(stream: Stream): object {
    const known = this.scratchOwners.get(stream);
    if (known !== undefined) return known;
    const owner = {};
    this.scratchOwners.set(stream, owner);
    return owner;
  }

  /** Releases `storage` when the capture ends: from then on only the graph, if its kernels use it, keeps it. */
  adopt(storage: Storage): void {
    this.adopted.push(storage);
  }

  releaseAdopted(): void {
    for (const storage of this.adopted) storage.release();
  }

  /** After the capture ended: makes what the side stream did visible to every stream. */
  finishSideStream(): void {
    native().cuda.streamSynchronize(this.sideStream);
  }
}

let active: Capture | undefined;

/** The capture in progress, of any device. */
export function activeCapture(): Capture | undefined {
  return active;
}

/** @internal */
export function setActiveCapture(capture: Capture | undefined): void {
  active = capture;
}

/** Refuses what a replay could not repeat: copies between JS memory and the device, and waiting. */
export function refuseInCapture(index: number, caller: string, fix: string): void {
  if (active === undefined || active.stream.deviceIndex !== index) return;
  throw new UnsupportedError(
    'ERR_FLASHINFER_UNSUPPORTED',
    `${caller}: cuda:${index} is being captured into a graph; expected GPU work only inside capture(); ${fix}`,
  );
}
