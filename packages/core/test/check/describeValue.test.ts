// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { describeValue } from '../../src/check/describeValue.ts';

describe('describeValue', () => {
  it.each([
    ['fp16', "'fp16'"],
    [1, '1'],
    [-0.5, '-0.5'],
    [Number.NaN, 'NaN'],
    [3n, '3n'],
    [true, 'true'],
    [null, 'null'],
    [undefined, 'undefined'],
    [Symbol('a'), 'Symbol(a)'],
    [() => 1, 'a function'],
    [{}, 'an object'],
    [Object.create(null), 'an object'],
    [{ constructor: 1 }, 'an object'],
    [new Map(), 'a Map'],
    [new Error('x'), 'an Error'],
    [new Uint32Array(5), 'a Uint32Array of 5'],
    [new Int8Array(2), 'an Int8Array of 2'],
    [new DataView(new ArrayBuffer(4)), 'a DataView'],
    [[2, '3', [4], Symbol('b'), {}], "[2, '3', an Array, Symbol(b), an object]"],
    [new Array(2), '[undefined, undefined]'],
    [new Array(9).fill(0), 'an Array of 9'],
  ])('%#: says what was given', (value, text) => expect(describeValue(value)).toBe(text));
});
