// SPDX-License-Identifier: Apache-2.0
// Tokens of what top-k and top-p keep of a row.
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
import { checkCount, checkProbability, type PerRow, SamplingRun } from './samplingRun.ts';

/** top-p sees the row that top-k left, or both see the whole row. */
export type FilterApplyOrder = 'top_k_first' | 'joint';

export interface TopKTopPSamplingOptions extends SamplingOptions {
  /** Default `'top_k_first'`. */
  filterApplyOrder?: FilterApplyOrder;
}

export interface TopKTopPProbsOptions extends TopKTopPSamplingOptions, ProbsSamplingOptions {}

const orders: readonly FilterApplyOrder[] = ['top_k_first', 'joint'];
const moreOptions = ['filterApplyOrder'];

/**
 * Draws one token a row from probabilities, of which top-k keeps the topK largest, and top-p
 * the nucleus of those (`'top_k_first'`) or of the row (`'joint'`). What equals the smallest one kept is kept too.
 * @param probs `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param topK from 1 up: a number, or int32 `[batch]`; vocab or more keeps all
 * @param topP 0 to 1: a number, or float32 `[batch]`; 1 keeps all
 * @param options see {@link TopKTopPProbsOptions}
 * @returns int32 `[batch]`; a row in which nothing has a positive probability gives token 0; with `returnValid`
 *   `[tokens, valid]`, bool `[batch]`, false for such rows
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride, threshold or option
 * @remarks Asynchronous on the current stream. Tokens depend on the row, its number, the seed and the offset only, not on
 *   the batch size. Probabilities need not sum to 1; negative ones and NaN count as 0, and what is below 2^-42 of the
 *   row's largest is never drawn.
 * @see FlashInfer `top_k_top_p_sampling_from_probs`
 * @example
 * ```ts
 * import { randn, softmax, topKTopPSamplingFromProbs } from '@flashinfer/core';
 *
 * const probs = softmax(randn([4, 32000]));
 * const tokens = topKTopPSamplingFromProbs(probs, 40, 0.9, { seed: 42 }); // int32 [4]
 * ```
 */
export function topKTopPSamplingFromProbs(
  probs: Tensor,
  topK: PerRow,
  topP: PerRow,
  options: TopKTopPProbsOptions & { returnValid: true },
): ValidTokens;
export function topKTopPSamplingFromProbs(
  probs: Tensor,
  topK: PerRow,
  topP: PerRow,
  options?: TopKTopPProbsOptions & { returnValid?: false },
): Tensor<'int32'>;
export function topKTopPSamplingFromProbs(
  probs: Tensor,
  topK: PerRow,
  topP: PerRow,
  options: TopKTopPProbsOptions = {},
): Tensor<'int32'> | ValidTokens {
  const check = checkSamplingProbs('topKTopPSamplingFromProbs', probs, options, moreOptions);
  checkCount(check, 'topK', topK);
  checkProbability(check, 'topP', topP);
  check.oneOf('filterApplyOrder', options.filterApplyOrder, orders);
  logCall('topKTopPSamplingFromProbs', { probs, topK, topP, options });
  const run = new SamplingRun('sampleProbs', probs).withTopK(topK).withTopP(topP);
  if (options.filterApplyOrder === 'joint') run.jointly();
  return drawFromProbs(run, check, probs, options);
}

/**
 * Draws one token a row from probabilities softmax(logits), which are not written, of which top-k keeps the topK largest, and top-p
 * the nucleus of those (`'top_k_first'`) or of the row (`'joint'`). What equals the smallest one kept is kept too.
 * @param logits `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param topK from 1 up: a number, or int32 `[batch]`; vocab or more keeps all
 * @param topP 0 to 1: a number, or float32 `[batch]`; 1 keeps all
 * @param options see {@link TopKTopPSamplingOptions}
 * @returns int32 `[batch]`; a row in which nothing has a positive probability gives token 0
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride, threshold or option
 * @remarks Asynchronous on the current stream. Tokens depend on the row, its number, the seed and the offset only, not on
 *   the batch size. Probabilities need not sum to 1; negative ones and NaN count as 0, and what is below 2^-42 of the
 *   row's largest is never drawn.
 * @see FlashInfer `top_k_top_p_sampling_from_logits`
 * @example
 * ```ts
 * import { randn, topKTopPSamplingFromLogits } from '@flashinfer/core';
 *
 * const logits = randn([4, 32000]);
 * const tokens = topKTopPSamplingFromLogits(logits, 40, 0.9, { seed: 42 }); // int32 [4]
 * ```
 */
export function topKTopPSamplingFromLogits(
  logits: Tensor,
  topK: PerRow,
  topP: PerRow,
  options: TopKTopPSamplingOptions = {},
): Tensor<'int32'> {
  const check = checkSampling('topKTopPSamplingFromLogits', 'logits', logits, options, moreOptions);
  checkCount(check, 'topK', topK);
  checkProbability(check, 'topP', topP);
  check.oneOf('filterApplyOrder', options.filterApplyOrder, orders);
  logCall('topKTopPSamplingFromLogits', { logits, topK, topP, options });
  const run = new SamplingRun('sampleLogits', logits).withTopK(topK).withTopP(topP);
  if (options.filterApplyOrder === 'joint') run.jointly();
  return drawTokens(run, check, logits, options);
}
