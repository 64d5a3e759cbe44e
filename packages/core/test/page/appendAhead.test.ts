// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { empty, type Tensor } from '../../src/index.ts';
import { appendAhead } from '../../src/page/appendAhead.ts';
import { chooseAppendTile } from '../../src/page/pageKernel.ts';
import type { AppendHalf } from '../../src/page/runAppend.ts';

const half = (x: Tensor): AppendHalf => ({
  x,
  width: x.shape[2]!,
  strideN: x.strides[0]!,
  strideH: x.strides[1]!,
  cache: x,
  cachePtr: 0,
  cacheStridePage: 0,
  cacheStrideN: 0,
  cacheStrideH: 0,
});

function asks(k: Tensor, v: Tensor, accessBytes = 16) {
  const [rows, heads] = k.shape as [number, number];
  const items = (heads * (k.shape[2]! + v.shape[2]!) * 2) / accessBytes;
  const tile = chooseAppendTile(rows, items, 132);
  return { ...appendAhead(half(k), half(v), rows, heads, accessBytes, tile, 132), tile };
}

const tokens = (...shape: number[]): Tensor => empty(shape, { dtype: 'bfloat16', device: 'cpu' });

describe('appendAhead', () => {
  it('asks for all tokens of a block at once where they lie together', () => {
    const k = tokens(3000, 8, 128);
    const distance = (132 * 24 * 1024) / 4096;
    expect(asks(k, k)).toMatchObject({ tokens: distance, run: 2, kBytes: 2048, vBytes: 2048 });
    const small = tokens(40_000, 1, 64);
    const { run, tile } = asks(small, small);
    expect(run).toBe(tile.slots * 2);
    const [ckv, kpe] = [tokens(9000, 1, 512), tokens(9000, 1, 64)];
    expect(asks(ckv, kpe)).toMatchObject({ tokens: Math.ceil((132 * 24 * 1024) / 1152), kBytes: 1024, vBytes: 128 });
  });

  it('asks for tokens one by one where they lie apart', () => {
    const qkv = tokens(3000, 24, 128);
    const [k, v] = [qkv.slice(1, 8, 16), qkv.slice(1, 16, 24)];
    expect(asks(k, v)).toMatchObject({ run: 1, kBytes: 2048, vBytes: 2048 });
    expect(asks(tokens(3000, 8, 128), v).run).toBe(1);
  });

  it('asks for nothing where heads lie apart, where accesses are narrow, and where tokens are few', () => {
    const none = { tokens: 3000, kBytes: 0, vBytes: 0 };
    const apart = tokens(3000, 8, 136).slice(2, 0, 128);
    expect(asks(apart, tokens(3000, 8, 128))).toMatchObject(none);
    expect(asks(tokens(3000, 8, 128), apart)).toMatchObject(none);
    expect(asks(tokens(3000, 8, 128), tokens(3000, 8, 128), 8)).toMatchObject(none);
    expect(asks(tokens(64, 8, 128), tokens(64, 8, 128))).toMatchObject({ ...none, tokens: 64 });
  });
});
