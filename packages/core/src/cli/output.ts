// SPDX-License-Identifier: Apache-2.0
import Table from 'cli-table3';
import pc from 'picocolors';
import { wrapLast } from './wrapLast.ts';

const { NO_COLOR, TERM } = process.env;
// picocolors also colours in CI logs and on Windows pipes; a report is coloured on a terminal only.
const colors = pc.createColors(process.stdout.isTTY === true && !NO_COLOR && TERM !== 'dumb');

export type Row = readonly [name: string, value: string];

/** Prints what a command found or did as JSON. */
export function printJson(value: unknown): void {
  console.log(JSON.stringify(value, undefined, 2));
}

/** Prints a heading and rows of two columns. */
export function printSection(title: string, rows: readonly Row[]): void {
  console.log(colors.bold(title));
  printTable(rows);
  console.log();
}

/** Prints rows as aligned columns without borders; on a terminal the last column is broken where it ends. */
export function printTable(rows: readonly (readonly string[])[]): void {
  if (rows.length === 0) return;
  const table = new Table({
    chars: Object.fromEntries(borders.map((name) => [name, ''])),
    style: { head: [], border: [], 'padding-left': padding, 'padding-right': 0 },
  });
  // Elsewhere than on a terminal a row stays a line.
  table.push(...wrapLast(rows, process.stdout.columns || Number.POSITIVE_INFINITY, padding));
  console.log(table.toString().replace(/ +$/gm, ''));
}

const padding = 2;

const borders = [
  ...['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right'],
  ...['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle'],
];

/** Green `good` or red `bad`. */
export function status(ok: boolean, good: string, bad: string): string {
  return ok ? colors.green(good) : colors.red(bad);
}

/** `1.5 MiB` */
export function formatBytes(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB'];
  const unit = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(bytes, 1)) / 10));
  return `${unit === 0 ? bytes : (bytes / 1024 ** unit).toFixed(1)} ${units[unit]}`;
}

/** `1 module`, `2 modules` */
export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** How far long work is, on one line of a terminal; nothing elsewhere. */
export function progressLine(done: number, total: number, name: string): void {
  if (!showsProgress()) return;
  const filled = Math.round((20 * done) / total);
  const bar = `[${'='.repeat(filled)}${' '.repeat(20 - filled)}] ${done}/${total} ${name}`;
  // Pseudo terminals that nobody sized have 0 columns.
  const width = process.stderr.columns || 80;
  process.stderr.write(`\r\x1b[K${done < total ? bar.slice(0, width - 1) : ''}`);
}

/** Removes what {@link progressLine} drew, for work that ends before its last item. */
export function clearProgress(): void {
  if (showsProgress()) process.stderr.write('\r\x1b[K');
}

function showsProgress(): boolean {
  return process.stderr.isTTY === true && process.env.TERM !== 'dumb';
}
