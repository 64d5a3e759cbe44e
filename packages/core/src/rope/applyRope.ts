// SPDX-License-Identifier: Apache-2.0

import type { DType, SameDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { checkRequests } from './checkRope.ts';
import { type Llama31RopeOptions, type RopeOptions, readFrequencies, readLlama31Frequencies } from './ropeOptions.ts';
import { rotate } from './rotate.ts';

/**
 * Rotary embedding of the tokens of a batch of requests, one after the other: token i of request b, row indptr[b] + i,
 * is at position offsets[b] + i. Pair d turns by position · ropeTheta^(-2d / rotaryDim) / ropeScale.
 * @param q `[nnz, numQoHeads, headDim]` float16 | bfloat16 | float32, last dimension contiguous
 * @param k `[nnz, numKvHeads, headDim]`, dtype of q
 * @param indptr `[batchSize + 1]` int32 | int64, from 0 to nnz, ascending; its values are not checked
 * @param offsets `[batchSize]`, dtype of indptr: position of each request's first token
 * @param options see {@link RopeOptions}
 * @returns `[q, k]` rotated, new tensors; elements from rotaryDim on are copied
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @remarks Asynchronous on the current stream. Angles are accurate to float32 up to position 2^24, and to 3e-6 up to 2^31.
 * @see FlashInfer `apply_rope`; arXiv:2104.09864
 * @example
 * ```ts
 * import { applyRope, randn, tensor } from '@flashinfer/core';
 *
 * const q = randn([8, 32, 128], { dtype: 'bfloat16' });
 * const k = randn([8, 8, 128], { dtype: 'bfloat16' });
 * const indptr = tensor([0, 5, 8], { dtype: 'int32' }); // 5 and 3 new tokens
 * const offsets = tensor([0, 100], { dtype: 'int32' }); // 100 tokens of the second request are in its cache
 * const [qRope, kRope] = applyRope(q, k, indptr, offsets);
 * ```
 */
export function applyRope<D extends DType>(
  q: Tensor<D>,
  k: Tensor<D>,
  indptr: Tensor,
  offsets: Tensor,
  options: RopeOptions = {},
): [Tensor<SameDType<D>>, Tensor<SameDType<D>>] {
  return rotateBy('applyRope', q, k, indptr, offsets, options, readFrequencies, false) as [
    Tensor<SameDType<D>>,
    Tensor<SameDType<D>>,
  ];
}

/**
 * As {@link applyRope}, overwriting q and k.
 * @see FlashInfer `apply_rope_inplace`
 * @example
 * ```ts
 * import { applyRopeInplace, randn, tensor } from '@flashinfer/core';
 *
 * // q and k may be slices of the projection's output.
 * const qkv = randn([8, 48, 128], { dtype: 'bfloat16' });
 * const [q, k] = [qkv.slice(1, 0, 32), qkv.slice(1, 32, 40)];
 * const indptr = tensor([0, 5, 8], { dtype: 'int32' }); // 5 and 3 new tokens
 * const offsets = tensor([0, 100], { dtype: 'int32' }); // 100 tokens of the second request are in its cache
 * applyRopeInplace(q, k, indptr, offsets);
 * ```
 */
export function applyRopeInplace(
  q: Tensor,
  k: Tensor,
  indptr: Tensor,
  offsets: Tensor,
  options: RopeOptions = {},
): void {
  rotateBy('applyRopeInplace', q, k, indptr, offsets, options, readFrequencies, true);
}

/**
 * As {@link applyRope} with the frequencies of Llama 3.1: only long wavelengths are scaled.
 * @param options see {@link Llama31RopeOptions}
 * @see FlashInfer `apply_llama31_rope`
 * @example
 * ```ts
 * import { applyLlama31Rope, randn, tensor } from '@flashinfer/core';
 *
 * const q = randn([8, 32, 128], { dtype: 'bfloat16' });
 * const k = randn([8, 8, 128], { dtype: 'bfloat16' });
 * const indptr = tensor([0, 5, 8], { dtype: 'int32' }); // 5 and 3 new tokens
 * const offsets = tensor([0, 100], { dtype: 'int32' }); // 100 tokens of the second request are in its cache
 * const [qRope, kRope] = applyLlama31Rope(q, k, indptr, offsets);
 * ```
 */
export function applyLlama31Rope<D extends DType>(
  q: Tensor<D>,
  k: Tensor<D>,
  indptr: Tensor,
  offsets: Tensor,
  options: Llama31RopeOptions = {},
): [Tensor<SameDType<D>>, Tensor<SameDType<D>>] {
  return rotateBy('applyLlama31Rope', q, k, indptr, offsets, options, readLlama31Frequencies, false) as [
    Tensor<SameDType<D>>,
    Tensor<SameDType<D>>,
  ];
}

/**
 * As {@link applyLlama31Rope}, overwriting q and k.
 * @see FlashInfer `apply_llama31_rope_inplace`
 * @example
 * ```ts
 * import { applyLlama31RopeInplace, randn, tensor } from '@flashinfer/core';
 *
 * const q = randn([8, 32, 128], { dtype: 'bfloat16' });
 * const k = randn([8, 8, 128], { dtype: 'bfloat16' });
 * const indptr = tensor([0, 5, 8], { dtype: 'int32' }); // 5 and 3 new tokens
 * const offsets = tensor([0, 100], { dtype: 'int32' }); // 100 tokens of the second request are in its cache
 * applyLlama31RopeInplace(q, k, indptr, offsets, { ropeScale: 32 }); // Llama 3.2
 * ```
 */
export function applyLlama31RopeInplace(
  q: Tensor,
  k: Tensor,
  indptr: Tensor,
  offsets: Tensor,
  options: Llama31RopeOptions = {},
): void {
  rotateBy('applyLlama31RopeInplace', q, k, indptr, offsets, options, readLlama31Frequencies, true);
}

function rotateBy(
  name: string,
  q: Tensor,
  k: Tensor,
  indptr: Tensor,
  offsets: Tensor,
  options: Llama31RopeOptions,
  readAngles: typeof readLlama31Frequencies,
  inPlace: boolean,
): [Tensor, Tensor] {
  const call = { name, q, k, where: { indptr, offsets }, options, readAngles, inPlace };
  return rotate(call, (check) => checkRequests(check, indptr, offsets));
}
