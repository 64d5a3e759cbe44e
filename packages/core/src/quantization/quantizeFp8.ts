// SPDX-License-Identifier: Apache-2.0
import { Checker } from '../check/checker.ts';
import { describeValue } from '../check/describeValue.ts';
import { checkSeparate } from '../check/overlap.ts';
import { logCall } from '../logging.ts';
import { empty, full, ones } from '../tensor/create.ts';
import type { DType } from '../tensor/dtype.ts';
import { rowStride } from '../tensor/rowStride.ts';
import { Tensor } from '../tensor/tensor.ts';
import { fp8BlockSize } from './fp8Kernel.ts';
import { type Fp8Scheme, runQuantizeFp8 } from './runFp8.ts';

export type Fp8DType = 'float8_e4m3fn' | 'float8_e5m2';

/**
 * How the scales of blocks lie in memory: `'K'`, rows of blocks as x has rows, or `'MN'`, the transpose, as some matrix
 * products load them.
 */
export type ScaleMajorMode = 'K' | 'MN';

/** Options of the functions that quantise to fp8. */
export interface QuantizeFp8Options {
  /** Of the result. Default `'float8_e4m3fn'`. */
  dtype?: Fp8DType;
  /** Use these scales, shaped as the returned ones, instead of making them from x. */
  scale?: Tensor;
  /** Where to write, shape as x, dtype fp8, may be strided. Default: a new tensor. */
  out?: Tensor;
}

export interface QuantizeFp8PerTensorOptions extends Omit<QuantizeFp8Options, 'scale'> {
  /** A number above 0, or a float32 tensor `[1]`, instead of one made from x. */
  scale?: Tensor | number;
}

export interface QuantizeFp8PerBlockOptions extends QuantizeFp8Options {
  /** Rows and columns that share a scale: `[1, 128]`, as of activations, or `[128, 128]`, as of weights. Default [1, 128]. */
  blockShape?: readonly [1 | 128, 128];
  /** Default `'K'`. */
  scaleMajorMode?: ScaleMajorMode;
}

const optionNames: readonly string[] = ['dtype', 'scale', 'out'];
const blockOptionNames: readonly string[] = [...optionNames, 'blockShape', 'scaleMajorMode'];
const floats: readonly DType[] = ['float16', 'bfloat16', 'float32'];
const fp8Types: readonly Fp8DType[] = ['float8_e4m3fn', 'float8_e5m2'];
export const scaleMajorModes: readonly ScaleMajorMode[] = ['K', 'MN'];
const maxCount = 2 ** 31 - 1;

/**
 * Quantises to fp8 with one scale: q = fp8(x / scale), saturated, where scale is the largest finite |x| divided by the
 * largest value of the dtype (448 or 57344), 1 if x is zero. Infinities saturate too; NaN stays NaN.
 * @param x `[..., length]` float16 | bfloat16 | float32; last dimension contiguous, rows at one distance
 * @param options see {@link QuantizeFp8PerTensorOptions}
 * @returns `[q, scale]`: q as x, fp8; scale float32 `[1]`; x ≈ q · scale
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride, scale or option
 * @remarks Asynchronous on the current stream; the same call gives the same bits on any device.
 * @see FlashInfer `quantize_fp8`; arXiv:2209.05433
 * @example
 * ```ts
 * import { dequantizeFp8, quantizeFp8PerTensor, randn } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16' });
 * const [q, scale] = quantizeFp8PerTensor(x); // [8, 4096] float8_e4m3fn, [1] float32
 * const y = dequantizeFp8(q, scale, { dtype: 'bfloat16' });
 * ```
 */
export function quantizeFp8PerTensor(x: Tensor, options: QuantizeFp8PerTensorOptions = {}): [q: Tensor, scale: Tensor] {
  const check = checkInput('quantizeFp8PerTensor', x, options, optionNames);
  const { scale } = options;
  if (typeof scale === 'number' && !(scale > 0 && scale < Infinity)) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SCALE',
      `scale is ${scale}; expected a finite number above 0 or a float32 tensor with one element; leave it out to ` +
        'have it made from x',
    );
  }
  // A scale of its own device and dtype; made before the shapes are compared, so that both are checked alike.
  const given = typeof scale === 'number' ? full([1], scale, { device: x.device }) : scale;
  return quantize(check, 'tensor', x, { ...options, scale: given }, [1], 0, 0);
}

/**
 * As {@link quantizeFp8PerTensor} with a scale of its own for each row of the last dimension: each token.
 * @param x `[..., length]` float16 | bfloat16 | float32; last dimension contiguous, rows at one distance
 * @param options see {@link QuantizeFp8Options}
 * @returns `[q, scale]`: q as x, fp8; scale float32 `[...]`, the shape of x without its last dimension
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride, scale or option
 * @remarks Asynchronous on the current stream; the same call gives the same bits on any device.
 * @example
 * ```ts
 * import { quantizeFp8PerToken, randn } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16' });
 * const [q, scale] = quantizeFp8PerToken(x); // [8, 4096] float8_e4m3fn, [8] float32
 * ```
 */
export function quantizeFp8PerToken(x: Tensor, options: QuantizeFp8Options = {}): [q: Tensor, scale: Tensor] {
  const check = checkInput('quantizeFp8PerToken', x, options, optionNames);
  return quantize(check, 'token', x, options, x.shape.slice(0, -1), 1, 0);
}

/**
 * As {@link quantizeFp8PerTensor} with a scale for each 128 columns of a row, or of 128 rows: the scaling of DeepSeek-V3.
 * Blocks at the ends of x may be smaller.
 * @param x `[m, k]` float16 | bfloat16 | float32; last dimension contiguous
 * @param options see {@link QuantizeFp8PerBlockOptions}
 * @returns `[q, scale]`: q as x, fp8; scale float32 `[ceil(m / blockShape[0]), ceil(k / 128)]`, or with
 *   `scaleMajorMode: 'MN'` its transpose, `[ceil(k / 128), ceil(m / blockShape[0])]`; contiguous
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride, scale or option
 * @remarks Asynchronous on the current stream; the same call gives the same bits on any device.
 * @see FlashInfer `quantize_fp8`, and `scale_major_mode` of `gemm_fp8_nt_groupwise`; arXiv:2412.19437
 * @example
 * ```ts
 * import { quantizeFp8PerBlock, randn } from '@flashinfer/core';
 *
 * const [a, aScale] = quantizeFp8PerBlock(randn([8, 4096])); // [8, 4096], [8, 32]
 * const [b, bScale] = quantizeFp8PerBlock(randn([512, 4096]), { blockShape: [128, 128] }); // [512, 4096], [4, 32]
 * ```
 */
export function quantizeFp8PerBlock(x: Tensor, options: QuantizeFp8PerBlockOptions = {}): [q: Tensor, scale: Tensor] {
  const check = checkInput('quantizeFp8PerBlock', x, options, blockOptionNames);
  check.tensor('x', x, ['m', 'k']).oneOf('scaleMajorMode', options.scaleMajorMode, scaleMajorModes);
  const blockRows = readBlockRows(check, options.blockShape);
  const rows = Math.ceil(x.shape[0]! / blockRows);
  const columns = Math.ceil(x.shape[1]! / fp8BlockSize);
  const scheme = blockRows === 1 ? 'group' : 'block';
  if (options.scaleMajorMode === 'MN') return quantize(check, scheme, x, options, [columns, rows], 1, rows);
  return quantize(check, scheme, x, options, [rows, columns], columns, 1);
}

function readBlockRows(check: Checker, blockShape: unknown): number {
  if (blockShape === undefined) return 1;
  const [rows, columns] = Array.isArray(blockShape) && blockShape.length === 2 ? blockShape : [];
  if ((rows === 1 || rows === fp8BlockSize) && columns === fp8BlockSize) return rows;
  throw check.error(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `blockShape is ${describeValue(blockShape)}; expected [1, 128] or [128, 128]; pass one of these`,
  );
}

function checkInput(
  name: string,
  x: Tensor,
  options: QuantizeFp8PerTensorOptions,
  allowed: readonly string[],
): Checker {
  const check = new Checker(name);
  const rank = x instanceof Tensor ? x.rank : 1;
  const dims = new Array<string>(Math.max(rank, 1)).fill('*');
  check.tensor('x', x, dims, { dtypes: floats, lastDimContiguous: true }).options(options, allowed);
  check.oneOf('dtype', options.dtype, fp8Types, 'ERR_FLASHINFER_INVALID_DTYPE');
  const length = x.shape[rank - 1]!;
  if (length > maxCount || x.size / Math.max(length, 1) > maxCount) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `x has shape [${x.shape.join(', ')}]; expected at most ${maxCount} rows and columns; call it on slices of x`,
    );
  }
  return check;
}

function quantize(
  check: Checker,
  scheme: Fp8Scheme,
  x: Tensor,
  options: QuantizeFp8Options,
  scaleShape: readonly number[],
  scaleStrideR: number,
  scaleStrideC: number,
): [Tensor, Tensor] {
  const { shape, device } = x;
  const { scale: given, dtype = 'float8_e4m3fn' } = options;
  if (options.out !== undefined) {
    check.tensor('out', options.out, shape, { dtypes: options.dtype ? [dtype] : fp8Types, lastDimContiguous: true });
    checkSeparate(check.functionName, 'out', options.out, 'x', x);
  }
  if (given !== undefined) {
    check.tensor('scale', given, scaleShape, { dtypes: ['float32'], contiguous: true });
    if (options.out !== undefined) checkSeparate(check.functionName, 'out', options.out, 'scale', given);
  }
  const xStride = rowDistance(check, 'x', x);
  logCall(check.functionName, { x, options });
  const out = options.out ?? empty(shape, { dtype, device });
  const outStride = rowDistance(check, 'out', out);
  if (x.size === 0) return [out, given ?? ones(scaleShape, { device })];
  const scale = given ?? empty(scaleShape, { device });
  const call = { scheme, x, out, xStride, outStride, scale, scaleStrideR, scaleStrideC };
  runQuantizeFp8({ ...call, ...rowsOf(call) }, given !== undefined);
  return [out, scale];
}

/** Rows and their length; a whole tensor without gaps is one row. */
function rowsOf(call: { scheme: Fp8Scheme; x: Tensor; out: Tensor }): { rows: number; length: number } {
  const { scheme, x, out } = call;
  if (scheme === 'tensor' && x.isContiguous && out.isContiguous && x.size <= maxCount) {
    return { rows: 1, length: x.size };
  }
  const length = x.shape[x.rank - 1]!;
  return { rows: x.size / length, length };
}

export function rowDistance(check: Checker, name: string, tensor: Tensor): number {
  const stride = rowStride(tensor.shape, tensor.strides);
  if (stride !== undefined) return stride;
  throw check.error(
    'ERR_FLASHINFER_NON_CONTIGUOUS',
    `${name} has strides [${tensor.strides.join(', ')}] for shape [${tensor.shape.join(', ')}]; expected rows at one ` +
      `distance from each other; copy it with ${name}.contiguous()`,
  );
}
