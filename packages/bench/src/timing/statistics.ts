// SPDX-License-Identifier: Apache-2.0
// Order statistics of timing samples.

/** Microseconds of one operation. */
export interface Summary {
  readonly samples: number;
  readonly minUs: number;
  readonly p10Us: number;
  readonly medianUs: number;
  readonly p90Us: number;
}

/** Median, spread and minimum; throws on no samples or on one that is no time. */
export function summarize(samplesUs: readonly number[]): Summary {
  if (samplesUs.length === 0) throw new RangeError('summarize: no samples');
  const bad = samplesUs.find((us) => !(us >= 0 && us < Infinity));
  if (bad !== undefined) throw new RangeError(`summarize: ${bad} is not a duration`);
  const sorted = [...samplesUs].sort((a, b) => a - b);
  return {
    samples: sorted.length,
    minUs: quantile(sorted, 0),
    p10Us: quantile(sorted, 0.1),
    medianUs: quantile(sorted, 0.5),
    p90Us: quantile(sorted, 0.9),
  };
}

/** Linear interpolation between the closest ranks of ascending values. */
export function quantile(sorted: readonly number[], fraction: number): number {
  const position = fraction * (sorted.length - 1);
  const below = Math.floor(position);
  const low = sorted[below]!;
  const high = sorted[Math.min(below + 1, sorted.length - 1)]!;
  return low + (high - low) * (position - below);
}
