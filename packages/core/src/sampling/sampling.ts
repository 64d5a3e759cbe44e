// SPDX-License-Identifier: Apache-2.0
// Tokens of whole rows.
import { logCall } from '../logging.ts';
import type { Tensor } from '../tensor/tensor.ts';
import {
  checkSampling,
  checkSamplingProbs,
  drawFromProbs,
  drawTokens,
  type ProbsSamplingOptions,
  type SamplingOptions,
  type ValidTokens,
} from './samplingOptions.ts';
import { SamplingRun } from './samplingRun.ts';

/**
 * Draws one token a row from probabilities.
 * @param probs `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param options see {@link ProbsSamplingOptions}
 * @returns int32 `[batch]`; a row in which nothing has a positive probability gives token 0; with `returnValid`
 *   `[tokens, valid]`, bool `[batch]`, false for such rows
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride, threshold or option
 * @remarks Asynchronous on the current stream. Tokens depend on the row, its number, the seed and the offset only, not on
 *   the batch size. Probabilities need not sum to 1; negative ones and NaN count as 0, and what is below 2^-42 of the
 *   row's largest is never drawn.
 * @see FlashInfer `sampling_from_probs`
 * @example
 * ```ts
 * import { randn, samplingFromProbs, softmax } from '@flashinfer/core';
 *
 * const probs = softmax(randn([4, 32000]));
 * const tokens = samplingFromProbs(probs, { seed: 42 }); // int32 [4]
 * const [drawn, valid] = samplingFromProbs(probs, { returnValid: true }); // int32 [4], bool [4]
 * ```
 */
export function samplingFromProbs(probs: Tensor, options: ProbsSamplingOptions & { returnValid: true }): ValidTokens;
export function samplingFromProbs(
  probs: Tensor,
  options?: ProbsSamplingOptions & { returnValid?: false },
): Tensor<'int32'>;
export function samplingFromProbs(probs: Tensor, options: ProbsSamplingOptions = {}): Tensor<'int32'> | ValidTokens {
  const check = checkSamplingProbs('samplingFromProbs', probs, options);
  logCall('samplingFromProbs', { probs, options });
  return drawFromProbs(new SamplingRun('sampleProbs', probs), check, probs, options);
}

/**
 * Draws one token a row from softmax(logits), without writing the probabilities.
 * @param logits `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param options see {@link SamplingOptions}
 * @returns int32 `[batch]`; a row in which nothing has a positive probability gives token 0
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride, threshold or option
 * @remarks Asynchronous on the current stream. Tokens depend on the row, its number, the seed and the offset only, not on
 *   the batch size. Probabilities need not sum to 1; negative ones and NaN count as 0, and what is below 2^-42 of the
 *   row's largest is never drawn.
 * @see FlashInfer `sampling_from_logits`
 * @example
 * ```ts
 * import { randn, samplingFromLogits } from '@flashinfer/core';
 *
 * const logits = randn([4, 32000]);
 * const tokens = samplingFromLogits(logits, { seed: 42 }); // int32 [4]
 * ```
 */
export function samplingFromLogits(logits: Tensor, options: SamplingOptions = {}): Tensor<'int32'> {
  const check = checkSampling('samplingFromLogits', 'logits', logits, options);
  logCall('samplingFromLogits', { logits, options });
  return drawTokens(new SamplingRun('sampleLogits', logits), check, logits, options);
}
