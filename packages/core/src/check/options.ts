// SPDX-License-Identifier: Apache-2.0
// What is wrong with an options argument before any of its values is looked at.
import { InvalidArgumentError } from '../errors.ts';
import { describeValue } from './describeValue.ts';

/** Names of the options of one function. */
export type OptionNames = ReadonlySet<string> | readonly string[];

/**
 * Refuses what is no object of options, such as a positional `eps`, and names that the function does not know: either
 * would silently be the default.
 */
export function checkOptions(functionName: string, options: object, allowed: OptionNames): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw notOptions(functionName, options, allowed);
  }
  let isEmpty = true;
  for (const name in options) {
    if (!has(allowed, name)) throw unknownOption(functionName, name, allowed);
    isEmpty = false;
  }
  // A Map, a Date or a Promise has no names to be wrong.
  if (isEmpty && !isRecord(options)) throw notOptions(functionName, options, allowed);
}

/** Whether a value is an object of names and values, not one of a kind with contents that names do not reach. */
export function isRecord(value: unknown): boolean {
  return Object.prototype.toString.call(value) === '[object Object]';
}

function has(allowed: OptionNames, name: string): boolean {
  return 'has' in allowed ? allowed.has(name) : allowed.includes(name);
}

function notOptions(functionName: string, given: unknown, allowed: OptionNames): InvalidArgumentError {
  const names = [...allowed].join(', ');
  const expected = names === '' ? 'nothing, or an empty object' : `an object with any of ${names}`;
  return new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${functionName}: options is ${describeValue(given)}; expected ${expected}; name each option, as in { name: value }`,
  );
}

function unknownOption(functionName: string, name: string, allowed: OptionNames): InvalidArgumentError {
  const names = [...allowed];
  const close = names.find((known) => known.toLowerCase() === name.toLowerCase());
  const fix = close === undefined ? 'check its name' : `did you mean ${close}?`;
  return new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `${functionName}: option ${name} is unknown; expected any of ${names.join(', ')}; ${fix}`,
  );
}
