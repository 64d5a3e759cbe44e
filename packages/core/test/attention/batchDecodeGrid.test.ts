// SPDX-License-Identifier: Apache-2.0
// BatchDecodeWithPagedKVCacheWrapper over the grid of its options.
import { describe } from 'vitest';
import { gridCases } from '../reference/pairwise.ts';
import { deviceDtypes } from './attentionCase.ts';
import { drawBatch, fitsBatch, runGrid } from './batchGrid.ts';

describe('batch decode, sizes', () => {
  const grid = gridCases(
    {
      batchSize: [1, 12, 17, 128],
      kvLen: [1, 54, 97, 512, 2048, 16384],
      pageSize: [1, 8, 16, 64],
      heads: [
        [4, 4],
        [32, 4],
        [7, 1],
      ] as [number, number][],
      headDim: [64, 128, 256],
    },
    fitsBatch,
  );
  runGrid(
    grid.map(({ batchSize, kvLen, heads, ...c }, n) => ({
      ...c,
      kind: 'decode',
      dtype: n % 2 === 0 ? 'float16' : 'bfloat16',
      numQoHeads: heads[0],
      numKvHeads: heads[1],
      ...drawBatch({ batchSize, kvLen, heads, headDim: c.headDim }, 100 + n),
      lse: '2',
    })),
  );
});

describe('batch decode, logits, scales and dtypes', () => {
  const grid = gridCases({
    headDim: [64, 128, 256],
    dtype: deviceDtypes,
    kvDtype: ['same', 'float8_e4m3fn', 'float8_e5m2'] as const,
    pageSize: [1, 5, 64],
    kvLayout: ['NHD', 'HND'] as const,
    posEncodingMode: ['NONE', 'ROPE_LLAMA', 'ALIBI'] as const,
    logitsSoftCap: [0, 30],
    windowLeft: [-1, 0, 33],
    scaled: [false, true],
    lse: ['none', '2', 'e'] as const,
  });
  runGrid(
    grid.map(({ kvDtype, posEncodingMode, logitsSoftCap, windowLeft, scaled, ...c }, n) => ({
      ...c,
      kind: 'decode',
      numQoHeads: 6,
      numKvHeads: 2,
      ...drawBatch({ batchSize: 6, kvLen: 700, heads: [6, 2], headDim: c.headDim }, 200 + n),
      tuple: n % 2 === 0,
      ...(kvDtype !== 'same' && { kvDtype }),
      ...(scaled && { runScales: { qScale: 0.75, kScale: 1.5, vScale: 0.3 } }),
      options: { posEncodingMode, logitsSoftCap, windowLeft },
    })),
  );
});
