// SPDX-License-Identifier: Apache-2.0
// Tokens of what one filter keeps of a row.
import { logCall } from '../logging.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { checkSamplingProbs, drawFromProbs, type ProbsSamplingOptions, type ValidTokens } from './samplingOptions.ts';
import { checkCount, checkProbability, type PerRow, SamplingRun } from './samplingRun.ts';

/**
 * Draws one token a row from its nucleus: the fewest largest probabilities that sum to topP of the row's sum or more.
 * Those that equal the smallest one kept are kept too.
 * @param probs `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param topP 0 to 1: a number, or float32 `[batch]`; 1 keeps all
 * @param options see {@link ProbsSamplingOptions}
 * @returns int32 `[batch]`; a row in which nothing has a positive probability gives token 0; with `returnValid`
 *   `[tokens, valid]`, bool `[batch]`, false for such rows
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride, threshold or option
 * @remarks Asynchronous on the current stream. Tokens depend on the row, its number, the seed and the offset only, not on
 *   the batch size. Probabilities need not sum to 1; negative ones and NaN count as 0, and what is below 2^-42 of the
 *   row's largest is never drawn.
 *   Draws again where a token is outside of the nucleus, so that a topP of 0.1 takes twice the time of 0.9.
 * @see FlashInfer `top_p_sampling_from_probs`
 * @example
 * ```ts
 * import { randn, softmax, topPSamplingFromProbs } from '@flashinfer/core';
 *
 * const probs = softmax(randn([4, 32000]));
 * const tokens = topPSamplingFromProbs(probs, 0.9, { seed: 42 }); // int32 [4]
 * ```
 */
export function topPSamplingFromProbs(
  probs: Tensor,
  topP: PerRow,
  options: ProbsSamplingOptions & { returnValid: true },
): ValidTokens;
export function topPSamplingFromProbs(
  probs: Tensor,
  topP: PerRow,
  options?: ProbsSamplingOptions & { returnValid?: false },
): Tensor<'int32'>;
export function topPSamplingFromProbs(
  probs: Tensor,
  topP: PerRow,
  options: ProbsSamplingOptions = {},
): Tensor<'int32'> | ValidTokens {
  const check = checkSamplingProbs('topPSamplingFromProbs', probs, options);
  checkProbability(check, 'topP', topP);
  logCall('topPSamplingFromProbs', { probs, topP, options });
  return drawFromProbs(new SamplingRun('sampleProbs', probs).withTopP(topP), check, probs, options);
}

/**
 * Draws one token a row from its topK largest probabilities, and those that equal the smallest of them.
 * @param probs `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param topK from 1 up: a number, or int32 `[batch]`; vocab or more keeps all
 * @param options see {@link ProbsSamplingOptions}
 * @returns int32 `[batch]`; a row in which nothing has a positive probability gives token 0; with `returnValid`
 *   `[tokens, valid]`, bool `[batch]`, false for such rows
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride, threshold or option
 * @remarks Asynchronous on the current stream. Tokens depend on the row, its number, the seed and the offset only, not on
 *   the batch size. Probabilities need not sum to 1; negative ones and NaN count as 0, and what is below 2^-42 of the
 *   row's largest is never drawn.
 * @see FlashInfer `top_k_sampling_from_probs`
 * @example
 * ```ts
 * import { randn, softmax, topKSamplingFromProbs } from '@flashinfer/core';
 *
 * const probs = softmax(randn([4, 32000]));
 * const tokens = topKSamplingFromProbs(probs, 40, { seed: 42 }); // int32 [4]
 * ```
 */
export function topKSamplingFromProbs(
  probs: Tensor,
  topK: PerRow,
  options: ProbsSamplingOptions & { returnValid: true },
): ValidTokens;
export function topKSamplingFromProbs(
  probs: Tensor,
  topK: PerRow,
  options?: ProbsSamplingOptions & { returnValid?: false },
): Tensor<'int32'>;
export function topKSamplingFromProbs(
  probs: Tensor,
  topK: PerRow,
  options: ProbsSamplingOptions = {},
): Tensor<'int32'> | ValidTokens {
  const check = checkSamplingProbs('topKSamplingFromProbs', probs, options);
  checkCount(check, 'topK', topK);
  logCall('topKSamplingFromProbs', { probs, topK, options });
  return drawFromProbs(new SamplingRun('sampleProbs', probs).withTopK(topK), check, probs, options);
}

/**
 * Draws one token a row from the probabilities that are at least minP of the row's largest.
 * @param probs `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param minP 0 to 1: a number, or float32 `[batch]`; 0 keeps all
 * @param options see {@link ProbsSamplingOptions}
 * @returns int32 `[batch]`; a row in which nothing has a positive probability gives token 0; with `returnValid`
 *   `[tokens, valid]`, bool `[batch]`, false for such rows
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride, threshold or option
 * @remarks Asynchronous on the current stream. Tokens depend on the row, its number, the seed and the offset only, not on
 *   the batch size. Probabilities need not sum to 1; negative ones and NaN count as 0, and what is below 2^-42 of the
 *   row's largest is never drawn.
 * @see FlashInfer `min_p_sampling_from_probs`
 * @example
 * ```ts
 * import { randn, minPSamplingFromProbs, softmax } from '@flashinfer/core';
 *
 * const probs = softmax(randn([4, 32000]));
 * const tokens = minPSamplingFromProbs(probs, 0.1, { seed: 42 }); // int32 [4]
 * ```
 */
export function minPSamplingFromProbs(
  probs: Tensor,
  minP: PerRow,
  options: ProbsSamplingOptions & { returnValid: true },
): ValidTokens;
export function minPSamplingFromProbs(
  probs: Tensor,
  minP: PerRow,
  options?: ProbsSamplingOptions & { returnValid?: false },
): Tensor<'int32'>;
export function minPSamplingFromProbs(
  probs: Tensor,
  minP: PerRow,
  options: ProbsSamplingOptions = {},
): Tensor<'int32'> | ValidTokens {
  const check = checkSamplingProbs('minPSamplingFromProbs', probs, options);
  checkProbability(check, 'minP', minP);
  logCall('minPSamplingFromProbs', { probs, minP, options });
  return drawFromProbs(new SamplingRun('sampleProbs', probs).withMinP(minP), check, probs, options);
}
