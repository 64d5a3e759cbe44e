// SPDX-License-Identifier: Apache-2.0
import type { Ptr } from '../native/binding.ts';
import { activeCapture } from './capture.ts';
import { allocBlock, type Block, freeBlock, noteUse } from './memory.ts';
import { currentStreamObject } from './stream.ts';

/**
 * Memory shared by a tensor and its views. Each holder releases its share; the last one frees. Where a holder is lost
 * to the garbage collector instead, the storage becomes unreachable with it, and the finaliser frees.
 */
export class Storage {
  readonly deviceIndex: number;
  readonly bytes: number;
  private readonly block: Block;
  private shares = 1;

  constructor(deviceIndex: number, bytes: number, caller: string) {
    this.deviceIndex = deviceIndex;
    this.bytes = bytes;
    this.block = allocBlock(deviceIndex, bytes, caller);
    abandonedBlocks.register(this, this.block, this);
  }

  /**
   * Address for work on the current stream. Remembers which streams use the memory: it is freed, in stream order,
   * after the last of them, and a graph that uses it keeps it.
   */
  use(): Ptr {
    const block = this.block;
    if (this.deviceIndex >= 0) {
      const stream = currentStreamObject(this.deviceIndex);
      if (stream !== block.stream) noteUse(block, stream);
      const capture = activeCapture();
      if (capture !== undefined) capture.retain(this);
    }
    return block.address;
  }

  retain(): void {
    this.shares++;
  }

  release(): void {
    if (--this.shares > 0) return;
    abandonedBlocks.unregister(this);
    freeBlock(this.block);
  }

  /** For a graph that was launched on `stream`. */
  noteUse(stream: Parameters<typeof noteUse>[1]): void {
    if (stream !== this.block.stream) noteUse(this.block, stream);
  }
}

const abandonedBlocks = new FinalizationRegistry<Block>((block) => {
  try {
    freeBlock(block);
  } catch {
    // A finaliser has nobody to tell; the block goes with the thread.
  }
});
