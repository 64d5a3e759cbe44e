// SPDX-License-Identifier: Apache-2.0
import { Checker } from '../check/checker.ts';
import { checkSeparate } from '../check/overlap.ts';
import { logCall } from '../logging.ts';
import type { DependentLaunchOptions } from '../runtime/dependentLaunch.ts';
import type { DType, SameDType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { checkCounts, checkPosIds, ropeDtypes, rotationOf } from './checkRope.ts';
import { readRotaryDim } from './ropeOptions.ts';
import { runRope } from './runRope.ts';

/** Options of `applyRopeWithCosSinCache` and its in-place form. */
export interface CosSinCacheOptions extends DependentLaunchOptions {
  /** Pairs halves, d with d + rotaryDim / 2 (GPT-NeoX), instead of neighbours, 2d with 2d + 1 (GPT-J). Default true. */
  isNeox?: boolean;
}

/**
 * Rotary embedding with cosines and sines from a table, which may follow any scaling of the frequencies.
 * @param positions `[nnz]` int32 | int64, rows of cosSinCache; the rotated part of a token with another one is NaN
 * @param query `[nnz, numQoHeads * headSize]` or `[nnz, numQoHeads, headSize]`, float16 | bfloat16 | float32, last
 *   dimension contiguous
 * @param key `[nnz, numKvHeads * headSize]` or `[nnz, numKvHeads, headSize]`, dtype of query
 * @param headSize elements of a head
 * @param cosSinCache `[maxPosition, rotaryDim]` float32, last dimension contiguous: in each row rotaryDim / 2 cosines,
 *   then as many sines; rotaryDim up to headSize and 1024
 * @param options see {@link CosSinCacheOptions}
 * @returns `[query, key]` rotated, new tensors of the same shapes; elements from rotaryDim on are copied
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @remarks Asynchronous on the current stream; computes in float32, rounded once.
 * @see FlashInfer `apply_rope_with_cos_sin_cache`
 * @example
 * ```ts
 * import { applyRopeWithCosSinCache, randn, tensor } from '@flashinfer/core';
 *
 * // Row p: cosines, then sines, of position p.
 * const table = Array.from({ length: 4096 * 128 }, (_, i) => {
 *   const angle = Math.floor(i / 128) * 10000 ** (-(i % 64) / 64);
 *   return i % 128 < 64 ? Math.cos(angle) : Math.sin(angle);
 * });
 * const cosSinCache = tensor(table, { shape: [4096, 128], dtype: 'float32' });
 * const positions = tensor([0, 1, 4095], { dtype: 'int64' });
 * const query = randn([3, 32 * 128], { dtype: 'bfloat16' });
 * const key = randn([3, 8 * 128], { dtype: 'bfloat16' });
 * const [q, k] = applyRopeWithCosSinCache(positions, query, key, 128, cosSinCache);
 * ```
 */
export function applyRopeWithCosSinCache<D extends DType>(
  positions: Tensor,
  query: Tensor<D>,
  key: Tensor<D>,
  headSize: number,
  cosSinCache: Tensor,
  options: CosSinCacheOptions = {},
): [Tensor<SameDType<D>>, Tensor<SameDType<D>>] {
  return rotate('applyRopeWithCosSinCache', positions, query, key, headSize, cosSinCache, options, false) as [
    Tensor<SameDType<D>>,
    Tensor<SameDType<D>>,
  ];
}

/**
 * As {@link applyRopeWithCosSinCache}, overwriting query and key.
 * @see FlashInfer `apply_rope_with_cos_sin_cache_inplace`
 * @example
 * ```ts
 * import { applyRopeWithCosSinCacheInplace, ones, randn, tensor } from '@flashinfer/core';
 *
 * const cosSinCache = ones([4096, 64], { dtype: 'float32' }); // a table of the model, here with equal entries
 * const positions = tensor([0, 1, 4095], { dtype: 'int64' });
 * const query = randn([3, 32, 128], { dtype: 'bfloat16' });
 * const key = randn([3, 8, 128], { dtype: 'bfloat16' });
 * applyRopeWithCosSinCacheInplace(positions, query, key, 128, cosSinCache, { isNeox: false });
 * ```
 * @see FlashInfer `apply_rope_with_cos_sin_cache_inplace`
 */
export function applyRopeWithCosSinCacheInplace(
  positions: Tensor,
  query: Tensor,
  key: Tensor,
  headSize: number,
  cosSinCache: Tensor,
  options: CosSinCacheOptions = {},
): void {
  rotate('applyRopeWithCosSinCacheInplace', positions, query, key, headSize, cosSinCache, options, true);
}

const optionNames: readonly (keyof CosSinCacheOptions)[] = ['isNeox', 'enablePdl'];

function rotate(
  name: string,
  positions: Tensor,
  query: Tensor,
  key: Tensor,
  headSize: number,
  cosSinCache: Tensor,
  options: CosSinCacheOptions,
  inPlace: boolean,
): [Tensor, Tensor] {
  const check = new Checker(name).number('headSize', headSize, { integer: true, min: 1 });
  if (headSize === undefined) {
    throw check.error('ERR_FLASHINFER_INVALID_ARGUMENT', 'headSize is undefined; expected an integer >= 1; pass it');
  }
  const numQoHeads = checkHeads(check, 'query', query, headSize, ropeDtypes);
  const numKvHeads = checkHeads(check, 'key', key, headSize, [query.dtype]);
  checkCounts(check, query.shape[0]!, numQoHeads + numKvHeads);
  const rows = checkPosIds(check, 'positions', positions);
  check.tensor('cosSinCache', cosSinCache, ['maxPosition', 'rotaryDim'], {
    dtypes: ['float32'],
    lastDimContiguous: true,
  });
  const rotaryDim = readRotaryDim(check, check.dim('rotaryDim'), headSize);
  check.options(options, optionNames).flag('isNeox', options.isNeox).flag('enablePdl', options.enablePdl);
  if (inPlace) {
    checkSeparate(name, 'query', query, 'key', key);
    checkSeparate(name, 'query', query, 'cosSinCache', cosSinCache);
    checkSeparate(name, 'key', key, 'cosSinCache', cosSinCache);
  }
  logCall(name, { positions, query, key, headSize, cosSinCache, options });
  const { isNeox = true, enablePdl } = options;
  const [q, k] = [rotationOf(query, numQoHeads, inPlace), rotationOf(key, numKvHeads, inPlace)];
  runRope({
    q,
    k,
    headDim: headSize,
    rotaryDim,
    interleave: !isNeox,
    positions: rows,
    angles: cosSinCache,
    enablePdl,
  });
  return [q.out, k.out];
}

/** Number of heads of query or key. */
function checkHeads(check: Checker, name: string, x: Tensor, headSize: number, dtypes: readonly DType[]): number {
  const rule = { dtypes, lastDimContiguous: true };
  if (x instanceof Tensor && x.rank === 3) {
    check.tensor(name, x, ['nnz', '*', headSize], rule);
    return x.shape[1]!;
  }
  check.tensor(name, x, ['nnz', '*'], rule);
  const width = x.shape[1]!;
  if (width % headSize === 0) return width / headSize;
  throw check.error(
    'ERR_FLASHINFER_INVALID_SHAPE',
    `${name} has rows of ${width} elements; expected a multiple of headSize=${headSize}; check headSize`,
  );
}
