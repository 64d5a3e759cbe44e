// SPDX-License-Identifier: Apache-2.0
// Elementwise operations under tensor creation, copies and dtype changes. They trust their callers: shapes, dtypes and
// devices were checked. Tensors without elements are no-ops. src and dst live on the same device and do not overlap.
import { UnsupportedError } from '../errors.ts';
import { getKernel } from '../jit/kernel.ts';
import type { KernelSpec } from '../jit/spec.ts';
import { native, toFlashInferError } from '../native/load.ts';
import { currentStream } from '../runtime/stream.ts';
import { type CopyPlan, planCopy } from './copyPlan.ts';
import { dtypes } from './dtype.ts';
import {
  arangeSpec,
  blockThreads,
  castSpec,
  castVec,
  copySpec,
  copyTile,
  fillWordsSpec,
  itemsPerThread,
  maxCopyRank,
  randomSpec,
} from './elementwiseKernels.ts';
import type { Tensor } from './tensor.ts';
import { copyWithin } from './transfer.ts';

export { elementwiseModelSpecs, elementwiseSpecs } from './elementwiseKernels.ts';

/**
 * dst[i] = src[i] in dst's dtype, both contiguous and of one size. One rounding: floats to nearest even (float8_e4m3fn
 * saturates, the others overflow to infinity); float to integer truncates, saturates, and gives 0 for NaN; integers wrap;
 * bool is 1 unless zero.
 */
export function castContiguous(src: Tensor, dst: Tensor): void {
  const count = dst.size;
  if (count === 0) return;
  if (dst.deviceIndex < 0) {
    const srcDtype = dtypes[src.dtype].code;
    native().cpu.cast({ src: src.ptr, srcDtype, dst: dst.ptr, dstDtype: dtypes[dst.dtype].code, count });
  } else if (src.dtype === dst.dtype) {
    copyWithin(dst.deviceIndex, dst.ptr, src.ptr, dst.byteLength, 'cast');
  } else {
    const wide = castVec(src.dtype, dst.dtype);
    const aligned = isAligned(src, wide) && isAligned(dst, wide);
    const vec = aligned ? wide : 1;
    const blocks = Math.max(1, Math.ceil(Math.floor(count / vec) / (blockThreads * itemsPerThread)));
    launch(castSpec(src.dtype, dst.dtype, vec), dst, blocks, { dst: dst.ptr, src: src.ptr, count });
  }
}

/**
 * dst = src, same shape and dtype, any strides of either (0 only in src).
 * @throws {UnsupportedError} more than 8 dimensions are left after merging those that are contiguous in both
 */
export function copyStrided(src: Tensor, dst: Tensor): void {
  if (dst.size === 0) return;
  const elementBytes = dtypes[dst.dtype].bytes;
  const [srcPtr, dstPtr] = [src.ptr, dst.ptr];
  const onCpu = dst.deviceIndex < 0;
  const maxUnitBytes = onCpu ? 8 : 16;
  const plan = planCopy(dst.shape, src.strides, dst.strides, { elementBytes, maxUnitBytes, srcPtr, dstPtr });
  if (plan.shape.length > maxCopyRank) {
    throw new UnsupportedError(
      'ERR_FLASHINFER_INVALID_RANK',
      `copy: src has ${plan.shape.length} dimensions that cannot be merged; expected at most ${maxCopyRank}; ` +
        'reshape it, or copy slices of it',
    );
  }
  if (onCpu) {
    native().cpu.stridedCopy({
      src: srcPtr,
      dst: dstPtr,
      elementBytes: plan.unitBytes,
      shape: [...plan.shape],
      srcStrides: [...plan.srcStrides],
      dstStrides: [...plan.dstStrides],
    });
  } else if (plan.kind === 'contiguous') {
    copyWithin(dst.deviceIndex, dstPtr, srcPtr, dst.byteLength, 'copy');
  } else {
    copyOnCuda(plan, src, dst);
  }
}

function copyOnCuda(plan: CopyPlan, src: Tensor, dst: Tensor): void {
  const { kind, shape } = plan;
  const rank = shape.length;
  // Unsigned indices also count past the end, up to one block.
  const wide = plan.count > 2 ** 32 - blockThreads * itemsPerThread;
  let items = plan.count;
  if (kind === 'transposed') {
    items = shape.reduce((product, size, d) => product * (d < rank - 2 ? size : Math.ceil(size / copyTile)), 1);
  }
  const args: Record<string, number> = { dst: dst.ptr, src: src.ptr, count: items };
  for (let d = 0; d < maxCopyRank; d++) {
    args[`shape${d}`] = shape[d] ?? 1;
    args[`src_stride${d}`] = plan.srcStrides[d] ?? 0;
    args[`dst_stride${d}`] = plan.dstStrides[d] ?? 0;
  }
  const transposed = kind === 'transposed';
  const blocks = transposed ? items : Math.ceil(items / (blockThreads * itemsPerThread));
  launch(copySpec(transposed ? 'transposed' : 'rows', plan.unitBytes, rank, wide), dst, blocks, args);
}

/** Every element = `value`, rounded once from float64; a bigint converts as an int64. dst is contiguous. */
export function fillValue(dst: Tensor, value: number | bigint): void {
  const count = dst.size;
  if (count === 0) return;
  const { code, bytes } = dtypes[dst.dtype];
  if (dst.deviceIndex < 0) {
    native().cpu.fill({ dst: dst.ptr, dtype: code, count, value });
    return;
  }
  const pattern = elementBits(code, value);
  const low = Number(pattern & 0xffffffffn);
  if (bytes !== 8) {
    memset(dst, low, bytes, count);
  } else if (pattern >> 32n === BigInt(low)) {
    memset(dst, low, 4, 2 * count);
  } else {
    launch(fillWordsSpec(), dst, Math.ceil(count / blockThreads), { dst: dst.ptr, count, value: pattern });
  }
}

function memset(dst: Tensor, value: number, bytes: 1 | 2 | 4, count: number): void {
  try {
    native().cuda.memset(dst.ptr, value, bytes, count, currentStream(dst.deviceIndex));
  } catch (error) {
    throw toFlashInferError(error, 'fill');
  }
}

/** Element i = start + i * step, in float64 and rounded once. dst is contiguous. */
export function fillArange(dst: Tensor, start: number, step: number): void {
  const count = dst.size;
  if (count === 0) return;
  if (dst.deviceIndex < 0) {
    native().cpu.arange({ dst: dst.ptr, dtype: dtypes[dst.dtype].code, count, start, step });
  } else {
    launch(arangeSpec(dst.dtype), dst, Math.ceil(count / blockThreads), { dst: dst.ptr, count, start, step });
  }
}

/**
 * Uniform in [0, 1), a multiple of the dtype's precision just below 1, so that no dtype rounds to 1. Element i depends
 * on (seed, i) only: the same bits on every device. dst is contiguous and of a floating dtype.
 */
export function fillUniform(dst: Tensor, seed: bigint): void {
  fillRandom('uniform', dst, seed);
}

/** Standard normal in float32, then rounded to the dtype; otherwise as {@link fillUniform}. */
export function fillNormal(dst: Tensor, seed: bigint): void {
  fillRandom('normal', dst, seed);
}

function fillRandom(distribution: 'uniform' | 'normal', dst: Tensor, seed: bigint): void {
  const count = dst.size;
  if (count === 0) return;
  if (dst.deviceIndex < 0) {
    const args = { dst: dst.ptr, dtype: dtypes[dst.dtype].code, count, seed };
    if (distribution === 'uniform') native().cpu.randomUniform(args);
    else native().cpu.randomNormal(args);
    return;
  }
  const vec = isAligned(dst, 4) ? 4 : 1;
  const blocks = Math.ceil(Math.ceil(count / 4) / blockThreads);
  const args = { dst: dst.ptr, count, seed: BigInt.asUintN(64, seed) };
  launch(randomSpec(distribution, dst.dtype, vec), dst, blocks, args);
}

function isAligned(tensor: Tensor, elements: number): boolean {
  return tensor.ptr % (elements * dtypes[tensor.dtype].bytes) === 0;
}

function launch(spec: KernelSpec, dst: Tensor, blocks: number, args: Record<string, number | bigint>): void {
  const stream = currentStream(dst.deviceIndex);
  getKernel(spec, dst.deviceIndex).launch([blocks, 1, 1], args, { stream });
}

let scratch: number | undefined;

/** The bits of one element, little-endian, converted by the same code that fills on the cpu. */
function elementBits(dtype: number, value: number | bigint): bigint {
  const { host, cpu } = native();
  // Lives as long as the environment, which frees its host memory.
  scratch ??= host.alloc(8);
  host.fill(scratch, 0, 8);
  cpu.fill({ dst: scratch, dtype, count: 1, value });
  const bytes = new Uint8Array(8);
  host.read(scratch, bytes);
  return new DataView(bytes.buffer).getBigUint64(0, true);
}
