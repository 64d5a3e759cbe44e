// SPDX-License-Identifier: Apache-2.0
// Bytes that are zero or not → bits, without checks: what packbits and custom masks run.
import { getKernel } from '../jit/kernel.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { native } from '../native/load.ts';
import { currentStream } from '../runtime/stream.ts';
import type { Tensor } from '../tensor/tensor.ts';

/** Which bit of its byte the first of eight elements becomes: the highest or the lowest. */
export type BitOrder = 'big' | 'little';

/** First elements of the segments, and their first bytes: int32 `[numSegments + 1]`, on the tensors' device. */
export interface PackSegments {
  readonly src: Tensor;
  readonly dst: Tensor;
}

const threads = 256;

const params: readonly ParamField[] = [
  { name: 'src', type: 'ptr' },
  { name: 'dst', type: 'ptr' },
  { name: 'count', type: 'i64' },
  { name: 'bytes', type: 'i64' },
  { name: 'src_indptr', type: 'ptr' },
  { name: 'dst_indptr', type: 'ptr' },
  { name: 'segments', type: 'i32' },
];

function makeSpec(order: BitOrder, segmented: boolean): KernelSpec {
  return {
    name: `${segmented ? 'segment_' : ''}packbits_${order}`,
    header: 'flashinfer/pack_bits.cuh',
    entry: `flashinfer::pack_bits<flashinfer::PackBitsConfig<${order === 'big'}, ${segmented}>>`,
    params,
    threads,
  };
}

const wholeSpecs = { big: makeSpec('big', false), little: makeSpec('little', false) };
const segmentSpecs = { big: makeSpec('big', true), little: makeSpec('little', true) };

/** Every kernel of this file, for prebuilt kernels and compile checks. */
export function packBitsSpecs(): KernelSpec[] {
  return [...Object.values(wholeSpecs), ...Object.values(segmentSpecs)];
}

/** src: contiguous, one byte an element; dst: uint8, contiguous; on one device. */
export function packBits(src: Tensor, dst: Tensor, order: BitOrder, segments?: PackSegments): void {
  if (dst.size === 0) return;
  const srcIndptr = segments?.src.ptr ?? 0;
  const dstIndptr = segments?.dst.ptr ?? 0;
  const numSegments = segments === undefined ? 0 : segments.src.size - 1;
  const { deviceIndex } = dst;
  if (deviceIndex < 0) {
    native().cpu.packBits(src.ptr, dst.ptr, src.size, order === 'big', srcIndptr, dstIndptr, numSegments);
    return;
  }
  const args = {
    src: src.ptr,
    dst: dst.ptr,
    count: src.size,
    bytes: dst.size,
    src_indptr: srcIndptr,
    dst_indptr: dstIndptr,
    segments: numSegments,
  };
  const spec = (segments === undefined ? wholeSpecs : segmentSpecs)[order];
  const grid = [Math.ceil(dst.size / threads), 1, 1] as const;
  getKernel(spec, deviceIndex).launch(grid, args, { stream: currentStream(deviceIndex) });
}
