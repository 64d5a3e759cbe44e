// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { checkSpec } from '../../src/jit/spec.ts';
import { appendSpec, chooseAppendTile, chooseWholeTile, pageSpecs } from '../../src/page/pageKernel.ts';

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
      const { rows, layout, slots, blocks, blocksPerToken, threads } = chooseAppendTile(tokens, items, 132);
      expect(blocks * slots * rows).toBeGreaterThanOrEqual(tokens);
      expect(blocksPerToken * threads).toBeGreaterThanOrEqual(items);
      expect(threads % 32 === 0 && threads <= 1024).toBe(true);
      expect(slots === 1 || slots * items <= 256).toBe(true);
      expect(blocksPerToken === 1 || slots === 1).toBe(true);
      expect(layout).toBe(items % 32 === 0 ? 'uniform' : 'any');
    }
  });
});

describe('chooseWholeTile', () => {
  it('gives a token threads for half of its accesses, and of many tokens two', () => {
    const few = { layout: 'whole', rows: 1, slots: 1, blocks: 2111, blocksPerToken: 1, threads: 128 };
    expect(chooseWholeTile(2111, 128, 132)).toEqual(few);
    expect(chooseWholeTile(2113, 128, 132)).toEqual({ ...few, rows: 2, blocks: 1057 });
    expect(chooseWholeTile(1, 144, 132)).toEqual({ ...few, blocks: 1, threads: 160 });
    expect(chooseWholeTile(1, 1040, 132)).toEqual({ ...few, blocks: 1, blocksPerToken: 2, threads: 544 });
    expect(chooseWholeTile(9000, 100, 132)).toMatchObject({ rows: 2, blocksPerToken: 1, threads: 128 });
  });
});

describe('page specs', () => {
  it('are one valid object an instantiation', () => {
    for (const spec of pageSpecs()) checkSpec(spec);
    expect(new Set(pageSpecs().map(({ name }) => name)).size).toBe(pageSpecs().length);
    const tile = { rows: 2, layout: 'uniform' } as const;
    expect(appendSpec(16, tile)).toBe(appendSpec(16, { ...tile }));
    expect(appendSpec(16, tile).name).toBe('append_paged_kv_b16r2_uniform');
  });
});
