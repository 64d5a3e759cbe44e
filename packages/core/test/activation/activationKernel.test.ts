// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { activationSpec, activationSpecs, chooseActivationTile } from '../../src/activation/activationKernel.ts';
import { checkSpec } from '../../src/jit/spec.ts';

it.each([
  // length, vec, rows → threads a row, rows and blocks a row
  [14336, 8, 8192, [448, 1, 4]],
  [14336, 8, 64, [128, 1, 14]],
  [14336, 8, 1, [128, 1, 14]],
  [11008, 8, 8192, [480, 1, 3]],
  [4096, 8, 8192, [512, 1, 1]],
  [2048, 8, 4, [128, 1, 2]],
  [256, 8, 1, [32, 4, 1]],
  [64, 8, 8192, [8, 16, 1]],
  [8, 8, 1, [1, 128, 1]],
  [111, 1, 3, [128, 1, 1]],
  [34_001, 1, 8192, [512, 1, 67]],
])('spreads rows of %i in vectors of %i, %i of them', (length, vec, numRows, [cols, rows, chunks]) => {
  expect(chooseActivationTile(length, vec, numRows, 132)).toEqual({ vec, cols, rows, chunks });
});

it('covers every row with whole warps', () => {
  for (let length = 1; length < 40_000; length += length < 1000 ? 1 : 97) {
    for (const numRows of [1, 100, 100_000]) {
      const { cols, rows, chunks } = chooseActivationTile(length, 1, numRows, 132);
      expect(cols * chunks).toBeGreaterThanOrEqual(length);
      expect((cols * rows) % 32 === 0 && cols * rows <= 512 && (chunks === 1 || rows === 1)).toBe(true);
    }
  }
});

it('describes each instantiation by one valid object', () => {
  const specs = activationSpecs();
  for (const spec of specs) checkSpec(spec);
  expect(new Set(specs.map(({ name }) => name)).size).toBe(specs.length);
  const tile = chooseActivationTile(4096, 8, 1, 132);
  expect(activationSpec('gelu_tanh', 'bfloat16', tile)).toBe(activationSpec('gelu_tanh', 'bfloat16', { ...tile }));
  expect(activationSpec('gelu_tanh', 'bfloat16', tile).name).toBe('gelu_tanh_and_mul_bf16_v8_128x1');
});
