// SPDX-License-Identifier: Apache-2.0
import { checkOutput, checkSeparate } from '../check/overlap.ts';
import { logCall } from '../logging.ts';
import { empty } from '../tensor/create.ts';
import type { DType, SameDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import {
  checkLike,
  checkQuantizedOut,
  checkRows,
  checkScale,
  checkVector,
  defaultEps,
  type NormOptions,
} from './checkNorm.ts';
import { runNorm } from './runNorm.ts';

/** Options of `rmsnorm` and `gemmaRmsnorm`. */
export interface RmsnormOptions extends NormOptions {
  /** Where to write, shape and dtype as x, may be x itself or strided. Default: a new tensor. */
  out?: Tensor;
}

const optionNames: readonly (keyof RmsnormOptions)[] = ['eps', 'out', 'enablePdl'];
const quantOptionNames: readonly (keyof NormOptions)[] = ['eps', 'enablePdl'];

/**
 * Root mean square normalisation of each row: out[i] = x[i] / sqrt(mean(x²) + eps) · weight[i].
 * @param x `[numTokens, hiddenSize]`, or `[numTokens, numHeads, headDim]` for the heads of q or k; float16 | bfloat16 |
 *   float32, last dimension contiguous, of 1 to 32768 elements
 * @param weight `[hiddenSize]` or `[headDim]`, dtype of x
 * @param options see {@link RmsnormOptions}
 * @returns `out`, shape and dtype as x
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @remarks Asynchronous on the current stream; accumulates in float32; the same call gives the same bits.
 * @see FlashInfer `rmsnorm`; arXiv:1910.07467
 * @example
 * ```ts
 * import { ones, randn, rmsnorm } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16' });
 * const weight = ones([4096], { dtype: 'bfloat16' });
 * const y = rmsnorm(x, weight, { eps: 1e-5 });
 * ```
 */
export function rmsnorm<D extends DType>(
  x: Tensor<D>,
  weight: Tensor,
  options: RmsnormOptions = {},
): Tensor<SameDType<D>> {
  return normalize('rmsnorm', x, weight, options, 0) as Tensor<SameDType<D>>;
}

/**
 * As {@link rmsnorm} with weight + 1 in place of weight, the form in which Gemma stores it:
 * out[i] = x[i] / sqrt(mean(x²) + eps) · (1 + weight[i]). The sum is float32.
 * @param x as of `rmsnorm`
 * @param weight `[hiddenSize]` or `[headDim]`, dtype of x
 * @param options see {@link RmsnormOptions}
 * @returns `out`, shape and dtype as x
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @see FlashInfer `gemma_rmsnorm`
 * @example
 * ```ts
 * import { gemmaRmsnorm, randn, zeros } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16' });
 * const weight = zeros([4096], { dtype: 'bfloat16' }); // multiplies by 1
 * const y = gemmaRmsnorm(x, weight);
 * ```
 */
export function gemmaRmsnorm<D extends DType>(
  x: Tensor<D>,
  weight: Tensor,
  options: RmsnormOptions = {},
): Tensor<SameDType<D>> {
  return normalize('gemmaRmsnorm', x, weight, options, 1) as Tensor<SameDType<D>>;
}

function normalize(name: string, x: Tensor, weight: Tensor, options: RmsnormOptions, weightOffset: number): Tensor {
  const check = checkRows(name, x, options, optionNames);
  checkVector(check, 'weight', weight, x.dtype);
  if (options.out !== undefined) {
    checkLike(check, 'out', options.out, x, [x.dtype]);
    checkOutput(name, options.out, 'x', x);
    checkSeparate(name, 'out', options.out, 'weight', weight);
  }
  logCall(name, { x, weight, options });
  const { eps = defaultEps, enablePdl } = options;
  const out = options.out ?? empty(x.shape, { dtype: x.dtype, device: x.device });
  runNorm({
    kind: 'rms',
    x,
    residual: undefined,
    weight,
    bias: undefined,
    out,
    scale: 1,
    eps,
    weightOffset,
    enablePdl,
  });
  return out;
}

/**
 * As {@link rmsnorm}, quantised: out = fp8(x / sqrt(mean(x²) + eps) · weight / scale), saturated to the largest finite
 * value of out's dtype; NaN stays NaN.
 * @param out where to write, shape as x, float8_e4m3fn | float8_e5m2, may be strided
 * @param x as of `rmsnorm`
 * @param weight `[hiddenSize]` or `[headDim]`, dtype of x
 * @param scale a number above 0, or a float32 tensor with one element on x's device, read when the kernel runs
 * @param options `eps`, default 1e-6; `enablePdl`
 * @returns `out`
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride, scale or option
 * @see FlashInfer `rmsnorm_quant`
 * @example
 * ```ts
 * import { empty, ones, randn, rmsnormQuant } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16' });
 * const weight = ones([4096], { dtype: 'bfloat16' });
 * const out = empty([8, 4096], { dtype: 'float8_e4m3fn' });
 * rmsnormQuant(out, x, weight, 0.02);
 * ```
 */
export function rmsnormQuant(
  out: Tensor,
  x: Tensor,
  weight: Tensor,
  scale: Tensor | number,
  options: NormOptions = {},
): Tensor {
  const name = 'rmsnormQuant';
  const check = checkRows(name, x, options, quantOptionNames);
  checkQuantizedOut(check, out, x);
  checkVector(check, 'weight', weight, x.dtype);
  checkScale(check, scale);
  checkOutput(name, out, 'x', x);
  logCall(name, { out, x, weight, scale, options });
  const { eps = defaultEps, enablePdl } = options;
  runNorm({
    kind: 'rms',
    x,
    residual: undefined,
    weight,
    bias: undefined,
    out,
    scale,
    eps,
    weightOffset: 0,
    enablePdl,
  });
  return out;
}
