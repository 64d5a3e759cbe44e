// SPDX-License-Identifier: Apache-2.0
// Host arrays that plans take: page tables and the like, checked once a plan.
import { describeValue } from '../check/describeValue.ts';
import { InvalidArgumentError } from '../errors.ts';
import { Tensor } from '../tensor/tensor.ts';

/** What plan() takes for index arrays. Device tensors are refused: reading them back would stall the GPU. */
export type HostIndices = Int32Array | readonly number[];

export function hostIndices(functionName: string, name: string, value: HostIndices): Int32Array {
  if (value instanceof Int32Array) return value;
  if (value instanceof Tensor) {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${functionName}: ${name} is a tensor on ${value.device}; expected an Int32Array or number[]; a plan is made on ` +
        'the host, and reading a tensor back would wait for the device: keep page tables in host arrays',
    );
  }
  if (Array.isArray(value)) {
    const wrong = (value as readonly number[]).findIndex((x) => !isInt32(x));
    if (wrong < 0) return Int32Array.from(value as readonly number[]);
    const given = `holds ${describeValue(value[wrong])} at ${wrong}`;
    throw invalid(functionName, name, given, 'int32 values', 'round it, or check how it is made');
  }
  const fix = ArrayBuffer.isView(value) ? `convert it with Int32Array.from(${name}, Number)` : 'pass one of these';
  throw invalid(functionName, name, `is ${describeValue(value)}`, 'an Int32Array or number[]', fix);
}

function isInt32(x: unknown): boolean {
  return typeof x === 'number' && (x | 0) === x;
}

/** Of the elements of a mask in an array, whose length was checked: text and holes would silently be one or the other. */
export function checkBooleans(functionName: string, name: string, mask: Uint8Array | readonly boolean[]): void {
  if (mask instanceof Uint8Array) return;
  const wrong = mask.findIndex((x: unknown) => x !== true && x !== false && x !== 0 && x !== 1);
  if (wrong < 0) return;
  const given = `holds ${describeValue(mask[wrong])} at ${wrong}`;
  throw invalid(functionName, name, given, 'true and false', 'flatten it, and convert it to booleans');
}

/** `[batchSize + 1]`, first 0, never falling. */
export function hostIndptr(functionName: string, name: string, value: HostIndices, batchSize?: number): Int32Array {
  const indptr = hostIndices(functionName, name, value);
  const length = batchSize === undefined ? indptr.length : batchSize + 1;
  if (indptr.length !== length || length === 0) {
    const expected = batchSize === undefined ? 'at least 1 entry' : `batchSize + 1 = ${length} entries`;
    const fix = 'it has 0, then for each request the sum up to its end';
    throw invalid(functionName, name, `has ${indptr.length} entries`, expected, fix, 'ERR_FLASHINFER_INVALID_SHAPE');
  }
  if (indptr[0] !== 0) {
    throw invalid(functionName, name, `starts with ${indptr[0]}`, '0 first', 'it holds sums of lengths, not lengths');
  }
  for (let i = 1; i < indptr.length; ++i) {
    if (indptr[i]! < indptr[i - 1]!) {
      throw invalid(
        functionName,
        name,
        `falls from ${indptr[i - 1]} to ${indptr[i]} at ${i}`,
        'values that never fall',
        'it holds sums of lengths, not lengths',
      );
    }
  }
  return indptr;
}

export function positiveInteger(functionName: string, name: string, value: number): number {
  if (Number.isInteger(value) && value > 0 && value < 2 ** 31) return value;
  const given = `is ${describeValue(value)}`;
  throw invalid(
    functionName,
    name,
    given,
    'an integer from 1 to 2^31 - 1',
    value === undefined ? 'pass it' : 'correct it',
  );
}

function invalid(
  functionName: string,
  name: string,
  given: string,
  expected: string,
  fix: string,
  code: 'ERR_FLASHINFER_INVALID_ARGUMENT' | 'ERR_FLASHINFER_INVALID_SHAPE' = 'ERR_FLASHINFER_INVALID_ARGUMENT',
): InvalidArgumentError {
  return new InvalidArgumentError(code, `${functionName}: ${name} ${given}; expected ${expected}; ${fix}`);
}
