// SPDX-License-Identifier: Apache-2.0
import { expect } from 'vitest';

/** Chi-square of draws against the distribution; categories expected fewer than five times must come rarely. */
export function expectDistribution(tokens: readonly number[], probs: Float64Array): void {
  const counts = new Float64Array(probs.length);
  for (const token of tokens) counts[token]!++;
  const sum = probs.reduce((a, b) => a + b, 0);
  let [chi, degrees] = [0, -1];
  probs.forEach((p, i) => {
    const expected = (p / sum) * tokens.length;
    if (p === 0) expect(counts[i], `token ${i} of probability 0`).toBe(0);
    if (expected < 5) return;
    chi += (counts[i]! - expected) ** 2 / expected;
    degrees++;
  });
  expect(chi).toBeLessThan(degrees + 5 * Math.sqrt(2 * Math.max(degrees, 1)));
}
