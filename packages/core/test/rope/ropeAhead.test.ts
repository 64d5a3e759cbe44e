// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { empty, type Tensor } from '../../src/index.ts';
import { ropeAhead } from '../../src/rope/ropeAhead.ts';

const tile = { vec: 8, ahead: true };

describe('ropeAhead', () => {
  const qkv = empty([9000, 48, 128], { dtype: 'bfloat16', device: 'cpu' });
  const heads = (x: Tensor, count: number) => ({ x, out: x, heads: count });
  const call = (q: Tensor, k: Tensor, rotaryDim = 128) => ({
    q: heads(q, q.shape[1]!),
    k: heads(k, k.shape[1]!),
    headDim: 128,
    rotaryDim,
  });
  const fused = call(qkv.slice(1, 0, 32), qkv.slice(1, 32, 40));

  it('asks for tokens that so many bytes a multiprocessor are ahead', () => {
    expect(ropeAhead(fused, true, tile, 132)).toBe(Math.ceil((132 * 32 * 1024) / (40 * 256)));
    const flat = empty([9000, 4096], { dtype: 'bfloat16', device: 'cpu' });
    const two = { ...fused, q: heads(flat, 32), k: heads(flat, 32) };
    expect(ropeAhead(two, true, tile, 132)).toBe(Math.ceil((132 * 32 * 1024) / (64 * 256)));
  });

  it('asks for nothing where all blocks start at once', () => {
    const ahead = ropeAhead(fused, true, tile, 132);
    const some = (tokens: number) =>
      call(qkv.slice(0, 0, tokens).slice(1, 0, 32), qkv.slice(0, 0, tokens).slice(1, 32, 40));
    expect(ropeAhead(some(3 * ahead), true, tile, 132)).toBe(3 * ahead);
    expect(ropeAhead(some(3 * ahead + 1), true, tile, 132)).toBe(ahead);
  });

  it('asks for nothing where a token is no run of memory that is read, and where tokens are few', () => {
    const none = 9000;
    const half = { ...fused, rotaryDim: 64 };
    expect(ropeAhead(half, true, tile, 132)).toBe(none);
    expect(ropeAhead(half, false, tile, 132)).toBeLessThan(none);
    expect(ropeAhead(fused, true, { vec: 8, ahead: false }, 132)).toBe(none);
    expect(ropeAhead(fused, true, { vec: 4, ahead: true }, 132)).toBe(none);
    const apart = empty([9000, 8, 136], { dtype: 'bfloat16', device: 'cpu' }).slice(2, 0, 128);
    expect(ropeAhead(call(fused.q.x, apart), true, tile, 132)).toBe(none);
    expect(ropeAhead(call(apart, fused.k.x), true, tile, 132)).toBe(none);
    expect(ropeAhead(call(apart.slice(1, 0, 1), fused.k.x), true, tile, 132)).toBeLessThan(none);
    expect(ropeAhead(call(fused.q.x, qkv.slice(1, 0, 0)), true, tile, 132)).toBe(none);
  });
});
