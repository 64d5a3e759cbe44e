// SPDX-License-Identifier: Apache-2.0
// Tile choice and KV splitting are pure functions of shapes and device limits: no GPU is needed to test them.
import { describe, expect, it } from 'vitest';
import { usesDecodeKernel } from '../../src/attention/cudaAttention.ts';
import {
  chooseDecodeTile,
  decodeSharedBytes,
  decodeSlots,
  decodeSpec,
  planDecode,
} from '../../src/attention/decodeKernel.ts';
import { blocksPerSm, type DeviceLimits, residencyBytes } from '../../src/attention/deviceLimits.ts';
import type { KernelOptions } from '../../src/attention/kernelName.ts';
import { choosePrefillTile, planPrefill, prefillSharedBytes, prefillSpec } from '../../src/attention/prefillKernel.ts';
import type { AttentionRequest } from '../../src/attention/request.ts';
import { firstVisibleKey, splitKv } from '../../src/attention/splitKv.ts';
import { h200, plain } from './kernelOptions.ts';

const ada: DeviceLimits = { numSms: 128, sharedPerBlock: 101_376, sharedPerSm: 102_400, l2Bytes: 72 << 20 };
const turing: DeviceLimits = { numSms: 40, sharedPerBlock: 65_536, sharedPerSm: 65_536, l2Bytes: 4 << 20 };

type Shape = Partial<AttentionRequest> & Pick<AttentionRequest, 'qoLen' | 'kvLen' | 'numQoHeads' | 'numKvHeads'>;
const request = (shape: Shape): AttentionRequest => ({ ...plain, ...shape }) as AttentionRequest;

const everyOption: KernelOptions[] = [64, 128, 192, 256].flatMap((headDim) =>
  (['float16', 'float8_e4m3fn'] as const).flatMap((kvDtype) =>
    (['NONE', 'ROPE_LLAMA'] as const).map(
      (posEncodingMode): KernelOptions => ({ ...plain, qDtype: 'float16', headDim, kvDtype, posEncodingMode }),
    ),
  ),
);

describe('splitKv', () => {
  it('covers all keys exactly once, in whole tiles', () => {
    for (let i = 0; i < 500; ++i) {
      const kvTile = [16, 32, 64][i % 3]!;
      const kvBegin = Math.floor(Math.random() * 50) * kvTile;
      const kvLen = kvBegin + 1 + Math.floor(Math.random() * 100_000);
      const { numSplits, kvChunk } = splitKv({ kvBegin, kvLen, kvTile }, 1 + (i % 40), 264, 4);
      expect(kvChunk % kvTile).toBe(0);
      expect(kvBegin + numSplits * kvChunk).toBeGreaterThanOrEqual(kvLen);
      expect(kvBegin + (numSplits - 1) * kvChunk).toBeLessThan(kvLen);
    }
  });

  it('fills the slots once and never more', () => {
    expect(splitKv({ kvBegin: 0, kvLen: 65_536, kvTile: 32 }, 8, 132, 4)).toEqual({ numSplits: 16, kvChunk: 4096 });
    expect(splitKv({ kvBegin: 0, kvLen: 65_536, kvTile: 32 }, 200, 132, 4).numSplits).toBe(1);
    expect(splitKv({ kvBegin: 0, kvLen: 100, kvTile: 32 }, 1, 132, 4).numSplits).toBe(1);
  });

  it('handles no keys', () => {
    expect(splitKv({ kvBegin: 0, kvLen: 0, kvTile: 64 }, 1, 132, 4)).toEqual({ numSplits: 1, kvChunk: 64 });
  });
});

describe('firstVisibleKey', () => {
  it('is the tile of the first key in the window of row 0', () => {
    expect(firstVisibleKey(1, 1000, -1, 32)).toBe(0);
    expect(firstVisibleKey(1, 1000, 100, 32)).toBe(896);
    expect(firstVisibleKey(10, 1000, 2000, 32)).toBe(0);
    expect(firstVisibleKey(1, 1000, 0, 32)).toBe(992);
    expect(firstVisibleKey(20, 10, 0, 32)).toBe(0);
  });
});

describe.each([
  ['H200', h200],
  ['RTX 4090', ada],
  ['T4', turing],
] as const)('tiles on %s', (_name, limits) => {
  it.each(everyOption)('fit in shared memory: $headDim $kvDtype $posEncodingMode', (options) => {
    expect(decodeSharedBytes(options, chooseDecodeTile(options, limits))).toBeLessThanOrEqual(limits.sharedPerBlock);
    for (const rows of [17, 64, 65, 4096]) {
      for (const paged of [false, true]) {
        const tile = choosePrefillTile(options, rows, limits, paged);
        expect(prefillSharedBytes(options, tile, paged)).toBeLessThanOrEqual(limits.sharedPerBlock);
      }
    }
  });
});

describe('planDecode', () => {
  it('uses every multiprocessor for one long request', () => {
    const plan = planDecode(request({ qoLen: 1, kvLen: 65_536, numQoHeads: 32, numKvHeads: 8 }), h200);
    expect(plan.numSplits * 8).toBe(128);
    expect(plan).toMatchObject({ rowTiles: 1, counters: 8, partialLse: 8 * 16 * 16, partialO: 8 * 16 * 16 * 128 });
  });

  it('needs no scratch without splits', () => {
    const plan = planDecode(request({ qoLen: 1, kvLen: 40, numQoHeads: 32, numKvHeads: 8 }), h200);
    expect(plan).toMatchObject({ numSplits: 1, partialO: 0, partialLse: 0, counters: 0 });
  });

  it('reads only the window', () => {
    const shape = { qoLen: 1, kvLen: 1_000_000, numQoHeads: 8, numKvHeads: 8, windowLeft: 4095 };
    const plan = planDecode(request(shape), h200);
    expect(plan.kvBegin).toBeGreaterThan(995_000);
    expect(plan.numSplits * plan.kvChunk).toBeLessThan(5000);
  });
});

describe('chooseDecodeTile', () => {
  it('takes two blocks a multiprocessor for batches of several waves, where they fit', () => {
    const shared = (limits: DeviceLimits, blocks: number): number =>
      decodeSharedBytes(plain, chooseDecodeTile(plain, limits, blocks));
    expect(2 * shared(h200, 133)).toBeLessThan(h200.sharedPerSm);
    expect(2 * shared(h200, 132)).toBeGreaterThan(h200.sharedPerSm);
    expect(chooseDecodeTile(plain, ada, 10_000)).toEqual(chooseDecodeTile(plain, ada));
  });

  it('takes smaller blocks where the GPU then holds all at once', () => {
    const tiles = (o: KernelOptions, counts: number[]): string[] =>
      counts.map((blocks) => Object.values(chooseDecodeTile(o, h200, blocks)).join('x'));
    expect(tiles(plain, [132, 133, 396, 397, 792, 793])).toEqual([
      '8x16x2',
      '4x16x2',
      '4x16x2',
      '2x16x2',
      '2x16x2',
      '4x16x3',
    ]);
    const float8 = { ...plain, kvDtype: 'float8_e4m3fn' } as const;
    expect(tiles(float8, [132, 396, 397, 660, 661])).toEqual(['4x16x2', '4x16x2', '2x16x3', '2x16x3', '4x16x2']);
  });

  it('asks for about as much at once with any headDim', () => {
    const tiles = [64, 128, 192, 256].map((headDim) => chooseDecodeTile({ ...plain, headDim }, h200));
    expect(tiles.map(({ warps, stages }) => [warps, stages])).toEqual([
      [8, 3],
      [8, 2],
      [8, 2],
      [4, 2],
    ]);
  });
});

describe('decodeSlots', () => {
  const slots = (o: KernelOptions, blocks: number): number =>
    decodeSlots(o, h200, chooseDecodeTile(o, h200, blocks), blocks);

  it('has one block of few a multiprocessor, three where they convert', () => {
    expect(slots({ ...plain, headDim: 64 }, 8)).toBe(132);
    expect(slots({ ...plain, kvDtype: 'float8_e4m3fn' }, 8)).toBe(396);
  });

  it('has all that fit of many', () => {
    expect(slots(plain, 133)).toBe(396);
    expect(slots(plain, 397)).toBe(792);
    expect(slots(plain, 793)).toBe(264);
  });

  it('has no more a multiprocessor than a fixed grid needs', () => {
    const fixed = (blocks: number): number =>
      decodeSlots(plain, h200, chooseDecodeTile(plain, h200, blocks), blocks, true);
    expect([8, 132, 133, 264, 265, 512, 793].map(fixed)).toEqual([132, 132, 264, 264, 396, 528, 264]);
  });
});

describe('residencyBytes', () => {
  it.each([
    ['H200', h200],
    ['RTX 4090', ada],
    ['T4', turing],
  ] as const)('leaves no room for more blocks on %s', (_name, limits) => {
    for (let most = 1; most <= 8; ++most) {
      for (const needed of [1000, 20_000, 36_864, 60_000]) {
        const bytes = residencyBytes(limits, needed, most);
        const fitting = blocksPerSm(limits, needed);
        expect(bytes).toBeGreaterThanOrEqual(needed);
        expect(blocksPerSm(limits, bytes)).toBe(Math.min(fitting, most));
        if (fitting <= most) expect(bytes).toBe(needed);
      }
    }
  });
});

describe('planPrefill', () => {
  it('does not split where the query tiles fill the GPU', () => {
    const plan = planPrefill(request({ qoLen: 8192, kvLen: 8192, numQoHeads: 32, numKvHeads: 32 }), h200);
    expect(plan).toMatchObject({ tile: { mTiles: 2, kvTile: 64 }, queryTiles: 64, numSplits: 1, partialO: 0 });
  });

  it('splits long keys of a short append', () => {
    const plan = planPrefill(request({ qoLen: 37, kvLen: 31_111, numQoHeads: 8, numKvHeads: 1 }), h200);
    expect(plan.queryTiles).toBe(3);
    expect(plan.numSplits).toBeGreaterThan(50);
    expect(plan.partialLse).toBe(plan.numSplits * 37 * 8);
  });
});

describe('specs', () => {
  it('name what differs', () => {
    const options = { ...plain, kvDtype: 'float8_e5m2', maskMode: 'causal', windowLeft: 3, logitsSoftCap: 30 } as const;
    expect(decodeSpec(options, { warps: 4, kvTile: 16, stages: 2 }).name).toBe(
      'single_decode_bf16_kv_e5m2_hd128_causal_swa_cap_w4_t16_s2',
    );
    const spec = prefillSpec({ ...options, posEncodingMode: 'ALIBI' }, { mTiles: 2, kvTile: 64 });
    expect(spec.name).toBe('single_prefill_bf16_kv_e5m2_hd128_causal_alibi_swa_cap_t128x64');
    expect(spec.entry).toContain('flashinfer::DefaultVariant<true, true>');
    expect(spec.entry).toContain('flashinfer::Visibility<flashinfer::MaskMode::kCausal, true>');
    expect(spec.minArch).toBe(80);
  });

  it('send few rows to the decode kernel', () => {
    expect(usesDecodeKernel({ qoLen: 1, numQoHeads: 64, numKvHeads: 1 })).toBe(true);
    expect(usesDecodeKernel({ qoLen: 4, numQoHeads: 32, numKvHeads: 8 })).toBe(true);
    expect(usesDecodeKernel({ qoLen: 5, numQoHeads: 32, numKvHeads: 8 })).toBe(false);
  });
});
