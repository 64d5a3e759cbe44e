// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { wrapLast } from '../../src/cli/wrapLast.ts';

const rows = [
  ['a', 'one two three four five six seven'],
  ['longer', 'short'],
];

it('breaks the last column at spaces, where the terminal ends', () => {
  expect(wrapLast(rows, 32, 2)).toEqual([
    ['a', 'one two three four\nfive six seven'],
    ['longer', 'short'],
  ]);
});

it('leaves what fits, and everything where there is no terminal', () => {
  expect(wrapLast(rows, 2 + 6 + 2 + 33, 2)).toEqual(rows);
  expect(wrapLast(rows, Number.POSITIVE_INFINITY, 2)).toEqual(rows);
});

it('keeps long words, and does not count colours', () => {
  const path = '/a/very/long/path/that/does/not/fit';
  expect(wrapLast([['a', `see ${path} here`]], 30, 2)).toEqual([['a', `see\n${path}\nhere`]]);
  const colored = '\u001b[32mone two three four five\u001b[39m';
  expect(wrapLast([['\u001b[31ma\u001b[39m', colored]], 2 + 1 + 2 + 23, 2)[0]![1]).toBe(colored);
});

it('leaves tables that have no room for a last column', () => {
  expect(wrapLast(rows, 20, 2)).toEqual(rows);
});
