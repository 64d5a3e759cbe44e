// SPDX-License-Identifier: Apache-2.0
// CUDA graphs: record launches once, replay them with one call.
import { DisposedError, InvalidArgumentError } from '../errors.ts';
import type { Ptr } from '../native/binding.ts';
import { native, toFlashInferError } from '../native/load.ts';
import { activeCapture, Capture, setActiveCapture } from './capture.ts';
import { disposeSymbol } from './disposeSymbol.ts';
import type { Storage } from './storage.ts';
import { currentStreamObject, requireFunction, requireStream, type Stream, withStream } from './stream.ts';

/** @internal What a graph holds; apart from Graph, so that it can be a finaliser's held value. */
interface GraphParts {
  readonly exec: Ptr;
  readonly retained: ReadonlySet<Storage>;
  readonly launchedOn: Set<Stream>;
}

/**
 * Launches recorded by `cuda.capture`. Replays read and write the same addresses: put new inputs there with
 * `tensor.copy_()`, and read outputs from the tensors that the captured function made. The graph keeps all of them
 * alive until it is disposed of, also those the caller disposes of before.
 */
export class Graph {
  readonly deviceIndex: number;
  /** Nodes of the graph: kernels, copies and fills. */
  readonly nodeCount: number;
  private readonly parts: GraphParts;
  private isDisposed = false;

  /** @internal Graphs come from `cuda.capture`. */
  constructor(deviceIndex: number, nodeCount: number, exec: Ptr, retained: ReadonlySet<Storage>) {
    this.deviceIndex = deviceIndex;
    this.nodeCount = nodeCount;
    this.parts = { exec, retained, launchedOn: new Set() };
    abandonedGraphs.register(this, this.parts, this);
  }

  /** Enqueues the whole graph on `stream`, by default the current stream of its device. Does not wait. */
  launch(stream: Stream = currentStreamObject(this.deviceIndex)): void {
    if (this.isDisposed) throw new DisposedError('Graph.launch: the graph was disposed; capture it again');
    const ptr = requireStream('Graph.launch', stream).livePtr('launch');
    if (stream.deviceIndex !== this.deviceIndex) {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_DEVICE_MISMATCH',
        `Graph.launch: the stream is on ${stream.device}; expected cuda:${this.deviceIndex}, where the graph was ` +
          'captured; pass a stream of that device',
      );
    }
    try {
      native().cuda.graphLaunch(this.parts.exec, ptr);
    } catch (error) {
      throw toFlashInferError(error, 'Graph.launch');
    }
    this.parts.launchedOn.add(stream);
  }

  get disposed(): boolean {
    return this.isDisposed;
  }

  /** Gives the graph and its tensors back once its launches are done; does not wait. Idempotent. */
  dispose(): void {
    if (this.isDisposed) return;
    this.isDisposed = true;
    abandonedGraphs.unregister(this);
    try {
      freeParts(this.parts);
    } catch (error) {
      throw toFlashInferError(error, 'Graph.dispose');
    }
  }

  [disposeSymbol](): void {
    this.dispose();
  }
}

const abandonedGraphs = new FinalizationRegistry<GraphParts>((parts) => {
  try {
    freeParts(parts);
  } catch {
    // A finaliser has nobody to tell; the graph goes with the thread.
  }
});

function freeParts({ exec, retained, launchedOn }: GraphParts): void {
  releaseAll(retained, launchedOn);
  native().cuda.graphExecDestroy(exec);
}

function releaseAll(retained: ReadonlySet<Storage>, streams: ReadonlySet<Stream>): void {
  for (const storage of retained) {
    for (const stream of streams) storage.noteUse(stream);
    storage.release();
  }
}

/**
 * Records the work that `fn` enqueues on `stream` instead of running it. `fn` is synchronous and runs once; operators
 * it calls must have run before, so that nothing is compiled inside. Tensors made in `fn` hold values after the first
 * `launch()`.
 *
 * @throws InvalidArgumentError when `fn` is async or a capture is in progress
 */
export function capture(stream: Stream, fn: () => void): Graph {
  if (activeCapture() !== undefined) {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'capture: called inside a capture; expected one capture at a time; end the other first',
    );
  }
  const ptr = requireStream('capture', stream).livePtr('capture');
  requireFunction('capture', fn);
  const recording = new Capture(stream);
  try {
    return record(recording, ptr, fn);
  } catch (error) {
    releaseAll(recording.retained, new Set());
    throw error;
  }
}

function record(recording: Capture, ptr: Ptr, fn: () => void): Graph {
  const cuda = native().cuda;
  driverCall(() => cuda.captureBegin(ptr));
  setActiveCapture(recording);
  let failure: { readonly error: unknown } | undefined;
  let graph: Ptr | undefined;
  try {
    requireSync(withStream(recording.stream, fn));
  } catch (error) {
    failure = { error };
  }
  try {
    graph = driverCall(() => cuda.captureEnd(ptr));
  } catch (error) {
    // What fn threw is the cause; that the capture was invalidated follows from it.
    failure ??= { error };
  }
  setActiveCapture(undefined);
  driverCall(() => recording.finishSideStream());
  recording.releaseAdopted();
  for (const free of recording.deferredFrees) free();
  if (failure !== undefined) {
    if (graph !== undefined) cuda.graphDestroy(graph);
    throw failure.error;
  }
  return instantiate(recording, graph!);
}

function instantiate({ stream, retained }: Capture, graph: Ptr): Graph {
  const cuda = native().cuda;
  try {
    const exec = driverCall(() => cuda.graphInstantiate(stream.deviceIndex, graph));
    return new Graph(stream.deviceIndex, cuda.graphNodeCount(graph), exec, retained);
  } finally {
    cuda.graphDestroy(graph);
  }
}

/** What the captured function throws is the caller's own; what the driver says gets a code. */
function driverCall<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw toFlashInferError(error, 'capture');
  }
}

function requireSync(result: unknown): void {
  if (typeof (result as PromiseLike<unknown> | undefined)?.then !== 'function') return;
  // Its rejection, most likely caused by the end of the capture, must not end the process.
  Promise.resolve(result).catch(() => undefined);
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    'capture: fn returned a Promise; expected a synchronous function, since other work would be captured while it ' +
      'waits; do the awaiting before capture()',
  );
}
