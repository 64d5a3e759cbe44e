// SPDX-License-Identifier: Apache-2.0
import { Checker } from '../check/checker.ts';
import { logCall } from '../logging.ts';
import { empty } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { checkRows, checkTemperature, type PerRow, SamplingRun } from './samplingRun.ts';

export interface SoftmaxOptions {
  /** Logits are divided by it: a number, or float32 `[batch]`. 0 leaves only the largest logits. Default 1. */
  temperature?: PerRow;
}

const optionNames: readonly (keyof SoftmaxOptions)[] = ['temperature'];

/**
 * Probabilities of logits: exp(logits / temperature), divided by their sum over the row.
 * @param logits `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param options see {@link SoftmaxOptions}
 * @returns float32 `[batch, vocab]`; a row with NaN, with infinity, or without a finite logit is NaN
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride or option
 * @remarks Asynchronous on the current stream; the same at any batch size. Probabilities below 2^-42 of the row's
 *   largest do not count in the sum.
 * @see FlashInfer `softmax`
 * @example
 * ```ts
 * import { randn, softmax } from '@flashinfer/core';
 *
 * const probs = softmax(randn([4, 32000]), { temperature: 0.7 }); // [4, 32000]
 * ```
 */
export function softmax(logits: Tensor, options: SoftmaxOptions = {}): Tensor<'float32'> {
  const check = new Checker('softmax');
  checkRows(check, 'logits', logits, 'batch');
  check.options(options, optionNames);
  checkTemperature(check, options.temperature);
  logCall('softmax', { logits, options });
  const out = empty(logits.shape, { dtype: 'float32', device: logits.device });
  return new SamplingRun('softmax', logits).withTemperature(options.temperature).into(out);
}
