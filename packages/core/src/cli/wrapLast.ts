// SPDX-License-Identifier: Apache-2.0
import { stripVTControlCharacters } from 'node:util';

/** Narrower columns are harder to read than lines that the terminal breaks. */
const narrowest = 20;

/**
 * Rows whose last column is broken at spaces, so that a table with `padding` before each column fits `width`. Words that
 * are longer, such as paths, stay whole.
 */
export function wrapLast(rows: readonly (readonly string[])[], width: number, padding: number): string[][] {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [index, cell] of row.slice(0, -1).entries()) widths[index] = Math.max(widths[index] ?? 0, visible(cell));
  }
  const before = widths.reduce((sum, each) => sum + padding + each, padding);
  const room = width - before;
  return rows.map((row) => (room < narrowest ? [...row] : [...row.slice(0, -1), wrap(row.at(-1) ?? '', room)]));
}

function wrap(text: string, room: number): string {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const line = lines.at(-1);
    if (line !== undefined && visible(line) + 1 + visible(word) <= room) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  return lines.join('\n');
}

function visible(text: string): number {
  return stripVTControlCharacters(text).length;
}
