// SPDX-License-Identifier: Apache-2.0
// Scratch memory of operators. Each stream has its own, and so has each graph: work of different streams overlaps.
import type { Ptr } from '../native/binding.ts';
import { native } from '../native/load.ts';
import { activeCapture, type Capture } from './capture.ts';
import { Storage } from './storage.ts';
import { currentStreamObject } from './stream.ts';

interface Scratch {
  workspace: Storage | undefined;
  counters: Storage | undefined;
}

/** By stream, weakly: scratch goes with its stream; a graph retains what its kernels use. */
const scratches = new WeakMap<object, Scratch>();

/** Rounding keeps slowly growing requests from allocating each time. */
const granule = 1 << 20;

/**
 * Address of `bytes` of scratch for work on the current stream, 256-byte aligned; contents undefined, valid until the
 * next call. Grows and never shrinks: an outgrown block is freed behind the work that uses it.
 */
export function workspace(deviceIndex: number, bytes: number): Ptr {
  const scratch = scratchOf(deviceIndex);
  if (scratch.workspace === undefined || scratch.workspace.bytes < bytes) {
    const size = Math.max(granule, Math.ceil(bytes / granule) * granule);
    scratch.workspace = replace(scratch.workspace, deviceIndex, size);
  }
  return scratch.workspace.use();
}

/**
 * Address of `count` int32 zeros for kernels on the current stream that count blocks; a kernel must leave them zero.
 */
export function zeroedCounters(deviceIndex: number, count: number): Ptr {
  const scratch = scratchOf(deviceIndex);
  if (scratch.counters === undefined || scratch.counters.bytes < 4 * count) {
    const size = Math.max(1024, 2 ** Math.ceil(Math.log2(count)));
    scratch.counters = replace(scratch.counters, deviceIndex, 4 * size);
    zeroFill(scratch.counters, size);
  }
  return scratch.counters.use();
}

function replace(old: Storage | undefined, deviceIndex: number, bytes: number): Storage {
  const storage = new Storage(deviceIndex, bytes, 'workspace');
  const capture = capturing(deviceIndex);
  if (capture === undefined) old?.release();
  else capture.adopt(storage);
  return storage;
}

/** Inside a capture outside the graph: a replay finds them zeroed by the one before. */
function zeroFill(counters: Storage, count: number): void {
  if (counters.deviceIndex < 0) native().host.fill(counters.use(), 0, 4 * count);
  else {
    const stream = capturing(counters.deviceIndex)?.sideStream ?? currentStreamObject(counters.deviceIndex).ptr;
    native().cuda.memset(counters.use(), 0, 4, count, stream);
  }
}

/** The cpu's scratch needs an object as key too. */
const cpu = {};

function scratchOf(deviceIndex: number): Scratch {
  const owner = deviceIndex < 0 ? cpu : ownerOf(deviceIndex);
  let scratch = scratches.get(owner);
  if (scratch === undefined) {
    scratch = { workspace: undefined, counters: undefined };
    scratches.set(owner, scratch);
  }
  return scratch;
}

/** A capture on several streams: each needs its own, and none may be one that eager work uses. */
function ownerOf(deviceIndex: number): object {
  const stream = currentStreamObject(deviceIndex);
  return capturing(deviceIndex)?.scratchOwner(stream) ?? stream;
}

function capturing(deviceIndex: number): Capture | undefined {
  const capture = activeCapture();
  return capture?.stream.deviceIndex === deviceIndex ? capture : undefined;
}
