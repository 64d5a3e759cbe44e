// SPDX-License-Identifier: Apache-2.0
// Random test inputs: fresh on every run, repeatable with FLASHINFER_TEST_SEED.

/** Seed of this run, to be named in messages of failing tests. */
export const testSeed = Number(process.env.FLASHINFER_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));

/** Source of uniform numbers in [0, 1): mulberry32, seeded by the run's seed and the caller's stream number. */
export function uniformSource(stream: number, seed: number = testSeed): () => number {
  let state = (seed ^ Math.imul(stream + 1, 0x9e3779b9)) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Standard normal values (Box-Muller). */
export function normalArray(length: number, stream: number, scale = 1): Float32Array {
  const uniform = uniformSource(stream);
  const values = new Float32Array(length);
  for (let n = 0; n < length; n += 2) {
    const radius = scale * Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    values[n] = radius * Math.cos(angle);
    if (n + 1 < length) values[n + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** 0 or 1 with the given probability of 1. */
export function maskArray(length: number, stream: number, density = 0.5): Uint8Array {
  const uniform = uniformSource(stream);
  return Uint8Array.from({ length }, () => (uniform() < density ? 1 : 0));
}
