// SPDX-License-Identifier: Apache-2.0
import { checkOutput } from '../check/overlap.ts';
import { logCall } from '../logging.ts';
import { empty } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { checkLike, checkRows, checkVector, defaultEps } from './checkNorm.ts';
import type { RmsnormOptions } from './rmsnorm.ts';
import { runNorm } from './runNorm.ts';

/** Options of `layernorm`. */
export type LayernormOptions = RmsnormOptions;

const optionNames: readonly (keyof LayernormOptions)[] = ['eps', 'out', 'enablePdl'];

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
export function layernorm(x: Tensor, gamma: Tensor, beta: Tensor, options: LayernormOptions = {}): Tensor {
  const name = 'layernorm';
  const check = checkRows(name, x, options, optionNames);
  checkVector(check, 'gamma', gamma, 'float32');
  checkVector(check, 'beta', beta, 'float32');
  if (options.out !== undefined) {
    checkLike(check, 'out', options.out, x, [x.dtype]);
    checkOutput(name, options.out, 'x', x);
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
  return out;
}
