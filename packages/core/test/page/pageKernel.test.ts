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
      const { rows, uniform, slots, blocks, blocksPerToken } = chooseAppendTile(tokens, items, 132);
      expect(blocks * slots * rows).toBeGreaterThanOrEqual(tokens);
      expect(blocksPerToken * 256).toBeGreaterThanOrEqual(items);
      expect(slots === 1 || slots * items <= 256).toBe(true);
      expect(blocksPerToken === 1 || slots === 1).toBe(true);
      expect(uniform).toBe(items % 32 === 0);
    }
  });
});

describe('page specs', () => {
  it('are one valid object an instantiation', () => {
    for (const spec of pageSpecs()) checkSpec(spec);
    expect(new Set(pageSpecs().map(({ name }) => name)).size).toBe(pageSpecs().length);
    const tile = { rows: 2, uniform: true };
    expect(appendSpec(16, tile)).toBe(appendSpec(16, { ...tile }));
    expect(appendSpec(16, tile).name).toBe('append_paged_kv_b16r2_uniform');
  });
});
