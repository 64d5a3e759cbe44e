// SPDX-License-Identifier: Apache-2.0
import { Checker } from '../check/checker.ts';
import { checkSeparate } from '../check/overlap.ts';
import { logCall } from '../logging.ts';
import { empty } from '../tensor/create.ts';
import type { DType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { fp8BlockSize } from './fp8Kernel.ts';
import { rowDistance, type ScaleMajorMode, scaleMajorModes } from './quantizeFp8.ts';
import { type Fp8Scheme, runDequantizeFp8 } from './runFp8.ts';

export interface DequantizeFp8Options {
  /** Of the result. Default `'float32'`. */
  dtype?: 'float16' | 'bfloat16' | 'float32';
  /** Layout of scales of blocks, as of `quantizeFp8PerBlock`. Default `'K'`. */
  scaleMajorMode?: ScaleMajorMode;
  /** Where to write, shape as q, may be strided. Default: a new tensor. */
  out?: Tensor;
}

const optionNames: readonly (keyof DequantizeFp8Options)[] = ['dtype', 'scaleMajorMode', 'out'];
const floats = ['float16', 'bfloat16', 'float32'] as const;
const fp8Types: readonly DType[] = ['float8_e4m3fn', 'float8_e5m2'];
const maxElements = 2 ** 31 - 1;

/**
 * Values of an fp8 tensor: q · scale, rounded once. What a scale is for follows from the shape of `scale`: the whole
 * tensor `[1]`, a row `[...]`, or a block `[ceil(m / 1 or 128), ceil(k / 128)]`, transposed for `scaleMajorMode: 'MN'`.
 * @param q `[..., length]` float8_e4m3fn | float8_e5m2; last dimension contiguous, rows at one distance
 * @param scale float32, contiguous, as the quantising functions return it
 * @param options see {@link DequantizeFp8Options}
 * @returns `out` as q, of `options.dtype`
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @remarks Asynchronous on the current stream.
 * @see FlashInfer `dequantize_fp8`
 * @example
 * ```ts
 * import { dequantizeFp8, quantizeFp8PerBlock, randn } from '@flashinfer/core';
 *
 * const [q, scale] = quantizeFp8PerBlock(randn([8, 4096]), { scaleMajorMode: 'MN' }); // [8, 4096], [32, 8]
 * const x = dequantizeFp8(q, scale, { dtype: 'bfloat16', scaleMajorMode: 'MN' });
 * ```
 */
export function dequantizeFp8(q: Tensor, scale: Tensor, options: DequantizeFp8Options = {}): Tensor {
  const name = 'dequantizeFp8';
  const check = new Checker(name);
  const rank = q instanceof Tensor ? Math.max(q.rank, 1) : 1;
  check.tensor('q', q, new Array<string>(rank).fill('*'), { dtypes: fp8Types, lastDimContiguous: true });
  check.options(options, optionNames).oneOf('dtype', options.dtype, floats, 'ERR_FLASHINFER_INVALID_DTYPE');
  check.oneOf('scaleMajorMode', options.scaleMajorMode, scaleMajorModes);
  if (q.size > maxElements) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `q has ${q.size} elements; expected at most ${maxElements}; call it on slices of q`,
    );
  }
  const scaleDims = new Array<string>(scale instanceof Tensor ? scale.rank : 1).fill('*');
  check.tensor('scale', scale, scaleDims, { dtypes: ['float32'], contiguous: true });
  const placed = placeScales(check, q, scale, options.scaleMajorMode === 'MN');
  const { dtype = 'float32' } = options;
  if (options.out !== undefined) {
    check.tensor('out', options.out, q.shape, { dtypes: options.dtype ? [dtype] : floats, lastDimContiguous: true });
    checkSeparate(name, 'out', options.out, 'q', q);
    checkSeparate(name, 'out', options.out, 'scale', scale);
  }
  const xStride = rowDistance(check, 'q', q);
  logCall(name, { q, scale, options });
  const out = options.out ?? empty(q.shape, { dtype, device: q.device });
  const outStride = rowDistance(check, 'out', out);
  if (q.size > 0) {
    const length = q.shape[rank - 1]!;
    runDequantizeFp8({ ...placed, x: q, out, xStride, outStride, rows: q.size / length, length, scale });
  }
  return out;
}

function placeScales(
  check: Checker,
  q: Tensor,
  scale: Tensor,
  transposed: boolean,
): { scheme: Fp8Scheme; scaleStrideR: number; scaleStrideC: number } {
  const same = (shape: readonly number[]): boolean =>
    shape.length === scale.rank && shape.every((extent, d) => extent === scale.shape[d]);
  if (same([1])) return { scheme: 'tensor', scaleStrideR: 0, scaleStrideC: 0 };
  if (same(q.shape.slice(0, -1))) return { scheme: 'token', scaleStrideR: 1, scaleStrideC: 0 };
  const expected = [`[1]`, `[${q.shape.slice(0, -1).join(', ')}]`];
  if (q.rank === 2) {
    const columns = Math.ceil(q.shape[1]! / fp8BlockSize);
    for (const [scheme, size] of [
      ['group', 1],
      ['block', fp8BlockSize],
    ] as const) {
      const rows = Math.ceil(q.shape[0]! / size);
      const shape = transposed ? [columns, rows] : [rows, columns];
      if (same(shape)) return { scheme, scaleStrideR: transposed ? 1 : columns, scaleStrideC: transposed ? rows : 1 };
      expected.push(`[${shape.join(', ')}]`);
    }
  }
  throw check.error(
    'ERR_FLASHINFER_INVALID_SHAPE',
    `scale has shape [${scale.shape.join(', ')}]; expected ${expected.join(' or ')} for q [${q.shape.join(', ')}]` +
      `; ${q.rank === 2 ? 'pass the scaleMajorMode it was made with' : 'pass the scale that came with q'}`,
  );
}
