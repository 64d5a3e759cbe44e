// SPDX-License-Identifier: Apache-2.0
// Log lines: notices that always appear, and calls of operators at FLASHINFER_LOGLEVEL.
import { appendFileSync } from 'node:fs';
import { env, type LogLevel } from './envVars.ts';

interface Settings {
  readonly level: LogLevel;
  readonly write: (line: string) => void;
}

let settings: Settings | undefined;

function readSettings(): Settings {
  settings = { level: env.logLevel, write: lineWriter(env.logDest) };
  return settings;
}

function lineWriter(destination: string): (line: string) => void {
  if (destination === 'stderr') return (line) => void process.stderr.write(line);
  if (destination === 'stdout') return (line) => void process.stdout.write(line);
  const path = destination.replaceAll('%i', String(process.pid));
  return (line) => appendFileSync(path, line);
}

/** The level of this process; the variables are read once, at the first use. */
export function logLevel(): LogLevel {
  return (settings ?? readSettings()).level;
}

/** @internal Reads FLASHINFER_LOGLEVEL and FLASHINFER_LOGDEST again, for tests. */
export function resetLogging(): void {
  settings = undefined;
}

/** One line about something slow or surprising (a compilation, a device that does not work), at every level. */
export function notice(text: string): void {
  (settings ?? readSettings()).write(`flashinfer: ${text}\n`);
}

/** Logs `text()` when FLASHINFER_LOGLEVEL is `level` or more; below it costs one comparison. */
export function log(level: 1 | 3 | 5, text: () => string): void {
  const { level: enabled, write } = settings ?? readSettings();
  if (enabled >= level) write(`flashinfer: ${text()}\n`);
}

/** A tensor as it is shown; structural, so that this file imports nothing of the library. */
interface DescribedTensor {
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly device: string;
  toArraySync(): ArrayLike<number | bigint>;
}

/**
 * Logs the call of an operator: its name at level 1, its arguments from level 3 on, with statistics of the values of
 * tensors at level 5, for which it waits for the GPU.
 */
export function logCall(name: string, args: Readonly<Record<string, unknown>>): void {
  const level = logLevel();
  if (level === 0) return;
  log(1, () => (level < 3 ? name : `${name}(${Object.entries(args).map(describeArgument).join(', ')})`));
}

function describeArgument([name, value]: readonly [string, unknown]): string {
  return `${name}=${describeValue(value)}`;
}

function describeValue(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value);
  if ('shape' in value && 'dtype' in value && 'device' in value) {
    const { shape, dtype, device } = value as DescribedTensor;
    const statistics = logLevel() < 5 ? '' : ` (${describeValues(value as DescribedTensor)})`;
    return `${dtype}[${shape.join(', ')}]@${device}${statistics}`;
  }
  if (ArrayBuffer.isView(value)) return `${value.constructor.name}(${value.byteLength} bytes)`;
  if (Array.isArray(value))
    return value.length > 8 ? `Array(${value.length})` : `[${value.map(describeValue).join(', ')}]`;
  return `{${Object.entries(value).map(describeArgument).join(', ')}}`;
}

function describeValues(tensor: DescribedTensor): string {
  let values: ArrayLike<number | bigint>;
  try {
    values = tensor.toArraySync();
  } catch (error) {
    // Inside a capture, or of a disposed tensor, whose error must come from the operator.
    return `no statistics: ${error instanceof Error ? error.message : error}`;
  }
  let [min, max, sum, nans] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, 0];
  for (let i = 0; i < values.length; i++) {
    const value = Number(values[i]);
    if (Number.isNaN(value)) nans++;
    else {
      min = Math.min(min, value);
      max = Math.max(max, value);
      sum += value;
    }
  }
  const numbers = values.length - nans;
  return numbers === 0 ? `nan=${nans}` : `min=${min}, max=${max}, mean=${sum / numbers}, nan=${nans}`;
}
