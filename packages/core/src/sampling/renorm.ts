// SPDX-License-Identifier: Apache-2.0
// Rows of which a filter keeps a part.
import { Checker } from '../check/checker.ts';
import { logCall } from '../logging.ts';
import { empty } from '../tensor/create.ts';
import type { DType, SameDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { checkCount, checkProbability, checkRows, type PerRow, SamplingRun } from './samplingRun.ts';

/**
 * The fewest largest probabilities that sum to topP of the row's sum or more, divided by their sum; the others are 0.
 * Those that equal the smallest one kept are kept too.
 * @param probs `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param topP 0 to 1: a number, or float32 `[batch]`; 1 keeps all
 * @returns `[batch, vocab]` of the dtype of probs; a row without a positive one is 0
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride or threshold
 * @remarks Asynchronous on the current stream; the same at any batch size.
 * @see FlashInfer `top_p_renorm_probs`
 * @example
 * ```ts
 * import { randn, softmax, topPRenormProbs } from '@flashinfer/core';
 *
 * const probs = softmax(randn([4, 32000]));
 * const kept = topPRenormProbs(probs, 0.9); // [4, 32000]
 * ```
 */
export function topPRenormProbs<D extends DType>(probs: Tensor<D>, topP: PerRow): Tensor<SameDType<D>> {
  const check = new Checker('topPRenormProbs');
  checkRows(check, 'probs', probs, 'batch');
  checkProbability(check, 'topP', topP);
  logCall('topPRenormProbs', { probs, topP });
  const out = empty(probs.shape, { dtype: probs.dtype, device: probs.device });
  return new SamplingRun('renormProbs', probs).withTopP(topP).into(out) as Tensor<SameDType<D>>;
}

/**
 * The topK largest probabilities, and those that equal the smallest of them, divided by their sum; the others are 0.
 * @param probs `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param topK from 1 up: a number, or int32 `[batch]`; vocab or more keeps all
 * @returns `[batch, vocab]` of the dtype of probs; a row without a positive one is 0
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride or threshold
 * @remarks Asynchronous on the current stream; the same at any batch size.
 * @see FlashInfer `top_k_renorm_probs`
 * @example
 * ```ts
 * import { randn, softmax, topKRenormProbs } from '@flashinfer/core';
 *
 * const probs = softmax(randn([4, 32000]));
 * const kept = topKRenormProbs(probs, 40); // [4, 32000]
 * ```
 */
export function topKRenormProbs<D extends DType>(probs: Tensor<D>, topK: PerRow): Tensor<SameDType<D>> {
  const check = new Checker('topKRenormProbs');
  checkRows(check, 'probs', probs, 'batch');
  checkCount(check, 'topK', topK);
  logCall('topKRenormProbs', { probs, topK });
  const out = empty(probs.shape, { dtype: probs.dtype, device: probs.device });
  return new SamplingRun('renormProbs', probs).withTopK(topK).into(out) as Tensor<SameDType<D>>;
}

/**
 * The topK largest logits, and those that equal the smallest of them; the others are -infinity. NaN is the smallest.
 * @param logits `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous; vocab up to 2^21
 * @param topK from 1 up: a number, or int32 `[batch]`; vocab or more keeps all
 * @returns `[batch, vocab]` of the dtype of logits
 * @throws {InvalidArgumentError} on a wrong shape, dtype, stride or threshold
 * @remarks Asynchronous on the current stream; the same at any batch size.
 * @see FlashInfer `top_k_mask_logits`
 * @example
 * ```ts
 * import { randn, topKMaskLogits } from '@flashinfer/core';
 *
 * const logits = randn([4, 32000]);
 * const kept = topKMaskLogits(logits, 40); // [4, 32000]
 * ```
 */
export function topKMaskLogits<D extends DType>(logits: Tensor<D>, topK: PerRow): Tensor<SameDType<D>> {
  const check = new Checker('topKMaskLogits');
  checkRows(check, 'logits', logits, 'batch');
  checkCount(check, 'topK', topK);
  logCall('topKMaskLogits', { logits, topK });
  const out = empty(logits.shape, { dtype: logits.dtype, device: logits.device });
  return new SamplingRun('maskLogits', logits).withTopK(topK).into(out) as Tensor<SameDType<D>>;
}
