// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings in float64, from their definitions.

export interface Frequencies {
  readonly ropeScale: number;
  readonly ropeTheta: number;
  /** Of Llama 3.1. */
  readonly smoothing?: {
    readonly lowFreqFactor: number;
    readonly highFreqFactor: number;
    readonly oldContextLen: number;
  };
}

/** Radians a position of each pair of a rotary dimension. */
export function ropeFrequencies(rotaryDim: number, { ropeScale, ropeTheta, smoothing }: Frequencies): Float64Array {
  return Float64Array.from({ length: rotaryDim / 2 }, (_, d) => {
    const frequency = ropeTheta ** ((-2 * d) / rotaryDim);
    if (smoothing === undefined) return frequency / ropeScale;
    const { lowFreqFactor, highFreqFactor, oldContextLen } = smoothing;
    const wavelength = (2 * Math.PI) / frequency;
    if (wavelength < oldContextLen / highFreqFactor) return frequency;
    if (wavelength > oldContextLen / lowFreqFactor) return frequency / ropeScale;
    const kept = (oldContextLen / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
    return ((1 - kept) * frequency) / ropeScale + kept * frequency;
  });
}

export interface RopeShape {
  readonly heads: number;
  readonly headDim: number;
  readonly rotaryDim: number;
  readonly interleave: boolean;
}

export interface RopeResult {
  readonly out: Float64Array;
  /** |a| + |b| of the pair that an element belongs to; 0 where it is not rotated. */
  readonly magnitude: Float64Array;
}

/** `angle(token, d)`: cosine and sine of pair d. x is `[tokens, heads, headDim]`. */
export function ropeReference(
  x: Float64Array,
  { heads, headDim, rotaryDim, interleave }: RopeShape,
  angle: (token: number, d: number) => readonly [cosine: number, sine: number],
): RopeResult {
  const out = Float64Array.from(x);
  const magnitude = new Float64Array(x.length);
  for (let row = 0; row * headDim < x.length; ++row) {
    for (let d = 0; d < rotaryDim / 2; ++d) {
      const i = row * headDim + (interleave ? 2 * d : d);
      const j = i + (interleave ? 1 : rotaryDim / 2);
      const [cosine, sine] = angle(Math.floor(row / heads), d);
      out[i] = x[i]! * cosine - x[j]! * sine;
      out[j] = x[j]! * cosine + x[i]! * sine;
      magnitude[i] = Math.abs(x[i]!) + Math.abs(x[j]!);
      magnitude[j] = magnitude[i]!;
    }
  }
  return { out, magnitude };
}
