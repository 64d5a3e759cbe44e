// SPDX-License-Identifier: Apache-2.0
import { checkSeparate } from '../check/overlap.ts';
import { logCall } from '../logging.ts';
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

const optionNames: readonly (keyof NormOptions)[] = ['eps', 'enablePdl'];

/**
 * Adds x to the residual and normalises the sum, both in place: residual += x; x = rmsnorm(residual, weight). The sum
 * is normalised in float32, before it is rounded to the residual's dtype.
 * @param x `[numTokens, hiddenSize]` or `[numTokens, numHeads, headDim]`, float16 | bfloat16 | float32, last dimension
 *   contiguous, of 1 to 32768 elements; overwritten with the normalised sum
 * @param residual shape and dtype as x; overwritten with the sum
 * @param weight `[hiddenSize]` or `[headDim]`, dtype of x
 * @param options `eps`, default 1e-6; `enablePdl`
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @remarks Asynchronous on the current stream; accumulates in float32; the same call gives the same bits.
 * @see FlashInfer `fused_add_rmsnorm`
 * @example
 * ```ts
 * import { fusedAddRmsnorm, ones, randn } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16' });
 * const residual = randn([8, 4096], { dtype: 'bfloat16' });
 * const weight = ones([4096], { dtype: 'bfloat16' });
 * fusedAddRmsnorm(x, residual, weight); // residual is the sum, x its norm
 * ```
 */
export function fusedAddRmsnorm(x: Tensor, residual: Tensor, weight: Tensor, options: NormOptions = {}): void {
  addAndNormalize('fusedAddRmsnorm', x, residual, weight, options, 0);
}

/**
 * As {@link fusedAddRmsnorm} with weight + 1 in place of weight.
 * @see FlashInfer `gemma_fused_add_rmsnorm`
 * @example
 * ```ts
 * import { gemmaFusedAddRmsnorm, randn, zeros } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16' });
 * const residual = randn([8, 4096], { dtype: 'bfloat16' });
 * const weight = zeros([4096], { dtype: 'bfloat16' }); // multiplies by 1
 * gemmaFusedAddRmsnorm(x, residual, weight);
 * ```
 */
export function gemmaFusedAddRmsnorm(x: Tensor, residual: Tensor, weight: Tensor, options: NormOptions = {}): void {
  addAndNormalize('gemmaFusedAddRmsnorm', x, residual, weight, options, 1);
}

function addAndNormalize(
  name: string,
  x: Tensor,
  residual: Tensor,
  weight: Tensor,
  options: NormOptions,
  weightOffset: number,
): void {
  const check = checkRows(name, x, options, optionNames);
  checkLike(check, 'residual', residual, x, [x.dtype]);
  checkVector(check, 'weight', weight, x.dtype);
  checkSeparate(name, 'x', x, 'residual', residual);
  checkSeparate(name, 'x', x, 'weight', weight);
  checkSeparate(name, 'residual', residual, 'weight', weight);
  logCall(name, { x, residual, weight, options });
  const { eps = defaultEps, enablePdl } = options;
  runNorm({ kind: 'rms', x, residual, weight, bias: undefined, out: x, scale: 1, eps, weightOffset, enablePdl });
}

/**
 * As {@link fusedAddRmsnorm}, quantised: residual += x; out = fp8(rmsnorm(residual, weight) / scale), saturated to the
 * largest finite value of out's dtype. x keeps its values.
 * @param out where to write, shape as x, float8_e4m3fn | float8_e5m2, may be strided
 * @param x as of `fusedAddRmsnorm`
 * @param residual shape and dtype as x; overwritten with the sum
 * @param weight `[hiddenSize]` or `[headDim]`, dtype of x
 * @param scale a number above 0, or a float32 tensor with one element on x's device, read when the kernel runs
 * @param options `eps`, default 1e-6; `enablePdl`
 * @returns `out`
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride, scale or option
 * @see FlashInfer `fused_add_rmsnorm_quant`
 * @example
 * ```ts
 * import { empty, fusedAddRmsnormQuant, ones, randn } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16' });
 * const residual = randn([8, 4096], { dtype: 'bfloat16' });
 * const weight = ones([4096], { dtype: 'bfloat16' });
 * const out = empty([8, 4096], { dtype: 'float8_e4m3fn' });
 * fusedAddRmsnormQuant(out, x, residual, weight, 0.02);
 * ```
 */
export function fusedAddRmsnormQuant(
  out: Tensor,
  x: Tensor,
  residual: Tensor,
  weight: Tensor,
  scale: Tensor | number,
  options: NormOptions = {},
): Tensor {
  const name = 'fusedAddRmsnormQuant';
  const check = checkRows(name, x, options, optionNames);
  checkQuantizedOut(check, out, x);
  checkLike(check, 'residual', residual, x, [x.dtype]);
  checkVector(check, 'weight', weight, x.dtype);
  checkScale(check, scale);
  checkSeparate(name, 'x', x, 'residual', residual);
  checkSeparate(name, 'out', out, 'x', x);
  checkSeparate(name, 'out', out, 'residual', residual);
  checkSeparate(name, 'residual', residual, 'weight', weight);
  logCall(name, { out, x, residual, weight, scale, options });
  const { eps = defaultEps, enablePdl } = options;
  runNorm({ kind: 'rms', x, residual, weight, bias: undefined, out, scale, eps, weightOffset: 0, enablePdl });
  return out;
}
