// SPDX-License-Identifier: Apache-2.0

import type { DType, SameDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { checkPosIds } from './checkRope.ts';
import { type Llama31RopeOptions, type RopeOptions, readFrequencies, readLlama31Frequencies } from './ropeOptions.ts';
import { rotate } from './rotate.ts';

/**
 * Rotary embedding with a position for each token. Pair d turns by posIds[i] · ropeTheta^(-2d / rotaryDim) / ropeScale.
 * @param q `[nnz, numQoHeads, headDim]` float16 | bfloat16 | float32, last dimension contiguous
 * @param k `[nnz, numKvHeads, headDim]`, dtype of q
 * @param posIds `[nnz]` int32 | int64
 * @param options see {@link RopeOptions}
 * @returns `[q, k]` rotated, new tensors; elements from rotaryDim on are copied
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @remarks Asynchronous on the current stream. Angles are accurate to float32 up to position 2^24, and to 3e-6 up to 2^31.
 * @see FlashInfer `apply_rope_pos_ids`; arXiv:2104.09864
 * @example
 * ```ts
 * import { applyRopePosIds, randn, tensor } from '@flashinfer/core';
 *
 * const q = randn([8, 32, 128], { dtype: 'bfloat16' });
 * const k = randn([8, 8, 128], { dtype: 'bfloat16' });
 * const posIds = tensor([0, 1, 2, 3, 4, 100, 101, 102], { dtype: 'int32' });
 * const [qRope, kRope] = applyRopePosIds(q, k, posIds, { ropeTheta: 1e6 });
 * ```
 */
export function applyRopePosIds<D extends DType>(
  q: Tensor<D>,
  k: Tensor<D>,
  posIds: Tensor,
  options: RopeOptions = {},
): [Tensor<SameDType<D>>, Tensor<SameDType<D>>] {
  return rotateBy('applyRopePosIds', q, k, posIds, options, readFrequencies, false) as [
    Tensor<SameDType<D>>,
    Tensor<SameDType<D>>,
  ];
}

/**
 * As {@link applyRopePosIds}, overwriting q and k.
 * @see FlashInfer `apply_rope_pos_ids_inplace`
 * @example
 * ```ts
 * import { applyRopePosIdsInplace, randn, tensor } from '@flashinfer/core';
 *
 * const q = randn([8, 32, 128], { dtype: 'bfloat16' });
 * const k = randn([8, 8, 128], { dtype: 'bfloat16' });
 * const posIds = tensor([0, 1, 2, 3, 4, 100, 101, 102], { dtype: 'int32' });
 * applyRopePosIdsInplace(q, k, posIds, { rotaryDim: 64 }); // the other 64 elements of a head stay
 * ```
 */
export function applyRopePosIdsInplace(q: Tensor, k: Tensor, posIds: Tensor, options: RopeOptions = {}): void {
  rotateBy('applyRopePosIdsInplace', q, k, posIds, options, readFrequencies, true);
}

/**
 * As {@link applyRopePosIds} with the frequencies of Llama 3.1: only long wavelengths are scaled.
 * @param options see {@link Llama31RopeOptions}
 * @see FlashInfer `apply_llama31_rope_pos_ids`
 * @example
 * ```ts
 * import { applyLlama31RopePosIds, randn, tensor } from '@flashinfer/core';
 *
 * const q = randn([8, 32, 128], { dtype: 'bfloat16' });
 * const k = randn([8, 8, 128], { dtype: 'bfloat16' });
 * const posIds = tensor([0, 1, 2, 3, 4, 100, 101, 102], { dtype: 'int32' });
 * const [qRope, kRope] = applyLlama31RopePosIds(q, k, posIds);
 * ```
 */
export function applyLlama31RopePosIds<D extends DType>(
  q: Tensor<D>,
  k: Tensor<D>,
  posIds: Tensor,
  options: Llama31RopeOptions = {},
): [Tensor<SameDType<D>>, Tensor<SameDType<D>>] {
  return rotateBy('applyLlama31RopePosIds', q, k, posIds, options, readLlama31Frequencies, false) as [
    Tensor<SameDType<D>>,
    Tensor<SameDType<D>>,
  ];
}

/**
 * As {@link applyLlama31RopePosIds}, overwriting q and k.
 * @see FlashInfer `apply_llama31_rope_pos_ids_inplace`
 * @example
 * ```ts
 * import { applyLlama31RopePosIdsInplace, randn, tensor } from '@flashinfer/core';
 *
 * const q = randn([8, 32, 128], { dtype: 'bfloat16' });
 * const k = randn([8, 8, 128], { dtype: 'bfloat16' });
 * const posIds = tensor([0, 1, 2, 3, 4, 100, 101, 102], { dtype: 'int32' });
 * applyLlama31RopePosIdsInplace(q, k, posIds);
 * ```
 */
export function applyLlama31RopePosIdsInplace(
  q: Tensor,
  k: Tensor,
  posIds: Tensor,
  options: Llama31RopeOptions = {},
): void {
  rotateBy('applyLlama31RopePosIdsInplace', q, k, posIds, options, readLlama31Frequencies, true);
}

function rotateBy(
  name: string,
  q: Tensor,
  k: Tensor,
  posIds: Tensor,
  options: Llama31RopeOptions,
  readAngles: typeof readLlama31Frequencies,
  inPlace: boolean,
): [Tensor, Tensor] {
  const call = { name, q, k, where: { posIds }, options, readAngles, inPlace };
  return rotate(call, (check) => checkPosIds(check, 'posIds', posIds));
}
