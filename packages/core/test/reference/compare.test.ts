// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import {
  attentionTolerance,
  difference,
  expectClose,
  expectFloat8Close,
  expectLseClose,
  largestLogit,
} from './compare.ts';

const tolerance = { relative: 1e-3, rowRelative: 2e-3, lse: 1e-3 };

describe('expectClose', () => {
  const reference = Float64Array.from({ length: 4000 }, (_, n) => Math.sin(n + 1));

  it('accepts equal values and values within tolerance', () => {
    expect(() => expectClose(reference, reference, 4, tolerance)).not.toThrow();
    expect(() =>
      expectClose(
        reference.map((x) => x * 1.0009),
        reference,
        4,
        tolerance,
      ),
    ).not.toThrow();
    expect(() =>
      expectClose(
        reference.map((x) => x * 1.0011),
        reference,
        4,
        tolerance,
      ),
    ).toThrow(/relative error/);
  });

  it('finds a single wrong row that the whole norm would hide', () => {
    const wrong = reference.slice();
    wrong[2001]! += 0.01;
    expect(difference(wrong, reference, 4).relative).toBeLessThan(tolerance.relative);
    expect(() => expectClose(wrong, reference, 4, tolerance, 'o')).toThrow(/^o: .*row 500/);
  });

  it.each([Number.NaN, Infinity, -Infinity])('never accepts %s', (bad) => {
    const wrong = reference.slice();
    wrong[7] = bad;
    expect(difference(wrong, reference, 4).maxAbsolute).toBe(Infinity);
    expect(() => expectClose(wrong, reference, 4, { ...tolerance, relative: 1e300, rowRelative: 1e300 })).toThrow();
  });

  it('takes all-zero rows exactly', () => {
    const zeros = new Float64Array(8);
    expect(() => expectClose(zeros, zeros, 4, tolerance)).not.toThrow();
    expect(() => expectClose(Float64Array.of(0, 0, 0, 0, 0, 1e-30, 0, 0), zeros, 4, tolerance)).toThrow(/row 1/);
  });

  it('refuses a reference that is not finite, and other lengths', () => {
    expect(() => difference([1], Float64Array.of(Number.NaN), 1)).toThrow(/reference is NaN/);
    expect(() => difference([1, 2], Float64Array.of(1), 1)).toThrow(/2 values; expected 1/);
  });
});

describe('expectLseClose', () => {
  it('compares infinities exactly and never accepts NaN', () => {
    const reference = Float64Array.of(-Infinity, 1, 100);
    expect(() => expectLseClose([-Infinity, 1.0005, 100.05], reference, tolerance)).not.toThrow();
    expect(() => expectLseClose([-1e30, 1, 100], reference, tolerance)).toThrow(/-1e\+30 at 0; expected -Infinity/);
    expect(() => expectLseClose([-Infinity, Number.NaN, 100], reference, tolerance)).toThrow(/NaN at 1/);
    expect(() => expectLseClose([-Infinity, 1.002, 100], reference, tolerance)).toThrow(/at 1/);
    expect(() => expectLseClose([-Infinity, 1, Infinity], reference, tolerance)).toThrow(/Infinity at 2/);
  });
});

describe('expectFloat8Close', () => {
  const reference = { out: Float64Array.of(3, 4), lse: Float64Array.of(-Infinity, 64 / Math.LN2) };
  const close = (out: number[], lse: number[]) => () => expectFloat8Close(out, lse, reference, 1e-2, 'o');

  it('has a limit for the whole output, and one for lse that grows with the largest logit', () => {
    expect(close([3.04, 4], [-Infinity, reference.lse[1]! + 0.072])).not.toThrow();
    expect(close([3.06, 4], [...reference.lse])).toThrow(/^o: relative error 1.20e-2/);
    expect(close([3, 4], [-Infinity, reference.lse[1]! + 0.073])).toThrow(/^o lse: .*limit 7.25e-2/);
    expect(close([3, 4], [-1e30, reference.lse[1]!])).toThrow(/^o lse: .* expected -Infinity/);
    expect(close([3, Number.NaN], [...reference.lse])).toThrow(/^o: /);
    expect(close([3, 4], [-Infinity, Number.NaN])).toThrow(/^o lse: NaN at 1/);
  });
});

describe('attentionTolerance', () => {
  it('is tighter for wider types and grows with rotated positions and with logits', () => {
    const f32 = attentionTolerance('float32');
    const f16 = attentionTolerance('float16');
    const bf16 = attentionTolerance('bfloat16');
    expect(f32.relative).toBeLessThan(f16.relative);
    expect(f16.relative).toBeLessThan(bf16.relative);
    expect(attentionTolerance('float32', { maxRopePosition: 1 << 14 }).relative).toBeCloseTo(1e-5 + 2 ** -10, 12);
    expect(attentionTolerance('float32', { maxLogit: 256 }).rowRelative).toBeCloseTo(4e-5 + 2 ** -13, 12);
    expect(() => attentionTolerance('int8')).toThrow(/no entry for int8/);
  });

  it('takes the largest logit from lse values, those of empty rows aside', () => {
    expect(largestLogit(Float64Array.of(-Infinity, -3, 2))).toBeCloseTo(3 * Math.LN2, 12);
    expect(largestLogit(Float64Array.of(-Infinity))).toBe(0);
  });
});
