// SPDX-License-Identifier: Apache-2.0
// Values in JS memory: which typed array goes with which dtype, and checked conversion into it.
import { describeValue } from '../check/describeValue.ts';
import { InvalidArgumentError } from '../errors.ts';
import { type DType, dtypes } from './dtype.ts';

/** What tensors are read into: floating types as Float32Array, except that bits() gives raw bytes. */
export type HostArray = Float32Array | Int8Array | Uint8Array | Int32Array | Uint32Array | BigInt64Array;

/** Values a tensor can be made of. */
export type TensorData =
  | readonly number[]
  | readonly bigint[]
  | readonly boolean[]
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** The array type of a dtype that toArray() gives. */
export type HostArrayOf<D extends DType> = D extends 'int64'
  ? BigInt64Array
  : D extends 'int8'
    ? Int8Array
    : D extends 'uint8' | 'bool'
      ? Uint8Array
      : D extends 'int32'
        ? Int32Array
        : D extends 'uint32'
          ? Uint32Array
          : Float32Array;

const arrayTypes = {
  float16: Float32Array,
  bfloat16: Float32Array,
  float32: Float32Array,
  float8_e4m3fn: Float32Array,
  float8_e5m2: Float32Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
} as const satisfies Record<DType, unknown>;

/** A new array for `length` values of a dtype. */
export function hostArray(dtype: DType, length: number): HostArray {
  return new arrayTypes[dtype](length);
}

/** Whether the host array of `dtype` holds float32 values that stand for a narrower type. */
export function widensOnHost(dtype: DType): boolean {
  return dtypes[dtype].floating && dtype !== 'float32';
}

/** The bytes behind a typed array. */
export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** dtype a typed array becomes by default; undefined where there is none, as for Uint16Array. */
const defaultDTypes: Partial<Record<string, DType>> = {
  Array: 'float32',
  Float16Array: 'float16',
  Float32Array: 'float32',
  Float64Array: 'float32',
  Int8Array: 'int8',
  Uint8Array: 'uint8',
  Buffer: 'uint8',
  Uint8ClampedArray: 'uint8',
  Int32Array: 'int32',
  Uint32Array: 'uint32',
  BigInt64Array: 'int64',
};

export function defaultDType(data: TensorData): DType {
  const kind = Array.isArray(data) ? 'Array' : data.constructor.name;
  if (kind === 'Array' && typeof data[0] === 'bigint') return 'int64';
  if (kind === 'Array' && typeof data[0] === 'boolean') return 'bool';
  const dtype = defaultDTypes[kind];
  if (dtype !== undefined) return dtype;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_DTYPE',
    `tensor: data is a ${kind}, which has no dtype of its own; expected an explicit dtype; pass { dtype }, or use ` +
      'fromBits() for raw bits',
  );
}

/** @throws InvalidArgumentError for what is no array; anything with a length would pass for one further on */
export function requireTensorData(data: TensorData): void {
  if (Array.isArray(data)) return;
  if (ArrayBuffer.isView(data) && !(data instanceof DataView)) {
    if (data.length === 0) requireAttached(data);
    return;
  }
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `tensor: data is ${describeValue(data)}; expected a typed array or an array of numbers; wrap a single value as ` +
      '[value], an ArrayBuffer or DataView in a typed array',
  );
}

function requireAttached(data: ArrayBufferView): void {
  try {
    bytesOf(data);
  } catch {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `tensor: data is a detached ${data.constructor.name}; expected one with its memory, which went to another thread or ` +
        'a copy of another length; make the tensor before the transfer',
    );
  }
}

/** Smallest and largest value of the integer dtypes; values outside have no right answer and are refused. */
const ranges: Partial<Record<DType, readonly [number, number]>> = {
  int8: [-128, 127],
  uint8: [0, 255],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint32: [0, 2 ** 32 - 1],
};
const int64Min = -(1n << 63n);
const int64Max = (1n << 63n) - 1n;

/**
 * `data` as the host array of `dtype`; the same object where it is one already. Fractions are cut off towards zero for
 * integer types, and every value but 0 is true for bool. Values that the type cannot hold are refused.
 */
export function toHostArray(data: TensorData, dtype: DType): HostArray {
  const type = arrayTypes[dtype];
  // A bool is 0 or 1 whatever the bytes are.
  if (data instanceof type && dtype !== 'bool') return data;
  const target = hostArray(dtype, data.length);
  if (target instanceof BigInt64Array) fillInt64(target, data);
  else if (dtype === 'bool') fillWith(target, data, (value) => (value !== 0 ? 1 : 0));
  else if (ranges[dtype] === undefined) fillWith(target, data, (value) => value);
  else fillIntegers(target, data, dtype, ranges[dtype]);
  return target;
}

function fillWith(
  target: Exclude<HostArray, BigInt64Array>,
  data: TensorData,
  convert: (value: number, i: number) => number,
): void {
  for (let i = 0; i < data.length; i++) target[i] = convert(numberAt(data, i), i);
}

function fillIntegers(
  target: Exclude<HostArray, BigInt64Array>,
  data: TensorData,
  dtype: DType,
  [min, max]: readonly [number, number],
): void {
  fillWith(target, data, (value, i) => {
    const truncated = Math.trunc(value);
    // Negated, so that NaN is refused too.
    if (!(truncated >= min && truncated <= max)) throw outOfRange(value, i, dtype, min, max);
    return truncated;
  });
}

function fillInt64(target: BigInt64Array, data: TensorData): void {
  for (let i = 0; i < data.length; i++) {
    const value = data[i];
    const big = typeof value === 'bigint' ? value : toBigInt(numberAt(data, i), i);
    if (big < int64Min || big > int64Max) throw outOfRange(big, i, 'int64', int64Min, int64Max);
    target[i] = big;
  }
}

function toBigInt(value: number, i: number): bigint {
  if (!Number.isFinite(value)) throw outOfRange(value, i, 'int64', int64Min, int64Max);
  return BigInt(Math.trunc(value));
}

function numberAt(data: TensorData, i: number): number {
  const value: unknown = data[i];
  if (typeof value === 'number') return value;
  if (typeof value === 'bigint' || typeof value === 'boolean') return Number(value);
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `tensor: data[${i}] is ${describeValue(value)}; expected a number; ` +
      'pass flat values and a shape, e.g. tensor(rows.flat(), { shape: [rows.length, n] })',
  );
}

function outOfRange(value: number | bigint, i: number, dtype: DType, min: unknown, max: unknown): InvalidArgumentError {
  return new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `tensor: data[${i}] is ${value}; expected a value from ${min} to ${max} for ${dtype}; choose a wider dtype`,
  );
}
