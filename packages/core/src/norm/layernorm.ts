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
import type { RmsnormOptions } from './rmsnorm.ts';
import { runNorm } from './runNorm.ts';

/** Options of `layernorm`. */
export type LayernormOptions = RmsnormOptions;

const optionNames: readonly (keyof LayernormOptions)[] = ['eps', 'out', 'enablePdl'];
const quantOptionNames: readonly (keyof NormOptions)[] = ['eps', 'enablePdl'];

/**
 * Layer normalisation of each row: out[i] = (x[i] - mean(x)) / sqrt(var(x) + eps) · gamma[i] + beta[i], with the
 * variance of the population.
 * @param x `[numTokens, hiddenSize]` or `[numTokens, numHeads, headDim]`, float16 | bfloat16 | float32, last dimension
 *   contiguous, of 1 to 32768 elements
 * @param gamma `[hiddenSize]` or `[headDim]`, float32
 * @param beta as gamma
 * @param options see {@link LayernormOptions}
 * @returns `out`, shape and dtype as x
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @remarks Asynchronous on the current stream. The mean is taken off before squaring, so that a large mean costs no
 *   accuracy; sums are float32; the same call gives the same bits.
 * @see FlashInfer `layernorm`; arXiv:1607.06450
 * @example
 * ```ts
 * import { layernorm, ones, randn, zeros } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16' });
 * const y = layernorm(x, ones([4096]), zeros([4096]), { eps: 1e-5 });
 * ```
 */
export function layernorm<D extends DType>(
  x: Tensor<D>,
  gamma: Tensor,
  beta: Tensor,
  options: LayernormOptions = {},
): Tensor<SameDType<D>> {
  const name = 'layernorm';
  const check = checkRows(name, x, options, optionNames);
  checkVector(check, 'gamma', gamma, 'float32');
  checkVector(check, 'beta', beta, 'float32');
  if (options.out !== undefined) {
    checkLike(check, 'out', options.out, x, [x.dtype]);
    checkOutput(name, options.out, 'x', x);
    checkSeparate(name, 'out', options.out, 'gamma', gamma);
    checkSeparate(name, 'out', options.out, 'beta', beta);
  }
  logCall(name, { x, gamma, beta, options });
  const { eps = defaultEps, enablePdl } = options;
  const out = options.out ?? empty(x.shape, { dtype: x.dtype, device: x.device });
  runNorm({
    kind: 'layer',
    x,
    residual: undefined,
    weight: gamma,
    bias: beta,
    out,
    scale: 1,
    eps,
    weightOffset: 0,
    enablePdl,
  });
  return out as Tensor<SameDType<D>>;
}

/**
 * As {@link layernorm}, quantised: out = fp8(layernorm(x, gamma, beta) / scale), saturated to the largest finite value of
 * out's dtype; NaN stays NaN.
 * @param out where to write, shape as x, float8_e4m3fn | float8_e5m2, may be strided
 * @param x as of `layernorm`
 * @param gamma `[hiddenSize]` or `[headDim]`, float32
 * @param beta as gamma
 * @param scale a number above 0, or a float32 tensor with one element on x's device, read when the kernel runs
 * @param options `eps`, default 1e-6; `enablePdl`
 * @returns `out`
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride, scale or option
 * @see FlashInfer `layernorm_quant`
 * @example
 * ```ts
 * import { empty, layernormQuant, ones, randn, zeros } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16' });
 * const out = empty([8, 4096], { dtype: 'float8_e4m3fn' });
 * layernormQuant(out, x, ones([4096]), zeros([4096]), 0.02);
 * ```
 */
export function layernormQuant(
  out: Tensor,
  x: Tensor,
  gamma: Tensor,
  beta: Tensor,
  scale: Tensor | number,
  options: NormOptions = {},
): Tensor {
  const name = 'layernormQuant';
  const check = checkRows(name, x, options, quantOptionNames);
  checkQuantizedOut(check, out, x);
  checkVector(check, 'gamma', gamma, 'float32');
  checkVector(check, 'beta', beta, 'float32');
  checkScale(check, scale);
  checkOutput(name, out, 'x', x);
  logCall(name, { out, x, gamma, beta, scale, options });
  const { eps = defaultEps, enablePdl } = options;
  runNorm({
    kind: 'layer',
    x,
    residual: undefined,
    weight: gamma,
    bias: beta,
    out,
    scale,
    eps,
    weightOffset: 0,
    enablePdl,
  });
  return out;
}
