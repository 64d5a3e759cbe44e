// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { loadAnchors } from '../src/anchors.ts';
import { attentionBytes, attentionFlops } from '../src/cases/attentionCase.ts';
import { dataSheetPeak, floorUs } from '../src/floor.ts';
import { cpuRotations, cudaRotations } from '../src/runCases.ts';

const ceilings = { bandwidth: 4000, bandwidthMethod: 'test', peakTflops: { bfloat16: 1000 } };
const dtype = 'bfloat16';

it('is the larger of the bandwidth and the compute bound', () => {
  expect(floorUs({ bytes: 4e9, flops: 0 }, ceilings)).toBeCloseTo(1000);
  expect(floorUs({ bytes: 4e6, flops: 1e12, dtype }, ceilings)).toBeCloseTo(1000);
  expect(floorUs({ bytes: 4e6, flops: 1e12, dtype: 'float32' }, ceilings)).toBeCloseTo(1);
});

it('knows the peak of data-sheet devices alone', () => {
  expect(dataSheetPeak('NVIDIA H200').bfloat16).toBe(989.4);
  expect(dataSheetPeak('Some GPU')).toEqual({});
});

it('counts the work of attention', () => {
  const params = { qoLen: 4, kvLen: 8, numQoHeads: 2, numKvHeads: 1, headDim: 16, dtype, causal: false } as const;
  // q and out: 2 * 4 * 2 * 16 elements, k and v: 2 * 8 * 1 * 16
  expect(attentionBytes(params)).toBe(2 * (256 + 256));
  expect(attentionFlops(params)).toBe(4 * 4 * 8 * 2 * 16);
  expect(attentionFlops({ ...params, causal: true })).toBe(2 * 4 * 8 * 2 * 16);
});

it('reproduces the rates of the anchors from shapes and times', () => {
  const rows = loadAnchors('NVIDIA H200');
  const heads = { numQoHeads: 32, headDim: 128, dtype } as const;
  const prefill = rows.find((row) => row.case === 'prefill_B1_L8192_H32_D128_causal' && row.impl === 'flashinfer-fa3')!;
  const square = { ...heads, qoLen: 8192, kvLen: 8192, numKvHeads: 32, causal: true };
  expect(attentionFlops(square) / prefill.us! / 1e6).toBeCloseTo(prefill.figure, 3);
  const decode = rows.find((row) => row.case === 'decode_B1_L65536_H32k8_D128_ps16' && row.impl === 'flashinfer')!;
  const cache = { ...heads, qoLen: 1, kvLen: 65536, numKvHeads: 8, causal: false };
  expect(attentionBytes(cache) / decode.us! / 1e3).toBeCloseTo(decode.figure, 3);
});

it('keeps anchors to the machine they were measured on', () => {
  expect(loadAnchors('NVIDIA H100')).toEqual([]);
  expect(loadAnchors('NVIDIA H200').length).toBeGreaterThan(50);
});

it('rotates enough buffers to leave the cache, and never too many', () => {
  expect(cudaRotations(1 << 20, 100 << 20)).toBe(16);
  expect(cudaRotations(30 << 20, 100 << 20)).toBe(5);
  expect(cudaRotations(2 ** 31, 100 << 20)).toBe(2);
  expect(cpuRotations(1 << 10)).toBe(8);
  expect(cpuRotations(2 ** 31)).toBe(1);
});
