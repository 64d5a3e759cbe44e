// SPDX-License-Identifier: Apache-2.0
import { afterEach, expect, it, vi } from 'vitest';
import { progressLine } from '../../src/cli/output.ts';

const { isTTY, columns } = process.stderr;
afterEach(() => {
  Object.assign(process.stderr, { isTTY, columns });
  vi.restoreAllMocks();
});

/** What is written while work goes from one item to the last. */
function written(terminal: { isTTY: boolean; columns?: number }): string[] {
  Object.assign(process.stderr, { columns: undefined, ...terminal });
  const write = vi.spyOn(process.stderr, 'write').mockImplementation(() => true);
  for (const done of [1, 2, 4]) progressLine(done, 4, 'a_kernel_with_a_name');
  return write.mock.calls.map(([text]) => String(text));
}

it('draws a bar over the last one, and removes it at the end', () => {
  expect(written({ isTTY: true })).toEqual([
    '\r\u001b[K[=====               ] 1/4 a_kernel_with_a_name',
    '\r\u001b[K[==========          ] 2/4 a_kernel_with_a_name',
    '\r\u001b[K',
  ]);
});

it('stays within one line of a narrow terminal', () => {
  const [first] = written({ isTTY: true, columns: 30 });
  expect(first).toBe('\r\u001b[K[=====               ] 1/4 a_');
});

it('writes nothing where no terminal is', () => {
  expect(written({ isTTY: false })).toEqual([]);
});
