// SPDX-License-Identifier: Apache-2.0
// Merging attention states: the results of attention over disjoint sets of keys, as one.
import { Checker } from '../check/checker.ts';
import { checkSeparate } from '../check/overlap.ts';
import { logCall } from '../logging.ts';
import { empty } from '../tensor/create.ts';
import type { DType, SameDType } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { runMerge } from './runMerge.ts';

/** Options of `mergeState` and `mergeStates`. */
export interface MergeStateOptions {
  /** Base of the log-sum-exps, given and returned. Default `'2'`, as attention returns them. */
  lseBase?: '2' | 'e';
}

/** Options of `mergeStateInPlace`. */
export interface MergeStateInPlaceOptions extends MergeStateOptions {
  /** bool `[n]`: rows to merge; the others stay as they are. Default: all. */
  mask?: Tensor;
}

const optionNames: readonly (keyof MergeStateOptions)[] = ['lseBase'];
const inPlaceOptionNames: readonly (keyof MergeStateInPlaceOptions)[] = ['lseBase', 'mask'];
const lseBases = ['2', 'e'] as const;
const floats: readonly DType[] = ['float16', 'bfloat16', 'float32'];
const pairDims: readonly string[] = ['n', 'heads', 'dim'];
const lseDims: readonly string[] = ['n', 'heads'];
const manyDims: readonly string[] = ['n', 'numStates', 'heads', 'dim'];
const manyLseDims: readonly string[] = ['n', 'numStates', 'heads'];
const firstRule = { dtypes: floats, lastDimContiguous: true } as const;
const lseRule = { dtypes: ['float32'] } as const;

/** The kernel counts rows in 31 bits. */
const maxRows = 2 ** 31 - 1;

/**
 * Joins attention over two disjoint sets of keys into attention over both:
 * v = (2^sA · vA + 2^sB · vB) / (2^sA + 2^sB), s = log2(2^sA + 2^sB).
 * @param vA `[n, heads, dim]` float16 | bfloat16 | float32, attention's output; last dimension contiguous
 * @param sA `[n, heads]` float32, its log-sum-exp, base 2 unless `lseBase` is `'e'`; -inf: no keys, vA counts as 0
 * @param vB as vA
 * @param sB as sA
 * @param options see {@link MergeStateOptions}
 * @returns `[v, s]`; where both sets are empty zeros and -inf
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @remarks Asynchronous on the current stream; any number of heads and head dimension; computes in float32, rounded once.
 * @see FlashInfer `merge_state`; arXiv:2501.01005, section 2.2
 * @example
 * ```ts
 * import { mergeState, randn, singlePrefillWithKVCache } from '@flashinfer/core';
 *
 * const q = randn([7, 8, 64], { dtype: 'float16' });
 * const [k, v] = [randn([90, 8, 64], { dtype: 'float16' }), randn([90, 8, 64], { dtype: 'float16' })];
 * const part = (begin: number, end: number) =>
 *   singlePrefillWithKVCache(q, k.slice(0, begin, end), v.slice(0, begin, end), { returnLse: true });
 * const [o, lse] = mergeState(...part(0, 30), ...part(30, 90)); // as attention over all 90 keys
 * ```
 */
export function mergeState<D extends DType>(
  vA: Tensor<D>,
  sA: Tensor,
  vB: Tensor,
  sB: Tensor,
  options: MergeStateOptions = {},
): [Tensor<SameDType<D>>, Tensor<'float32'>] {
  const name = 'mergeState';
  const check = new Checker(name).tensor('vA', vA, pairDims, firstRule).tensor('sA', sA, lseDims, lseRule);
  const rule = { dtypes: [vA.dtype], lastDimContiguous: true } as const;
  check.tensor('vB', vB, pairDims, rule).tensor('sB', sB, lseDims, lseRule);
  const factors = readOptions(check, options, optionNames);
  checkExtents(check, 'vA', vA);
  logCall(name, { vA, sA, vB, sB, options });
  const [out, lse] = newState(check, vA);
  runMerge({ v: vA, s: sA, other: { v: vB, s: sB }, out, lse, mask: undefined, ...factors });
  return [out, lse] as [Tensor<SameDType<D>>, Tensor<'float32'>];
}

/**
 * As {@link mergeState}, with the result in place of the first state.
 * @param v `[n, heads, dim]`, overwritten; may be strided but for the last dimension
 * @param s `[n, heads]` float32, overwritten
 * @param vOther as v
 * @param sOther as s
 * @param options see {@link MergeStateInPlaceOptions}
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option, or where the states share memory
 * @see FlashInfer `merge_state_in_place`
 * @example
 * ```ts
 * import { mergeStateInPlace, randn, tensor } from '@flashinfer/core';
 *
 * const [v, vOther] = [randn([2, 8, 64], { dtype: 'float16' }), randn([2, 8, 64], { dtype: 'float16' })];
 * const [s, sOther] = [randn([2, 8]), randn([2, 8])];
 * mergeStateInPlace(v, s, vOther, sOther, { mask: tensor([1, 0], { dtype: 'bool' }) }); // the first row only
 * ```
 */
export function mergeStateInPlace(
  v: Tensor,
  s: Tensor,
  vOther: Tensor,
  sOther: Tensor,
  options: MergeStateInPlaceOptions = {},
): void {
  const name = 'mergeStateInPlace';
  const check = new Checker(name).tensor('v', v, pairDims, firstRule).tensor('s', s, lseDims, lseRule);
  const rule = { dtypes: [v.dtype], lastDimContiguous: true } as const;
  check.tensor('vOther', vOther, pairDims, rule).tensor('sOther', sOther, lseDims, lseRule);
  const { mask } = options ?? {};
  check.optionalTensor('mask', mask, ['n'], { dtypes: ['bool'], contiguous: true });
  const factors = readOptions(check, options, inPlaceOptionNames);
  checkExtents(check, 'v', v);
  checkSeparate(name, 'v', v, 'vOther', vOther);
  checkSeparate(name, 's', s, 'sOther', sOther);
  checkSeparate(name, 'v', v, 's', s);
  checkSeparate(name, 'v', v, 'sOther', sOther);
  checkSeparate(name, 's', s, 'vOther', vOther);
  logCall(name, { v, s, vOther, sOther, options });
  runMerge({ v, s, other: { v: vOther, s: sOther }, out: v, lse: s, mask, ...factors });
}

/**
 * As {@link mergeState}, for any number of states in one tensor.
 * @param v `[n, numStates, heads, dim]` float16 | bfloat16 | float32; last dimension contiguous
 * @param s `[n, numStates, heads]` float32, base 2 unless `lseBase` is `'e'`
 * @param options see {@link MergeStateOptions}
 * @returns `[v, s]`, `[n, heads, dim]` and `[n, heads]`; of no states, or empty ones, zeros and -inf
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device, stride or option
 * @remarks States are added in order: the same call gives the same bits.
 * @see FlashInfer `merge_states`
 * @example
 * ```ts
 * import { mergeStates, randn } from '@flashinfer/core';
 *
 * const [o, lse] = mergeStates(randn([4, 10, 32, 128], { dtype: 'bfloat16' }), randn([4, 10, 32])); // [4, 32, 128], [4, 32]
 * ```
 */
export function mergeStates<D extends DType>(
  v: Tensor<D>,
  s: Tensor,
  options: MergeStateOptions = {},
): [Tensor<SameDType<D>>, Tensor<'float32'>] {
  const name = 'mergeStates';
  const check = new Checker(name).tensor('v', v, manyDims, firstRule).tensor('s', s, manyLseDims, lseRule);
  const factors = readOptions(check, options, optionNames);
  checkExtents(check, 'v', v);
  logCall(name, { v, s, options });
  const [out, lse] = newState(check, v);
  runMerge({ v, s, other: undefined, out, lse, mask: undefined, ...factors });
  return [out, lse] as [Tensor<SameDType<D>>, Tensor<'float32'>];
}

const factors2 = { lseInFactor: 1, lseOutFactor: 1 };
const factorsE = { lseInFactor: Math.LN2, lseOutFactor: Math.LN2 };

function readOptions(check: Checker, options: MergeStateOptions, allowed: readonly string[]): typeof factors2 {
  check.options(options, allowed).oneOf('lseBase', options.lseBase, lseBases);
  return options.lseBase === 'e' ? factorsE : factors2;
}

function checkExtents(check: Checker, name: string, v: Tensor): void {
  const rows = check.dim('n') * check.dim('heads');
  if (check.dim('dim') > 0 && rows <= maxRows) return;
  throw check.error(
    'ERR_FLASHINFER_INVALID_SHAPE',
    `${name} has shape [${v.shape.join(', ')}]; expected dim of 1 or more, and n * heads of at most ${maxRows}; ` +
      'check the order of its dimensions',
  );
}

function newState(check: Checker, { dtype, device }: Tensor): [Tensor, Tensor] {
  const [n, heads, dim] = [check.dim('n'), check.dim('heads'), check.dim('dim')];
  return [empty([n, heads, dim], { dtype, device }), empty([n, heads], { dtype: 'float32', device })];
}
