// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { ropeFrequencies, ropeReference } from './rope.ts';

describe('ropeFrequencies', () => {
  it('falls by the same factor from pair to pair', () => {
    const f = ropeFrequencies(8, { ropeScale: 2, ropeTheta: 1e4 });
    expect([...f].map((value) => value.toPrecision(12))).toEqual(
      [0.5, 0.05, 0.005, 0.0005].map((v) => v.toPrecision(12)),
    );
  });

  it('scales long wavelengths of Llama 3.1 only, and is continuous between', () => {
    const smoothing = { lowFreqFactor: 1, highFreqFactor: 4, oldContextLen: 8192 };
    const plain = ropeFrequencies(128, { ropeScale: 1, ropeTheta: 5e5 });
    const scaled = ropeFrequencies(128, { ropeScale: 8, ropeTheta: 5e5, smoothing });
    const ratios = [...plain].map((f, d) => scaled[d]! / f);
    expect(ratios[0]).toBe(1);
    expect(ratios[63]).toBe(1 / 8);
    expect(ratios.filter((ratio) => ratio > 1 / 8 && ratio < 1).length).toBeGreaterThan(2);
    for (let d = 1; d < 64; ++d) expect(ratios[d]).toBeLessThanOrEqual(ratios[d - 1]!);
  });
});

describe('ropeReference', () => {
  const quarter = (): readonly [number, number] => [0, 1];

  it('turns halves, and leaves the rest', () => {
    const shape = { heads: 1, headDim: 5, rotaryDim: 4, interleave: false };
    const { out, magnitude } = ropeReference(Float64Array.of(1, 2, 3, 4, 5), shape, quarter);
    expect([...out]).toEqual([-3, -4, 1, 2, 5]);
    expect([...magnitude]).toEqual([4, 6, 4, 6, 0]);
  });

  it('turns neighbours', () => {
    const shape = { heads: 1, headDim: 4, rotaryDim: 4, interleave: true };
    expect([...ropeReference(Float64Array.of(1, 2, 3, 4), shape, quarter).out]).toEqual([-2, 1, -4, 3]);
  });

  it('gives every head of a token its angle', () => {
    const shape = { heads: 2, headDim: 2, rotaryDim: 2, interleave: false };
    const { out } = ropeReference(Float64Array.of(1, 0, 1, 0, 1, 0, 1, 0), shape, (token) => [1 - token, token]);
    expect([...out]).toEqual([1, 0, 1, 0, 0, 1, 0, 1]);
  });
});
