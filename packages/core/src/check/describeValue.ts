// SPDX-License-Identifier: Apache-2.0
// What messages call a value that was given in place of another. It must not throw, whatever the value is.

const longestList = 8;

/**
 * As it would be written, where that is short: `'fp16'`, `3n`, `[2, -1]`; else what it is: `a Uint32Array of 5`,
 * `an object`.
 */
export function describeValue(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`;
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return 'a function';
  if (typeof value !== 'object' || value === null) return String(value);
  if (Array.isArray(value)) return describeArray(value);
  const name = value.constructor?.name;
  if (typeof name !== 'string' || name === '' || name === 'Object') return 'an object';
  return ArrayBuffer.isView(value) && 'length' in value ? `${withArticle(name)} of ${value.length}` : withArticle(name);
}

function describeArray(values: readonly unknown[]): string {
  if (values.length > longestList) return `an Array of ${values.length}`;
  const items = Array.from(values, (item) => (Array.isArray(item) ? withArticle('Array') : describeValue(item)));
  return `[${items.join(', ')}]`;
}

function withArticle(name: string): string {
  return `${/^[AEIO]/i.test(name) ? 'an' : 'a'} ${name}`;
}

/** What was given in place of a Tensor of this module, and what to do. */
export function describeNonTensor(value: unknown): { given: string; fix: string } {
  const given = describeValue(value);
  if (given === 'a Tensor' && 'dataPtr' in (value as object)) {
    return {
      given: 'a Tensor of another copy of @flashinfer/core',
      fix: 'load the package once: one version, and everywhere with import or everywhere with require()',
    };
  }
  return { given, fix: value === undefined ? 'pass it' : 'make one with tensor() or fromBits()' };
}
