// SPDX-License-Identifier: Apache-2.0
// Queries and keys of 192 dimensions with values of 128, as in DeepSeek's prefill.
import { describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { testDevice } from '../device.ts';
import { gridCases } from '../reference/pairwise.ts';
import { expectThrows } from '../thrownBy.ts';
import { type AttentionCase, caseLabel, deviceDtypes, runCase } from './attentionCase.ts';
import { type BatchCase, kept, runPaged, runRagged } from './batchCase.ts';

const dims = { headDim: 192, headDimVo: 128 } as const;

describe('single attention, 192/128', () => {
  const grid = gridCases({
    qoLen: [undefined, 1, 3, 37, 130, 300],
    kvLen: [1, 64, 129, 501],
    heads: [
      [4, 4],
      [8, 2],
      [16, 1],
    ] as [number, number][],
    dtype: deviceDtypes,
    fp8: [undefined, undefined, 'float8_e4m3fn', 'float8_e5m2'] as const,
    kvLayout: ['NHD', 'HND'] as const,
    mask: ['none', 'causal', 'custom', 'packed'] as const,
    posEncodingMode: ['NONE', 'ROPE_LLAMA', 'ALIBI'] as const,
    windowLeft: [-1, 33],
  });
  const cases = grid.map(({ heads: [numQoHeads, numKvHeads], qoLen, fp8, mask, posEncodingMode, windowLeft, ...c }) => {
    const masked = qoLen !== undefined && mask !== 'none';
    const density = masked && mask !== 'causal' ? { maskDensity: 0.5, packedMask: mask === 'packed' } : {};
    const options = { posEncodingMode, windowLeft, ...(masked && mask === 'causal' && { causal: true }) };
    const lengths = qoLen === undefined ? {} : { qoLen };
    return { ...c, ...dims, ...lengths, ...density, ...(fp8 && { kvDtype: fp8 }), numQoHeads, numKvHeads, options };
  });
  it.each(cases.map((c: AttentionCase) => [caseLabel(c), c] as const))('%s', (_label, c) => runCase(c));
});

describe('batch attention, 192/128', () => {
  const base = {
    ...dims,
    numQoHeads: 8,
    numKvHeads: 2,
    dtype: 'float16',
    tuple: true,
    options: { causal: true },
  } as const;
  const qoLens = [37, 1, 0, 17, 130, 40];
  const kvLens = [54, 97, 5, 17, 300, 2500];
  const cases: (BatchCase & { name: string })[] = [
    { name: 'causal', ...base, qoLens, kvLens, pageSize: 16 },
    { name: 'full, bf16, HND', ...base, dtype: 'bfloat16', kvLayout: 'HND', options: {}, qoLens, kvLens, pageSize: 5 },
    { name: 'page 1, window', ...base, options: { causal: true, windowLeft: 30 }, qoLens, kvLens, pageSize: 1 },
    { name: 'few rows', ...base, qoLens: [2, 4, 1], kvLens: [2700, 33, 1], pageSize: 16 },
    { name: 'fp8', ...base, kvDtype: 'float8_e4m3fn', qoLens, kvLens, pageSize: 16 },
    {
      name: 'rope, cap, MHA',
      ...base,
      numKvHeads: 8,
      options: { causal: true, posEncodingMode: 'ROPE_LLAMA', logitsSoftCap: 30 },
      qoLens: [30, 60],
      kvLens: [90, 100],
      pageSize: 16,
    },
    { name: 'more queries than keys', ...base, qoLens: [50, 70, 9], kvLens: [20, 1, 0], pageSize: 16 },
  ];
  it.each(cases)('paged, $name', (c) => runPaged(c, 'prefill'));
  it.each(cases)('ragged, $name', runRagged);
  it('decode', () => {
    const kvLens = [54, 0, 97, 2500];
    runPaged({ ...base, options: {}, qoLens: kvLens.map(() => 1), kvLens, pageSize: 16 }, 'decode');
  });

  it('refuses other pairs, and k and v in one tensor', () => {
    const wrapper = kept(new flashinfer.BatchDecodeWithPagedKVCacheWrapper({ device: testDevice }));
    const plan = {
      numQoHeads: 4,
      numKvHeads: 2,
      headDimQk: 192,
      pageSize: 4,
      pagedKvIndptr: [0, 1],
      pagedKvIndices: [0],
      pagedKvLastPageLen: [3],
    };
    const code = 'ERR_FLASHINFER_UNSUPPORTED_HEAD_DIM';
    expectThrows(() => wrapper.plan(plan), code, 'headDimVo', '192', '128');
    expectThrows(() => wrapper.plan({ ...plan, headDimQk: 128, headDimVo: 64 }), code, 'headDimVo', '64', '128');
    wrapper.plan({ ...plan, headDimVo: 128 });
    const zeros = (shape: number[]) => flashinfer.zeros(shape, { dtype: 'float16', device: testDevice });
    const q = zeros([1, 4, 192]);
    expectThrows(() => wrapper.run(q, zeros([1, 2, 4, 2, 192])), 'ERR_FLASHINFER_INVALID_SHAPE', 'pair', '[k, v]');
    expectThrows(
      () => wrapper.run(q, [zeros([1, 4, 2, 192]), zeros([1, 4, 2, 192])]),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'vCache',
      '128',
    );
    expect(wrapper.run(q, [zeros([1, 4, 2, 192]), zeros([1, 4, 2, 128])]).shape).toEqual([1, 4, 128]);
  });
});
