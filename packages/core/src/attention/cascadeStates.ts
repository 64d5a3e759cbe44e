// SPDX-License-Identifier: Apache-2.0
// What the levels of a cascade leave for the merge, and what the merge reads besides.
import { native } from '../native/load.ts';
import { type Device, deviceIndex } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { empty } from '../tensor/create.ts';
import type { DType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';

/** Of a plan. */
export interface StateShape {
  readonly numTokens: number;
  readonly numQoHeads: number;
  readonly headDimVo: number;
  readonly dtype: DType;
}

/** Outputs and log-sum-exps of all levels. They stay where they are until a plan needs more; for graphs, always. */
export class CascadeStates {
  /** `[capacity, numLevels, ...]` with the levels apart, so that each writes a contiguous part. */
  readonly v: Tensor;
  readonly s: Tensor;
  /** int32 `[numLevels, capacity]`: what RoPE or ALiBi are off by. */
  readonly shifts: Tensor;
  readonly capacity: number;
  private readonly numLevels: number;
  private readonly parts: { readonly out: Tensor; readonly lse: Tensor }[] = [];

  constructor(numLevels: number, device: Device, capacity: number, shape: StateShape) {
    const { numQoHeads, headDimVo, dtype } = shape;
    this.numLevels = numLevels;
    this.capacity = capacity;
    using v = empty([numLevels, capacity, numQoHeads, headDimVo], { dtype, device });
    using s = empty([numLevels, capacity, numQoHeads], { dtype: 'float32', device });
    this.v = v.transpose(0, 1);
    this.s = s.transpose(0, 1);
    this.shifts = empty([numLevels, capacity], { dtype: 'int32', device });
  }

  fits({ numTokens, numQoHeads, headDimVo, dtype }: StateShape): boolean {
    const { shape } = this.v;
    return this.capacity >= numTokens && shape[2] === numQoHeads && shape[3] === headDimVo && this.v.dtype === dtype;
  }

  /** Makes the views of the planned rows, once a plan. */
  cut(numTokens: number): void {
    this.releaseParts();
    for (let level = 0; level < this.numLevels; ++level) {
      using out = this.v.select(1, level);
      using lse = this.s.select(1, level);
      this.parts.push({ out: out.slice(0, 0, numTokens), lse: lse.slice(0, 0, numTokens) });
    }
  }

  /** Where a level's run writes. */
  part(level: number): { readonly out: Tensor; readonly lse: Tensor } {
    return this.parts[level]!;
  }

  writeShifts(levels: readonly Int32Array[]): void {
    const words = new Int32Array(this.numLevels * this.capacity);
    for (const [level, each] of levels.entries()) words.set(each, level * this.capacity);
    writeWords(this.shifts, words);
  }

  dispose(): void {
    this.releaseParts();
    for (const tensor of [this.v, this.s, this.shifts]) tensor.dispose();
  }

  private releaseParts(): void {
    for (const { out, lse } of this.parts.splice(0)) {
      out.dispose();
      lse.dispose();
    }
  }
}

/** In stream order; the words may change as soon as this returns. */
export function writeWords(target: Tensor, words: Int32Array): void {
  const bytes = new Uint8Array(words.buffer);
  const index = deviceIndex(target.device);
  if (index < 0) native().host.write(target.ptr, bytes);
  else native().cuda.write(index, target.ptr, bytes, currentStream(index));
}
