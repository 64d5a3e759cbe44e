// SPDX-License-Identifier: Apache-2.0
// Element-by-element comparison for operators whose result is one float32 computation, rounded once.
import type { DType } from '../../src/tensor/dtype.ts';
import { testSeed } from './random.ts';

/** Unit roundoff, the largest finite value and half of the smallest subnormal. */
const formats: Partial<Record<DType, { roundoff: number; max: number; tiny: number }>> = {
  float32: { roundoff: 2 ** -24, max: 3.4028234663852886e38, tiny: 2 ** -126 },
  float16: { roundoff: 2 ** -11, max: 65504, tiny: 2 ** -25 },
  bfloat16: { roundoff: 2 ** -8, max: 3.3895313892515355e38, tiny: 2 ** -126 },
  float8_e4m3fn: { roundoff: 2 ** -4, max: 448, tiny: 2 ** -10 },
  float8_e5m2: { roundoff: 2 ** -3, max: 57344, tiny: 2 ** -17 },
};

export interface FloatError {
  /** Error of the float32 computation relative to the result. Default 2e-6. */
  readonly relative?: number;
  /** And beside it, of element i: what cancellation leaves. Default 0. */
  readonly absolute?: (i: number) => number;
}

/** Throws, naming the worst element, unless every value is the reference within float32 error, rounded to `dtype`. */
export function expectRounded(
  actual: ArrayLike<number>,
  reference: ArrayLike<number>,
  dtype: DType,
  { relative = 2e-6, absolute = () => 0 }: FloatError = {},
  label = 'out',
): void {
  const { roundoff, max, tiny } = formats[dtype]!;
  if (actual.length !== reference.length) {
    throw new Error(`${label}: ${actual.length} values; expected ${reference.length}`);
  }
  for (let i = 0; i < reference.length; ++i) {
    const expected = reference[i]!;
    if (!Number.isFinite(expected) || Math.abs(expected) > max)
      throw new Error(`${label}: reference ${expected} at ${i}`);
    const limit = (roundoff + relative) * Math.abs(expected) + absolute(i) * (1 + roundoff) + tiny;
    if (Math.abs(actual[i]! - expected) <= limit) continue;
    throw new Error(
      `[seed ${testSeed}] ${label}: ${actual[i]} at ${i}; expected ${expected} within ${limit.toExponential(2)}`,
    );
  }
}
