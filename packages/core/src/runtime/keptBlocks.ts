// SPDX-License-Identifier: Apache-2.0
// Freed device memory that waits for the next tensor of its size on the same stream. A free and an allocation by the
// driver's pool are work in the stream: on an H200 they delay what follows by 0.9 us, as long as a small kernel takes, and
// large ones now and then by 50.
import type { Ptr } from '../native/binding.ts';
import { native } from '../native/load.ts';
import { deviceProperties } from './device.ts';

/** What a thread keeps of a device's memory at most, 560 MiB of an H200's, and of that in one block. */
const keptShare = 1 / 256;
const blockShare = 1 / 4;

/** What the pool aligns blocks to: sizes that differ by less are the same. */
const granule = 512;

interface StreamBlocks {
  readonly deviceIndex: number;
  /** Addresses by size. */
  readonly sizes: Map<number, Ptr[]>;
}

const streams = new Map<Ptr, StreamBlocks>();
/** By device. */
const keptBytes: number[] = [];

/** Bytes to ask the pool for, so that the block serves all tensors of its size class. */
export function blockBytes(bytes: number): number {
  return Math.ceil(bytes / granule) * granule;
}

/** A block that was freed on `stream`, whose next use there comes after its last: nobody waits. */
export function takeKept(stream: Ptr, bytes: number): Ptr | undefined {
  const blocks = streams.get(stream);
  if (blocks === undefined) return undefined;
  const size = blockBytes(bytes);
  const address = blocks.sizes.get(size)?.pop();
  if (address !== undefined) keptBytes[blocks.deviceIndex]! -= size;
  return address;
}

/** Keeps a block for a later {@link takeKept}, unless it is large; then the caller frees it. Others make room for it. */
export function keepBlock(deviceIndex: number, stream: Ptr, bytes: number, address: Ptr): boolean {
  const size = blockBytes(bytes);
  const most = deviceProperties(deviceIndex).totalMemory * keptShare;
  if (size > most * blockShare) return false;
  keptBytes[deviceIndex] ??= 0;
  if (keptBytes[deviceIndex]! + size > most) makeRoom(deviceIndex, most - size);
  let blocks = streams.get(stream);
  if (blocks === undefined) {
    blocks = { deviceIndex, sizes: new Map() };
    streams.set(stream, blocks);
  }
  const addresses = blocks.sizes.get(size);
  if (addresses === undefined) blocks.sizes.set(size, [address]);
  else addresses.push(address);
  keptBytes[deviceIndex]! += size;
  return true;
}

/** Frees what is kept on a device, the first sizes first, down to `most` bytes. Sizes that are in use come back behind the others. */
function makeRoom(deviceIndex: number, most: number): void {
  for (const [stream, blocks] of streams) {
    if (blocks.deviceIndex !== deviceIndex) continue;
    for (const [size, addresses] of blocks.sizes) {
      if (keptBytes[deviceIndex]! <= most) return;
      blocks.sizes.delete(size);
      freeAll(deviceIndex, stream, size, addresses);
    }
  }
}

function freeAll(deviceIndex: number, stream: Ptr, size: number, addresses: readonly Ptr[]): void {
  for (const address of addresses) {
    keptBytes[deviceIndex]! -= size;
    native().cuda.memFree(deviceIndex, address, stream);
  }
}

/** Frees what is kept for a stream, before it is destroyed. */
export function releaseStreamBlocks(stream: Ptr): void {
  const blocks = streams.get(stream);
  if (blocks === undefined) return;
  streams.delete(stream);
  for (const [size, addresses] of blocks.sizes) freeAll(blocks.deviceIndex, stream, size, addresses);
}

/** Frees all that is kept on a device; whether there was anything. */
export function releaseDeviceBlocks(deviceIndex: number): boolean {
  if (!keptBytes[deviceIndex]) return false;
  makeRoom(deviceIndex, 0);
  return true;
}
