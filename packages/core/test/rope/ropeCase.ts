// SPDX-License-Identifier: Apache-2.0
// q and k of a test, in one buffer or two, and what their rotation must be.
import { type Tensor, tensor } from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { testDevice } from '../device.ts';
import { type RopeShape, ropeReference } from '../reference/rope.ts';
import { expectRounded } from '../reference/rounding.ts';
import { held, randomRows } from '../rows.ts';

export interface QkShape {
  readonly tokens: number;
  readonly heads: readonly [q: number, k: number];
  readonly headDim: number;
  readonly dtype: DType;
  /** Elements behind each head; `fused`: q and k are slices of the output of one projection, which has v too. */
  readonly layout: number | 'fused';
}

export interface Qk {
  readonly q: Tensor;
  readonly k: Tensor;
  /** What must not change: v, and what lies behind the heads. */
  readonly rest: Tensor[];
}

export function makeQk({ tokens, heads: [qHeads, kHeads], headDim, dtype, layout }: QkShape): Qk {
  if (layout === 'fused') {
    const all = randomRows([tokens, qHeads + 2 * kHeads, headDim], dtype, 0).tensor;
    const [q, k] = [all.slice(1, 0, qHeads), all.slice(1, qHeads, qHeads + kHeads)];
    return { q, k, rest: [all.slice(1, qHeads + kHeads, qHeads + 2 * kHeads)] };
  }
  const [q, k] = [qHeads, kHeads].map((heads, stream) =>
    randomRows([tokens, heads, headDim], dtype, stream, { padding: layout }),
  );
  const rest = [q!, k!].map(({ buffer }) => buffer.slice(2, headDim, headDim + layout));
  return { q: q!.tensor, k: k!.tensor, rest };
}

export type Angle = Parameters<typeof ropeReference>[2];

/** `[positions[token]` and frequencies to cosines and sines, in float64. */
export function angleOf(positions: ArrayLike<number>, frequencies: Float64Array): Angle {
  return (token, d) => {
    const angle = positions[token]! * frequencies[d]!;
    return [Math.cos(angle), Math.sin(angle)];
  };
}

/** Fast sines are off by up to 4e-7, the angle in turns by as much; `angleError`: by how much it may be off besides. */
export function expectRotated(
  out: Tensor,
  x: Float64Array,
  shape: RopeShape,
  angle: Angle,
  label: string,
  angleError = 0,
): void {
  const reference = ropeReference(x, shape, angle);
  const found = held(out);
  expectRounded(
    found,
    reference.out,
    out.dtype,
    { relative: 2 ** -23, absolute: (i) => (1e-6 + angleError) * reference.magnitude[i]! },
    label,
  );
  for (let i = 0; i < x.length; ++i) {
    if (reference.magnitude[i] === 0 && !Object.is(found[i], x[i]))
      throw new Error(`${label}: element ${i} was changed`);
  }
}

export const indices = (values: readonly number[], dtype: 'int32' | 'int64' = 'int32'): Tensor =>
  tensor([...values], { dtype, device: testDevice });
