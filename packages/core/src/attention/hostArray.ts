// SPDX-License-Identifier: Apache-2.0
// Host arrays that plans take: page tables and the like, checked once a plan.
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
    const array = Int32Array.from(value as readonly number[]);
    const wrong = (value as readonly number[]).findIndex((x, i) => x !== array[i]);
    if (wrong < 0) return array;
    throw invalid(functionName, name, `holds ${String(value[wrong])} at ${wrong}`, 'int32 values');
  }
  throw invalid(functionName, name, `is ${value === null ? 'null' : typeof value}`, 'an Int32Array or number[]');
}

/** `[batchSize + 1]`, first 0, never falling. */
export function hostIndptr(functionName: string, name: string, value: HostIndices, batchSize?: number): Int32Array {
  const indptr = hostIndices(functionName, name, value);
  const length = batchSize === undefined ? indptr.length : batchSize + 1;
  if (indptr.length !== length || length === 0) {
    const expected = batchSize === undefined ? 'at least 1 entry' : `batchSize + 1 = ${length} entries`;
    throw invalid(functionName, name, `has ${indptr.length} entries`, expected, 'ERR_FLASHINFER_INVALID_SHAPE');
  }
  if (indptr[0] !== 0) throw invalid(functionName, name, `starts with ${indptr[0]}`, '0 first');
  for (let i = 1; i < indptr.length; ++i) {
    if (indptr[i]! < indptr[i - 1]!) {
      throw invalid(
        functionName,
        name,
        `falls from ${indptr[i - 1]} to ${indptr[i]} at ${i}`,
        'values that never fall',
      );
    }
  }
  return indptr;
}

export function positiveInteger(functionName: string, name: string, value: number): number {
  if (Number.isInteger(value) && value > 0 && value < 2 ** 31) return value;
  throw invalid(functionName, name, `is ${String(value)}`, 'a positive integer');
}

function invalid(
  functionName: string,
  name: string,
  given: string,
  expected: string,
  code: 'ERR_FLASHINFER_INVALID_ARGUMENT' | 'ERR_FLASHINFER_INVALID_SHAPE' = 'ERR_FLASHINFER_INVALID_ARGUMENT',
): InvalidArgumentError {
  return new InvalidArgumentError(code, `${functionName}: ${name} ${given}; expected ${expected}`);
}
