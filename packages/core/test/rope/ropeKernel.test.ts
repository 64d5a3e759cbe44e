// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { checkSpec } from '../../src/jit/spec.ts';
import { chooseRopeTile, ropeSpec, ropeSpecs } from '../../src/rope/ropeKernel.ts';

const cached = { angles: 'cache', positions: 'posIds', interleave: false, inPlace: false } as const;
const made = { ...cached, angles: 'frequency' } as const;

describe('chooseRopeTile', () => {
  it('gives a thread a head of few tokens, and four of many', () => {
    const one = { vec: 8, heads: 1, ahead: false };
    const few = { ...one, columns: 8, groups: 40, tokensPerBlock: 1, blocksPerToken: 2, threads: 160 };
    expect(chooseRopeTile(64, 40, 128, 8, 132, cached)).toEqual(few);
    expect(chooseRopeTile(1, 40, 128, 8, 132, cached)).toEqual({ ...few, blocksPerToken: 4, threads: 96 });
    expect(chooseRopeTile(1, 40, 128, 8, 132, made)).toEqual(few);
    const four = { vec: 8, heads: 4, ahead: true };
    const many = { ...four, columns: 8, groups: 10, tokensPerBlock: 2, blocksPerToken: 1, threads: 160 };
    expect(chooseRopeTile(8192, 40, 128, 8, 132, cached)).toEqual(many);
    expect(chooseRopeTile(8192, 40, 128, 8, 132, { ...cached, interleave: true, inPlace: true })).toEqual(many);
    const blocks = { ahead: false, tokensPerBlock: 3, threads: 256 };
    expect(chooseRopeTile(8192, 40, 128, 8, 132, made)).toEqual({ ...many, ...blocks });
    const some = { ...many, ahead: false, heads: 2, groups: 20, tokensPerBlock: 1 };
    expect(chooseRopeTile(1024, 40, 128, 8, 132, made)).toEqual(some);
    expect(chooseRopeTile(1024, 40, 128, 8, 132, cached)).toMatchObject({ heads: 4 });
    expect(chooseRopeTile(8192, 40, 128, 8, 132, { ...made, positions: 'indptr' })).toEqual(some);
  });

  it('gives a thread a head of many tokens of a table in place, and a token a block', () => {
    const inPlace = { ...cached, inPlace: true };
    const expected = { heads: 1, ahead: true, tokensPerBlock: 1, blocksPerToken: 1, threads: 320 };
    expect(chooseRopeTile(8192, 40, 128, 8, 132, inPlace)).toMatchObject(expected);
    expect(chooseRopeTile(8192, 72, 128, 8, 132, inPlace)).toMatchObject({ ...expected, threads: 576 });
    expect(chooseRopeTile(8192, 12, 128, 8, 132, inPlace)).toMatchObject({
      ...expected,
      tokensPerBlock: 2,
      threads: 192,
    });
    expect(chooseRopeTile(8192, 129, 128, 8, 132, inPlace)).toMatchObject({ blocksPerToken: 2, threads: 544 });
    expect(chooseRopeTile(8192, 129, 64, 8, 132, { ...inPlace, interleave: true })).toMatchObject({
      ...expected,
      threads: 544,
    });
  });

  it('halves the accesses of very few tokens by position ids in place', () => {
    const inPlace = { ...cached, inPlace: true };
    const few = { vec: 4, heads: 1, ahead: false, columns: 16, groups: 40, tokensPerBlock: 1 };
    expect(chooseRopeTile(1, 40, 128, 8, 132, inPlace)).toEqual({ ...few, blocksPerToken: 7, threads: 96 });
    expect(chooseRopeTile(32, 40, 128, 8, 132, inPlace)).toEqual({ ...few, blocksPerToken: 3, threads: 224 });
    expect(chooseRopeTile(52, 40, 128, 8, 132, { ...made, inPlace: true }).vec).toBe(4);
    expect(chooseRopeTile(53, 40, 128, 8, 132, { ...made, inPlace: true }).vec).toBe(8);
    expect(chooseRopeTile(1, 40, 128, 8, 132, { ...inPlace, positions: 'indptr' }).vec).toBe(8);
    expect(chooseRopeTile(1, 40, 128, 2, 132, inPlace).vec).toBe(2);
  });

  it('covers every head of every token', () => {
    for (const [tokens, heads, rotaryDim, vec] of [
      [1, 1, 2, 1],
      [1, 500, 1024, 1],
      [1, 5, 96, 8],
      [100_000, 7, 96, 8],
      [100_000, 6, 96, 8],
      [100_000, 129, 1024, 4],
    ] as const) {
      for (const options of [cached, { ...cached, inPlace: true }, made, { ...made, positions: 'indptr' } as const]) {
        const tile = chooseRopeTile(tokens, heads, rotaryDim, vec, 132, options);
        expect(tile.columns * tile.vec * 2).toBe(rotaryDim);
        expect(tile.groups * tile.heads).toBe(heads);
        expect(tile.threads % 32 === 0 && tile.threads <= (tile.heads === 1 && tile.ahead ? 1024 : 256)).toBe(true);
        const items = tile.columns * tile.groups * tile.tokensPerBlock;
        expect(tile.blocksPerToken * tile.threads).toBeGreaterThanOrEqual(items);
        expect(tile.blocksPerToken === 1 || tile.tokensPerBlock === 1).toBe(true);
      }
    }
  });
});

describe('ropeSpec', () => {
  it('is one valid object an instantiation', () => {
    const specs = ropeSpecs();
    for (const spec of specs) checkSpec(spec);
    expect(new Set(specs.map(({ name }) => name)).size).toBe(specs.length);
    const options = {
      dtype: 'bfloat16',
      indexDtype: 'int64',
      interleave: true,
      positions: 'posIds',
      angles: 'cache',
      inPlace: true,
    } as const;
    const four = { vec: 8, heads: 4, ahead: true };
    expect(ropeSpec(options, four)).toBe(ropeSpec({ ...options }, { ...four }));
    expect(ropeSpec(options, four).name).toBe('rope_bf16_pos_ids_i64_cache_interleave_inplace_v8h4_ahead');
    expect(ropeSpec(options, { ...four, heads: 1, ahead: false }).name).toMatch(/_v8h1$/);
  });
});
