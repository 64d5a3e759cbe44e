// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { checkOutput, checkSeparate, mayOverlap, sameElements } from '../../src/check/overlap.ts';
import { empty } from '../../src/tensor/create.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { testDevice as device } from '../device.ts';
import { expectThrows } from '../thrownBy.ts';

const buffer = empty([8, 6, 16], { dtype: 'float16', device });
const flat = buffer.view(48, 16);

function overlap(a: Tensor, b: Tensor): boolean {
  expect(mayOverlap(a, b)).toBe(mayOverlap(b, a));
  return mayOverlap(a, b);
}

it('tells ranges of rows apart', () => {
  expect(overlap(flat.slice(0, 0, 8), flat.slice(0, 8, 16))).toBe(false);
  expect(overlap(flat.slice(0, 0, 9), flat.slice(0, 8, 16))).toBe(true);
  expect(overlap(flat, flat.slice(0, 47, 48))).toBe(true);
  expect(overlap(flat, empty([48, 16], { dtype: 'float16', device }))).toBe(false);
  expect(overlap(flat.slice(0, 3, 3), flat)).toBe(false);
});

it('tells ranges of columns and heads of one buffer apart', () => {
  expect(overlap(flat.slice(1, 0, 8), flat.slice(1, 8, 16))).toBe(false);
  expect(overlap(flat.slice(1, 0, 9), flat.slice(1, 8, 16))).toBe(true);
  expect(overlap(buffer.slice(1, 0, 4), buffer.slice(1, 4, 6))).toBe(false);
  expect(overlap(buffer.slice(1, 0, 5), buffer.slice(1, 4, 6))).toBe(true);
  // Rows of one wrap around to the next row of the other.
  expect(overlap(flat.slice(1, 8, 16).slice(0, 0, 47), flat.slice(0, 1, 48).slice(1, 0, 8))).toBe(false);
  expect(overlap(flat.slice(1, 8, 16).slice(0, 0, 47), flat.slice(0, 1, 48).slice(1, 0, 9))).toBe(true);
});

it('takes no chances with other strides', () => {
  expect(overlap(flat.transpose(0, 1).slice(0, 0, 8), flat.slice(1, 8, 16))).toBe(true);
  expect(overlap(flat.slice(0, 5, 6), flat.slice(1, 0, 8))).toBe(true);
});

it('knows the same elements', () => {
  expect(sameElements(flat, flat.slice(0, 0))).toBe(true);
  expect(sameElements(flat, flat.slice(0, 0, 47))).toBe(false);
  expect(sameElements(flat.slice(1, 0, 8), flat.slice(1, 8, 16))).toBe(false);
  expect(sameElements(buffer, flat)).toBe(false);
  expect(sameElements(buffer, buffer.transpose(0, 1))).toBe(false);
});

it('refuses outputs that are only partly an input', () => {
  checkOutput('op', flat, 'x', flat);
  checkOutput('op', flat.slice(0, 0, 8), 'x', flat.slice(0, 8, 16));
  const refused = (): void => checkOutput('op', flat.slice(0, 0, 8), 'x', flat.slice(0, 1, 9));
  expectThrows(refused, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'op: out and x overlap', 'x itself or separate');
  checkSeparate('op', 'x', flat.slice(1, 0, 8), 'residual', flat.slice(1, 8, 16));
  const same = (): void => checkSeparate('op', 'x', flat, 'residual', flat);
  expectThrows(same, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'op: x and residual overlap', 'expected separate');
});
