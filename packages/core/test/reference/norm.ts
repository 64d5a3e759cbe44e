// SPDX-License-Identifier: Apache-2.0
// Norms of rows in float64, from their definitions.

export interface NormReferenceOptions {
  readonly eps: number;
  /** `x - mean` instead of x, as LayerNorm does. */
  readonly centered?: boolean;
  readonly bias?: ArrayLike<number>;
  /** Added to the weight. */
  readonly weightOffset?: number;
}

/** Rows of `weight.length` elements. */
export function normReference(
  x: ArrayLike<number>,
  weight: ArrayLike<number>,
  { eps, centered = false, bias, weightOffset = 0 }: NormReferenceOptions,
): Float64Array {
  const { length } = weight;
  const out = new Float64Array(x.length);
  for (let start = 0; start < x.length; start += length) {
    let mean = 0;
    if (centered) for (let i = 0; i < length; ++i) mean += x[start + i]! / length;
    let variance = 0;
    for (let i = 0; i < length; ++i) variance += (x[start + i]! - mean) ** 2 / length;
    const deviation = Math.sqrt(variance + eps);
    for (let i = 0; i < length; ++i) {
      out[start + i] = ((x[start + i]! - mean) / deviation) * (weight[i]! + weightOffset) + (bias?.[i] ?? 0);
    }
  }
  return out;
}
