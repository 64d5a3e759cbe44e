// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { checkSpec } from '../../src/jit/spec.ts';
import { appendSpec, chooseAppendTile, pageSpecs } from '../../src/page/pageKernel.ts';

describe('chooseAppendTile', () => {
  it('covers every access of every token', () => {
    for (const [tokens, items] of [
      [1, 1],
      [1, 256],
      [64, 72],
      [1_000_000, 3],
      [16384, 256],
      [5000, 100_000],
    ] as const) {
      const { rows, slots, blocks, blocksPerToken } = chooseAppendTile(tokens, items, 132);
      expect(blocks * slots * rows).toBeGreaterThanOrEqual(tokens);
      expect(blocksPerToken * 128).toBeGreaterThanOrEqual(items);
      // A thread a token looks up where it goes.
      expect(slots * rows).toBeLessThanOrEqual(128);
      expect(slots === 1 || slots * items <= 128).toBe(true);
      expect(blocksPerToken === 1 || slots === 1).toBe(true);
    }
  });
});

describe('page specs', () => {
  it('are one valid object an instantiation', () => {
    for (const spec of pageSpecs()) checkSpec(spec);
    expect(new Set(pageSpecs().map(({ name }) => name)).size).toBe(pageSpecs().length);
    expect(appendSpec(16, 2, true)).toBe(appendSpec(16, 2, true));
  });
});
