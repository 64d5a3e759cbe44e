// SPDX-License-Identifier: Apache-2.0
// Blocks of host and device memory, freed in stream order, and their account.
import { CudaError, FlashInferError } from '../errors.ts';
import type { Ptr } from '../native/binding.ts';
import { native, toFlashInferError } from '../native/load.ts';
import { activeCapture } from './capture.ts';
import { cudaDevice, type Device, defaultDevice, deviceIndex, deviceOf, parseDevice } from './device.ts';
import { blockBytes, keepBlock, releaseDeviceBlocks, takeKept } from './keptBlocks.ts';
import { currentStreamObject, defaultStreamObject, orderAfter, type Stream } from './stream.ts';

/** Memory of one tensor and its views. Refers to no tensor, so that it can be a finaliser's held value. */
export interface Block {
  readonly address: Ptr;
  readonly bytes: number;
  /** -1: host memory. */
  readonly deviceIndex: number;
  /** Where it was allocated; undefined on the host. */
  readonly stream: Stream | undefined;
  /** Other streams that used it; work there must be done before the memory is. */
  users: Stream[] | undefined;
  freed: boolean;
}

interface Account {
  allocatedBytes: number;
  peakBytes: number;
  blocks: number;
}

/** Index + 1, so that the host is 0. */
const accounts: Account[] = [];

function accountOf(index: number): Account {
  accounts[index + 1] ??= { allocatedBytes: 0, peakBytes: 0, blocks: 0 };
  return accounts[index + 1]!;
}

/** Allocates on the current stream; during a capture, outside of it. An empty block has address 0. */
export function allocBlock(index: number, bytes: number, caller: string): Block {
  if (bytes === 0) return blockAt(0, bytes, index);
  try {
    const block = index < 0 ? allocHost(bytes, caller) : allocDevice(index, bytes, caller);
    const account = accountOf(index);
    account.blocks++;
    account.allocatedBytes += bytes;
    if (account.allocatedBytes > account.peakBytes) account.peakBytes = account.allocatedBytes;
    return block;
  } catch (error) {
    throw toFlashInferError(error, caller);
  }
}

function blockAt(address: Ptr, bytes: number, deviceIndex: number, stream?: Stream): Block {
  return { address, bytes, deviceIndex, stream, users: undefined, freed: false };
}

function allocHost(bytes: number, caller: string): Block {
  return blockAt(hostAddress(bytes, caller), bytes, -1);
}

function hostAddress(bytes: number, caller: string): Ptr {
  try {
    return native().host.alloc(bytes);
  } catch (cause) {
    const { code } = toFlashInferError(cause, caller);
    if (code !== 'ERR_FLASHINFER_OUT_OF_MEMORY') throw cause;
    const held = accountOf(-1).allocatedBytes;
    throw new CudaError(
      code,
      `${caller}: no memory on the cpu for ${bytes} bytes, besides the ${held} of other tensors; expected as many free; dispose of ` +
        'tensors, or work on parts',
      { cause },
    );
  }
}

function allocDevice(index: number, bytes: number, caller: string): Block {
  cudaDevice(index, caller);
  const capture = activeCapture();
  const captured = capture !== undefined && capture.stream.deviceIndex === index;
  const stream = captured ? capture.stream : currentStreamObject(index);
  const address = deviceAddress(index, bytes, captured ? capture.sideStream : stream.ptr);
  return blockAt(address, bytes, index, stream);
}

function deviceAddress(index: number, bytes: number, stream: Ptr): Ptr {
  const kept = takeKept(stream, bytes);
  if (kept !== undefined) return kept;
  const size = blockBytes(bytes);
  try {
    return native().cuda.memAlloc(index, size, stream);
  } catch (error) {
    if (!releaseDeviceBlocks(index)) throw error;
    return native().cuda.memAlloc(index, size, stream);
  }
}

/** Notes that work of `stream`, not the block's own, uses the block. */
export function noteUse(block: Block, stream: Stream): void {
  if (block.users === undefined) block.users = [stream];
  else if (!block.users.includes(stream)) block.users.push(stream);
}

/** Frees once all work that was given the block is done; the caller does not wait. */
export function freeBlock(block: Block): void {
  if (block.address === 0) return;
  const capture = activeCapture();
  if (capture !== undefined && block.deviceIndex >= 0) {
    capture.deferredFrees.push(() => freeBlock(block));
    return;
  }
  // Memory that is kept twice would be two tensors' at once.
  if (block.freed) {
    throw new FlashInferError('ERR_FLASHINFER_INTERNAL', `memory at ${block.address} is freed twice; please report`);
  }
  block.freed = true;
  const account = accountOf(block.deviceIndex);
  account.blocks--;
  account.allocatedBytes -= block.bytes;
  if (block.deviceIndex < 0) native().host.free(block.address);
  else freeDevice(block);
}

function freeDevice(block: Block): void {
  const { deviceIndex: index, address, bytes } = block;
  const stream = freeStream(block);
  // Nothing is ever allocated on the stream that reclaims.
  if (stream !== reclaimStreams[index] && keepBlock(index, stream, bytes, address)) return;
  native().cuda.memFree(index, address, stream);
}

/** One a device: waits for several streams without holding any of them up. */
const reclaimStreams: Ptr[] = [];

function freeStream(block: Block): Ptr {
  const { deviceIndex: index, stream, users } = block;
  const own = lastStream(stream!);
  const others = users?.map(lastStream).filter((other) => other !== own);
  if (others === undefined || others.length === 0) return own.ptr;
  reclaimStreams[index] ??= native().cuda.streamCreate(index, 0);
  const reclaim = reclaimStreams[index]!;
  for (const user of new Set([own, ...others])) orderAfter(reclaim, index, user.ptr);
  return reclaim;
}

/** A stream's work passes to the default stream when it is destroyed. */
function lastStream(stream: Stream): Stream {
  return stream.disposed ? defaultStreamObject(stream.deviceIndex) : stream;
}

/** Figures of one device, of this thread's tensors; `pool` is the driver's and counts every thread of the process. */
export interface MemoryStats {
  device: Device;
  /** Bytes of live tensors, and the most there were. */
  allocatedBytes: number;
  peakBytes: number;
  /** Live allocations; views share theirs. */
  blocks: number;
  /**
   * CUDA: bytes the stream-ordered pool holds in use and has reserved, and the GPU's free and total memory. In use are, too,
   * a thread's freed blocks that wait for the next tensors of their sizes, 1/256 of the GPU's memory at most.
   */
  pool?: { usedBytes: number; reservedBytes: number; freeBytes: number; totalBytes: number };
}

/** Memory of a device, by default the default device. */
export function memoryStats(device: string = defaultDevice()): MemoryStats {
  const index = deviceIndex(parseDevice(device));
  const stats: MemoryStats = { device: deviceOf(index), ...accountOf(index) };
  if (index < 0) return stats;
  cudaDevice(index, 'memoryStats');
  try {
    const { free, total, poolUsed, poolReserved } = native().cuda.memInfo(index);
    stats.pool = { usedBytes: poolUsed, reservedBytes: poolReserved, freeBytes: free, totalBytes: total };
    return stats;
  } catch (error) {
    throw toFlashInferError(error, 'memoryStats');
  }
}

/** Starts the peak of a device anew, at what is allocated now. */
export function resetPeakMemoryStats(device: string = defaultDevice()): void {
  const account = accountOf(deviceIndex(parseDevice(device)));
  account.peakBytes = account.allocatedBytes;
}
