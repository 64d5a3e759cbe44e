// SPDX-License-Identifier: Apache-2.0
// The batch prefill wrappers, paged and ragged, over the grid of their options.
import { describe } from 'vitest';
import { gridCases } from '../reference/pairwise.ts';
import { deviceDtypes } from './attentionCase.ts';
import { drawBatch, fitsBatch, runGrid } from './batchGrid.ts';

const sizes = {
  batchSize: [1, 12, 17, 128],
  qoLen: [1, 37, 127, 577],
  kvLen: [54, 97, 512, 2048, 16384],
  heads: [
    [4, 4],
    [32, 4],
    [7, 1],
  ] as [number, number][],
  headDim: [64, 128, 256],
  causal: [false, true],
};

describe.each([
  ['paged', { ...sizes, pageSize: [1, 5, 16, 64] }, 300],
  ['ragged', { ...sizes, pageSize: [1] }, 400],
] as const)('batch prefill, sizes, %s', (kind, values, stream) => {
  const grid = gridCases(values, fitsBatch);
  runGrid(
    grid.map(({ batchSize, qoLen, kvLen, heads, causal, ...c }, n) => ({
      ...c,
      kind,
      dtype: n % 2 === 0 ? 'float16' : 'bfloat16',
      numQoHeads: heads[0],
      numKvHeads: heads[1],
      ...drawBatch({ batchSize, qoLen, kvLen, heads, headDim: c.headDim }, stream + n),
      options: { causal },
      lse: '2',
    })),
  );
});

const options = {
  headDim: [64, 128, 256],
  dtype: deviceDtypes,
  kvDtype: ['same', 'float8_e4m3fn', 'float8_e5m2'] as const,
  kvLayout: ['NHD', 'HND'] as const,
  mask: ['none', 'causal', 'custom'] as const,
  posEncodingMode: ['NONE', 'ROPE_LLAMA', 'ALIBI'] as const,
  logitsSoftCap: [0, 30],
  windowLeft: [-1, 33],
  scaled: [false, true],
  lse: ['none', '2', 'e'] as const,
};

describe.each([
  ['paged', { ...options, pageSize: [1, 16, 64] }, 500],
  ['ragged', { ...options, pageSize: [1] }, 600],
] as const)('batch prefill, masks, logits, scales and dtypes, %s', (kind, values, stream) => {
  const grid = gridCases(values);
  runGrid(
    grid.map(({ kvDtype, mask, posEncodingMode, logitsSoftCap, windowLeft, scaled, ...c }, n) => ({
      ...c,
      kind,
      numQoHeads: 6,
      numKvHeads: 2,
      ...drawBatch({ batchSize: 5, qoLen: 70, kvLen: 300, heads: [6, 2], headDim: c.headDim }, stream + n),
      tuple: n % 2 === 0,
      ...(kvDtype !== 'same' && { kvDtype }),
      ...(mask === 'custom' && { maskDensity: 0.5, maskForm: n % 2 === 0 ? 'packed' : 'bool' }),
      ...(scaled && { runScales: { qScale: 0.75, kScale: 1.5, vScale: 0.3 } }),
      options: { causal: mask === 'causal', posEncodingMode, logitsSoftCap, windowLeft },
    })),
  );
});
