// SPDX-License-Identifier: Apache-2.0
// How far a result may be from its float64 reference: the one table of tolerances, and the checks that use it.
import type { DType } from '../../src/tensor/dtype.ts';

export interface Tolerance {
  /** ‖out − ref‖ / ‖ref‖ over the whole tensor. */
  readonly relative: number;
  /** The same over the worst row (last dimension), so that one wrong row cannot hide among thousands. */
  readonly rowRelative: number;
  /** |lse − ref| / max(1, |ref|), in the base the lse has. */
  readonly lse: number;
}

/**
 * By output dtype. With u the unit roundoff (float16 2^-11, bfloat16 2^-8), a correct tensor-core kernel rounds the
 * probabilities once, the output once and, with RoPE, q and k once each. One rounding is uniform within ±u of the
 * binade, 0.4u of the norm; five independent ones are 0.9u: 4.4e-4 for float16, 3.5e-3 for bfloat16. The limits leave
 * less than a factor of two above that; a single row is a sample of 64 to 256 values and may stray further.
 * float32: sums of up to 1e5 terms and an exp2 of 1-2 ulp stay below 1e-5.
 */
const tolerances: Partial<Record<DType, Tolerance>> = {
  float32: { relative: 1e-5, rowRelative: 4e-5, lse: 1e-5 },
  float16: { relative: 8e-4, rowRelative: 2e-3, lse: 5e-4 },
  bfloat16: { relative: 6e-3, rowRelative: 1.4e-2, lse: 4e-3 },
};

/**
 * Tolerance of an attention output of this dtype. `maxRopePosition`: the largest position rotated in the kernel; an
 * angle kept in float32 is off by position * 2^-24, which turns q and k by as much. Kernels also round q and k again
 * after rotating them: a logit then errs by 0.8u (one sigma, base 2), and where few keys are visible so does the lse;
 * over thousands of rows four sigma occur. `maxLogit`: the largest |logit|, natural; a float32 logit is off by some
 * 2^-24 of itself, and its weight by as much as the logit.
 */
export function attentionTolerance(dtype: DType, { maxRopePosition = 0, maxLogit = 0 } = {}): Tolerance {
  const tolerance = tolerances[dtype];
  if (!tolerance) throw new Error(`attentionTolerance: no entry for ${dtype}`);
  const angleError = maxRopePosition * 2 ** -24;
  const weightError = maxLogit * 2 ** -24;
  return {
    relative: tolerance.relative + angleError + weightError,
    rowRelative: tolerance.rowRelative + 4 * angleError + 8 * weightError,
    lse: (maxRopePosition > 0 ? 4 : 1) * tolerance.lse + angleError,
  };
}

/** The largest |logit| that a reference's base-2 log-sum-exp values speak of; 0 where rows see no key. */
export function largestLogit(lse: Float64Array): number {
  return lse.reduce((most, x) => (Number.isFinite(x) ? Math.max(most, Math.abs(x) * Math.LN2) : most), 0);
}

/**
 * By how much attention's lse of float8 queries and keys may be off on a GPU, for the largest logit: Hopper's tensor cores keep 13
 * bits of a sum of such products. On an H200, seeds whose largest logits are 9, 15, 36, 44 and 78 have 0.002, 0.009, 0.022, 0.034
 * and 0.034.
 */
const float8LseLimit = (maxLogit: number): number => 1e-2 + 2 ** -10 * maxLogit;

export interface Difference {
  /** Infinity where a value is NaN, infinite, or nonzero against an all-zero reference. */
  readonly relative: number;
  readonly maxAbsolute: number;
  readonly worstRow: number;
  readonly worstRowRelative: number;
}

/** Compares row by row; `rowLength` is the last dimension. The reference must be finite. */
export function difference(actual: ArrayLike<number>, reference: Float64Array, rowLength: number): Difference {
  if (actual.length !== reference.length) {
    throw new Error(`difference: ${actual.length} values; expected ${reference.length}`);
  }
  let errorSquares = 0;
  let squares = 0;
  let maxAbsolute = 0;
  let worstRow = 0;
  let worstRowRelative = 0;
  for (let row = 0; row * rowLength < reference.length; ++row) {
    let rowErrorSquares = 0;
    let rowSquares = 0;
    for (let n = row * rowLength; n < (row + 1) * rowLength; ++n) {
      const expected = reference[n]!;
      if (!Number.isFinite(expected)) throw new Error(`difference: the reference is ${expected} at ${n}`);
      const error = Number.isFinite(actual[n]!) ? Math.abs(actual[n]! - expected) : Infinity;
      rowErrorSquares += error * error;
      rowSquares += expected * expected;
      if (error > maxAbsolute) maxAbsolute = error;
    }
    const rowRelative = ratio(rowErrorSquares, rowSquares);
    if (rowRelative > worstRowRelative) {
      worstRowRelative = rowRelative;
      worstRow = row;
    }
    errorSquares += rowErrorSquares;
    squares += rowSquares;
  }
  return { relative: ratio(errorSquares, squares), maxAbsolute, worstRow, worstRowRelative };
}

/** Throws, naming both figures and the worst row, when `actual` is not within tolerance. NaN never passes. */
export function expectClose(
  actual: ArrayLike<number>,
  reference: Float64Array,
  rowLength: number,
  tolerance: Tolerance,
  label = 'out',
): void {
  const found = difference(actual, reference, rowLength);
  if (found.relative <= tolerance.relative && found.worstRowRelative <= tolerance.rowRelative) return;
  const start = found.worstRow * rowLength;
  throw new Error(
    `${label}: relative error ${found.relative.toExponential(2)} (limit ${tolerance.relative.toExponential(2)}), ` +
      `row ${found.worstRow} ${found.worstRowRelative.toExponential(2)} ` +
      `(limit ${tolerance.rowRelative.toExponential(2)}), max abs ${found.maxAbsolute.toExponential(2)}; ` +
      `that row starts ${firstValues(actual, start, rowLength)}, expected ${firstValues(reference, start, rowLength)}`,
  );
}

/** As {@link expectClose} for log-sum-exp values: infinities must be equal, NaN never passes. */
export function expectLseClose(
  actual: ArrayLike<number>,
  reference: Float64Array,
  tolerance: Tolerance,
  label = 'lse',
): void {
  expectLseWithin(actual, reference, (expected) => tolerance.lse * Math.max(1, Math.abs(expected)), label);
}

/** Attention of float8 queries and keys. `relative`: of the whole output, whose weights are rounded to e4m3 too. */
export function expectFloat8Close(
  out: ArrayLike<number>,
  lse: ArrayLike<number>,
  reference: { readonly out: Float64Array; readonly lse: Float64Array },
  relative: number,
  label: string,
): void {
  const found = difference(out, reference.out, reference.out.length).relative;
  if (!(found < relative)) throw new Error(`${label}: relative error ${found.toExponential(2)} (limit ${relative})`);
  const limit = float8LseLimit(largestLogit(reference.lse));
  expectLseWithin(lse, reference.lse, () => limit, `${label} lse`);
}

function expectLseWithin(
  actual: ArrayLike<number>,
  reference: Float64Array,
  limitOf: (expected: number) => number,
  label: string,
): void {
  if (actual.length !== reference.length) {
    throw new Error(`${label}: ${actual.length} values; expected ${reference.length}`);
  }
  for (let n = 0; n < reference.length; ++n) {
    const expected = reference[n]!;
    const limit = limitOf(expected);
    const close = Number.isFinite(expected) ? Math.abs(actual[n]! - expected) < limit : actual[n] === expected;
    if (!close)
      throw new Error(`${label}: ${actual[n]} at ${n}; expected ${expected} (limit ${limit.toExponential(2)})`);
  }
}

function ratio(errorSquares: number, squares: number): number {
  if (errorSquares === 0) return 0;
  return squares === 0 ? Infinity : Math.sqrt(errorSquares / squares);
}

function firstValues(x: ArrayLike<number>, start: number, rowLength: number): string {
  const values = Array.from({ length: Math.min(4, rowLength) }, (_, d) => x[start + d]!.toPrecision(5));
  return `[${values.join(', ')}…]`;
}
