// SPDX-License-Identifier: Apache-2.0
// Merging attention states, bound by bandwidth.
import { mergeState, mergeStateInPlace, mergeStates, randn, type Tensor } from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

const numHeads = 32;
const headDim = 128;

/** `numStates` 0: a pair, in place. */
function mergeCase(n: number, numStates: number): DeviceCase {
  const form = numStates === 0 ? 'in_place' : numStates === 2 ? 'pair' : `states${numStates}`;
  const moved = numStates === 0 ? 3 : numStates + 1;
  return {
    name: `merge/${form}_n${n}_h${numHeads}_d${headDim}_bf16`,
    params: { n, numStates, numHeads, headDim, dtype: 'bfloat16' },
    devices: ['cpu', 'cuda'],
    kind: 'device',
    bytes: moved * n * numHeads * (2 * headDim + 4),
    flops: 0,
    setup({ device }, rotations) {
      const draw = (shape: number[], dtype: 'bfloat16' | 'float32', seed: number): Tensor =>
        randn(shape, { dtype, device, seed });
      const many = numStates > 2 ? [numStates] : [];
      const sets = Array.from({ length: rotations }, (_, r) => ({
        v: draw([n, ...many, numHeads, headDim], 'bfloat16', 4 * r),
        s: draw([n, ...many, numHeads], 'float32', 4 * r + 1),
        vOther: draw([n, numHeads, headDim], 'bfloat16', 4 * r + 2),
        sOther: draw([n, numHeads], 'float32', 4 * r + 3),
      }));
      return {
        run(rotation) {
          const { v, s, vOther, sOther } = sets[rotation]!;
          if (numStates === 0) return mergeStateInPlace(v, s, vOther, sOther);
          const merged = numStates === 2 ? mergeState(v, s, vOther, sOther) : mergeStates(v, s);
          for (const each of merged) each.dispose();
        },
        dispose() {
          for (const each of sets.flatMap(({ v, s, vOther, sOther }) => [v, s, vOther, sOther])) each.dispose();
        },
      };
    },
  };
}

export const mergeCases: DeviceCase[] = [
  ...[64, 8192].flatMap((n) => [mergeCase(n, 0), mergeCase(n, 2)]),
  mergeCase(16, 128),
  mergeCase(2048, 16),
];
