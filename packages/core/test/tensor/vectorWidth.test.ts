// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { empty } from '../../src/tensor/create.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { vectorWidth } from '../../src/tensor/vectorWidth.ts';
import { testDevice as device } from '../device.ts';

const rows = (width: number, dtype: DType = 'float16'): ReturnType<typeof empty<DType>> =>
  empty([4, width], { dtype, device });

it('fills 16 bytes of the first tensor', () => {
  expect(vectorWidth(64, [rows(64)])).toBe(8);
  expect(vectorWidth(64, [rows(64, 'float32')])).toBe(4);
  expect(vectorWidth(64, [rows(64), rows(64, 'float32')])).toBe(8);
  expect(vectorWidth(64, [rows(64), rows(64, 'float8_e4m3fn')])).toBe(8);
});

it('divides the length, every stride and every address', () => {
  expect([60, 62, 63, 1].map((length) => vectorWidth(length, [rows(64)]))).toEqual([4, 2, 1, 1]);
  expect(vectorWidth(64, [rows(64), rows(68).slice(1, 0, 64)])).toBe(4);
  expect(vectorWidth(64, [rows(72).slice(1, 8, 72)])).toBe(8);
  expect(vectorWidth(64, [rows(72).slice(1, 6, 70)])).toBe(2);
  expect(vectorWidth(64, [rows(65).slice(1, 0, 64)])).toBe(1);
  // The stride of a single row is never used.
  expect(vectorWidth(64, [rows(65).slice(1, 0, 64).slice(0, 0, 1)])).toBe(8);
  // Eight float32 are two accesses, each aligned by itself.
  expect(vectorWidth(64, [rows(64), rows(72, 'float32').slice(1, 4, 68)])).toBe(8);
  expect(vectorWidth(64, [rows(64), rows(72, 'float32').slice(1, 2, 66)])).toBe(2);
});
