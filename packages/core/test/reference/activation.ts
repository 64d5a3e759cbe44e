// SPDX-License-Identifier: Apache-2.0
// Gated activations in float64, from their definitions.

export const activationReferences = {
  silu: (x: number): number => x / (1 + Math.exp(-x)),
  gelu: (x: number): number => 0.5 * x * erfc(-x / Math.SQRT2),
  // 1 + tanh(u) = 2 / (1 + e^-2u), without the cancellation.
  geluTanh: (x: number): number => x / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

/** activation(x[:, :d]) * x[:, d:] of rows of 2d elements. */
export function actAndMulReference(
  activation: keyof typeof activationReferences,
  x: ArrayLike<number>,
  d: number,
): Float64Array {
  const apply = activationReferences[activation];
  return Float64Array.from({ length: x.length / 2 }, (_, i) => {
    const start = Math.floor(i / d) * 2 * d + (i % d);
    return apply(x[start]!) * x[start + d]!;
  });
}

/** 1 - erf(x) to about 1e-13, relative also where it is tiny. */
export function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2) {
    // Taylor series of erf.
    let [sum, term] = [x, x];
    for (let n = 1; Math.abs(term) > 1e-18; ++n) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * sum;
  }
  // Continued fraction x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …))), backwards.
  let tail = x;
  for (let n = 200; n > 0; --n) tail = x + n / 2 / tail;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * tail);
}
