// SPDX-License-Identifier: Apache-2.0
// Filters of rows in float64, by a full sort.

/** softmax(row / temperature). */
export function softmaxReference(row: ArrayLike<number>, temperature = 1): Float64Array {
  const logits = Float64Array.from(row);
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = logits.map((x) => Math.exp((x - max) / temperature));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / sum);
}

/** The k-th largest value: what is smaller is not kept. */
export function topKThreshold(row: ArrayLike<number>, k: number): number {
  const sorted = Float64Array.from(row).sort();
  return k >= sorted.length ? -Infinity : sorted[sorted.length - k]!;
}

/** The smallest value of the nucleus, for the elements from `least` up. */
export function topPThreshold(row: ArrayLike<number>, p: number, least = -Infinity): number {
  const sorted = Float64Array.from(row)
    .filter((x) => x >= least)
    .sort()
    .reverse();
  const target = p * sorted.reduce((a, b) => a + b, 0);
  let sum = 0;
  for (const x of sorted) {
    sum += x;
    if (sum >= target) return x;
  }
  return -Infinity;
}

/** The elements from `threshold` up, divided by their sum. */
export function renormReference(row: ArrayLike<number>, threshold: number): Float64Array {
  const kept = Float64Array.from(row).map((x) => (x >= threshold ? x : 0));
  const sum = kept.reduce((a, b) => a + b, 0);
  return kept.map((x) => (sum > 0 ? x / sum : 0));
}
