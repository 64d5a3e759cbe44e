// SPDX-License-Identifier: Apache-2.0
// Functions that make tensors.
import { describeValue } from '../check/describeValue.ts';
import { checkOptions } from '../check/options.ts';
import { InvalidArgumentError } from '../errors.ts';
import { native } from '../native/load.ts';
import { defaultDevice, parseDevice } from '../runtime/device.ts';
import { drawSeed, toSeed } from '../runtime/seed.ts';
import { type DType, dtypes } from './dtype.ts';
import { castContiguous, fillArange, fillNormal, fillUniform, fillValue } from './elementwise.ts';
import { bytesOf, defaultDType, requireTensorData, type TensorData, toHostArray, widensOnHost } from './hostData.ts';
import { sizeOf } from './strides.ts';
import { initialize, Tensor } from './tensor.ts';
import { copyHostToDevice, writeBytes } from './transfer.ts';

/** Extents, or the length of a tensor of one dimension. */
export type Shape = readonly number[] | number;

export interface TensorOptions<D extends DType = DType> {
  /** Default `'float32'`; for `tensor()` the type of the data. */
  dtype?: D;
  /** `'cpu'`, `'cuda'` or `'cuda:<index>'`; default: `defaultDevice()`. */
  device?: string;
}

export interface DataOptions<D extends DType = DType> extends TensorOptions<D> {
  /** Default: one dimension. */
  shape?: Shape;
}

export interface BitsOptions<D extends DType = DType> {
  shape: Shape;
  dtype: D;
  device?: string;
}

export interface RandomOptions<D extends DType = DType> extends TensorOptions<D> {
  /** 64-bit seed: the same seed gives the same values on every device. Default: drawn, see `manualSeed`. */
  seed?: number | bigint;
}

export interface ArangeOptions<D extends DType = DType> extends TensorOptions<D> {
  /** First value; default 0. */
  start?: number;
  /** Difference of neighbours; default 1. */
  step?: number;
}

/**
 * A tensor of given values, row-major, converted to `dtype`. Default dtype: the array's own (`float32` for number[]
 * and Float64Array). Converting to an integer type cuts fractions off and refuses values out of range. The data is
 * copied; for a GPU the upload is in its current stream.
 *
 * @example
 * ```ts
 * import { tensor } from '@flashinfer/core';
 *
 * const x = tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3], dtype: 'bfloat16' });
 * console.log(await x.toArray());
 * ```
 */
export function tensor<D extends DType>(data: TensorData, options: DataOptions<D> & { dtype: D }): Tensor<D>;
export function tensor(data: TensorData, options?: DataOptions): Tensor;
export function tensor(data: TensorData, options: DataOptions = {}): Tensor {
  checkOptions('tensor', options, dataNames);
  requireTensorData(data);
  const dtype = options.dtype === undefined ? defaultDType(data) : options.dtype;
  requireDType('tensor', dtype);
  const shape = requireShape('tensor', options.shape === undefined ? data.length : options.shape);
  requireLength('tensor', data.length, shape, 'values');
  const values = toHostArray(data, dtype);
  const result = allocate('tensor', shape, dtype, options.device);
  return initialize(result, () => {
    if (widensOnHost(dtype)) writeNarrowed(result, values);
    else writeBytes(result.deviceIndex, result.ptr, bytesOf(values), 'tensor');
  });
}

const tensorNames = ['dtype', 'device'] as const;
const dataNames = [...tensorNames, 'shape'] as const;
const arangeNames = [...tensorNames, 'start', 'step'] as const;
const randomNames = [...tensorNames, 'seed'] as const;

/** Converted on the cpu, so that half the bytes travel and no kernel is needed. */
function writeNarrowed(target: Tensor, values: ArrayBufferView): void {
  using wide = Tensor.allocate([target.size], 'float32', 'cpu', 'tensor');
  native().host.write(wide.ptr, bytesOf(values));
  if (target.deviceIndex < 0) {
    castContiguous(wide, target);
    return;
  }
  using narrow = Tensor.allocate([target.size], target.dtype, 'cpu', 'tensor');
  castContiguous(wide, narrow);
  copyHostToDevice(target.deviceIndex, target.ptr, narrow.ptr, narrow.byteLength, 'tensor');
}

/**
 * A tensor of raw bits, e.g. from a safetensors file: bytes, little-endian, or 16-bit words for 16-bit types.
 * @example
 * ```ts
 * import { fromBits } from '@flashinfer/core';
 *
 * const ones = fromBits(new Uint16Array(6).fill(0x3f80), { shape: [2, 3], dtype: 'bfloat16' });
 * ```
 */
export function fromBits<D extends DType>(data: Uint8Array | Uint16Array, options: BitsOptions<D>): Tensor<D> {
  if (!(data instanceof Uint8Array || data instanceof Uint16Array)) {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `fromBits: data is ${describeValue(data)}; expected a Uint8Array or Uint16Array; use tensor() for values`,
    );
  }
  checkOptions('fromBits', options, dataNames);
  const { dtype } = options;
  requireDType('fromBits', dtype);
  const shape = requireShape('fromBits', options.shape);
  requireLength('fromBits', data.byteLength / dtypes[dtype].bytes, shape, `elements of ${dtype}`);
  const result = allocate('fromBits', shape, dtype, options.device);
  return initialize(result, () => writeBytes(result.deviceIndex, result.ptr, bytesOf(data), 'fromBits'));
}

/**
 * A tensor with undefined contents.
 * @example
 * ```ts
 * import { empty } from '@flashinfer/core';
 *
 * const out = empty([8, 4096], { dtype: 'float16' });
 * ```
 */
export function empty<D extends DType = 'float32'>(shape: Shape, options: TensorOptions<D> = {}): Tensor<D> {
  return create('empty', shape, options);
}

/**
 * A tensor of zeros.
 * @example
 * ```ts
 * import { zeros } from '@flashinfer/core';
 *
 * const kvCache = zeros([64, 2, 16, 8, 128], { dtype: 'float16' });
 * ```
 */
export function zeros<D extends DType = 'float32'>(shape: Shape, options: TensorOptions<D> = {}): Tensor<D> {
  const result = create('zeros', shape, options);
  return initialize(result, () => fillValue(result, 0));
}

/**
 * A tensor of ones.
 * @example
 * ```ts
 * import { ones } from '@flashinfer/core';
 *
 * const weight = ones([4096], { dtype: 'bfloat16' });
 * ```
 */
export function ones<D extends DType = 'float32'>(shape: Shape, options: TensorOptions<D> = {}): Tensor<D> {
  const result = create('ones', shape, options);
  return initialize(result, () => fillValue(result, 1));
}

/**
 * A tensor whose every element is `value`; refused where the dtype cannot hold it.
 * @example
 * ```ts
 * import { full } from '@flashinfer/core';
 *
 * const temperatures = full([8], 0.7);
 * ```
 */
export function full<D extends DType = 'float32'>(
  shape: Shape,
  value: number | bigint,
  options: TensorOptions<D> = {},
): Tensor<D> {
  const result = create('full', shape, options);
  return initialize(result, () => {
    const [converted] = toHostArray(typeof value === 'bigint' ? [value] : [value], result.dtype);
    fillValue(result, converted!);
  });
}

/**
 * `start + i * step` for each element i, counted row-major. `arange(n)` is 0 .. n - 1.
 * @example
 * ```ts
 * import { arange } from '@flashinfer/core';
 *
 * const positions = arange(5, { start: 100, dtype: 'int32' }); // 100 .. 104
 * ```
 */
export function arange<D extends DType = 'float32'>(shape: Shape, options: ArangeOptions<D> = {}): Tensor<D> {
  checkOptions('arange', options, arangeNames);
  const { start = 0, step = 1 } = options;
  if (!(Number.isFinite(start) && Number.isFinite(step))) {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `arange: start is ${describeValue(start)} and step is ${describeValue(step)}; expected finite numbers; leave them out for 0 and 1`,
    );
  }
  const result = create('arange', shape, options, arangeNames);
  return initialize(result, () => fillArange(result, start, step));
}

/**
 * Standard normal values (Philox4x32-10); floating types.
 * @example
 * ```ts
 * import { randn } from '@flashinfer/core';
 *
 * const x = randn([8, 4096], { dtype: 'bfloat16', seed: 1 });
 * ```
 */
export function randn<D extends DType = 'float32'>(shape: Shape, options: RandomOptions<D> = {}): Tensor<D> {
  const result = createRandom('randn', shape, options);
  return initialize(result, () => fillNormal(result, seedOf('randn', options)));
}

/**
 * Uniform values in [0, 1) (Philox4x32-10); floating types.
 * @example
 * ```ts
 * import { rand } from '@flashinfer/core';
 *
 * const x = rand([8, 4096], { seed: 1 });
 * ```
 */
export function rand<D extends DType = 'float32'>(shape: Shape, options: RandomOptions<D> = {}): Tensor<D> {
  const result = createRandom('rand', shape, options);
  return initialize(result, () => fillUniform(result, seedOf('rand', options)));
}

function seedOf(caller: string, { seed }: RandomOptions): bigint {
  return seed === undefined ? drawSeed() : toSeed(seed, caller);
}

function createRandom<D extends DType>(caller: string, shape: Shape, options: RandomOptions<D>): Tensor<D> {
  checkOptions(caller, options, randomNames);
  const { dtype } = options;
  if (dtype === undefined || !Object.hasOwn(dtypes, dtype) || dtypes[dtype].floating) {
    return create(caller, shape, options, randomNames);
  }
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_DTYPE',
    `${caller}: dtype is ${dtype}; expected a floating dtype (${floatingNames()}); make floats and convert with to()`,
  );
}

function floatingNames(): string {
  return dtypeNames.filter((name) => dtypes[name].floating).join(', ');
}

const dtypeNames = Object.keys(dtypes) as DType[];

function create<D extends DType>(
  caller: string,
  shape: Shape,
  options: TensorOptions<D>,
  names: readonly string[] = tensorNames,
): Tensor<D> {
  checkOptions(caller, options, names);
  const dtype = options.dtype === undefined ? ('float32' as D) : options.dtype;
  requireDType(caller, dtype);
  return allocate(caller, requireShape(caller, shape), dtype, options.device);
}

function allocate<D extends DType>(caller: string, shape: number[], dtype: D, device?: string): Tensor<D> {
  return Tensor.allocate(shape, dtype, device === undefined ? defaultDevice() : parseDevice(device), caller);
}

function requireDType(caller: string, dtype: unknown): asserts dtype is DType {
  if (typeof dtype === 'string' && Object.hasOwn(dtypes, dtype)) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_DTYPE',
    `${caller}: dtype is ${describeValue(dtype)}; expected one of ${dtypeNames.join(', ')}; pass one of these`,
  );
}

function requireShape(caller: string, shape: Shape): number[] {
  const extents = typeof shape === 'number' ? [shape] : shape;
  if (Array.isArray(extents)) {
    const valid = extents.every((extent) => Number.isSafeInteger(extent) && extent >= 0);
    if (valid && Number.isSafeInteger(sizeOf(extents) * 8)) return [...extents];
  }
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_SHAPE',
    `${caller}: shape is ${describeValue(extents)}; expected integers of 0 or more, of at most 2^50 elements; pass e.g. [2, 3]`,
  );
}

function requireLength(caller: string, length: number, shape: readonly number[], what: string): void {
  if (length === sizeOf(shape)) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_SHAPE',
    `${caller}: data has ${length} ${what}; expected ${sizeOf(shape)} for shape [${shape.join(', ')}]; ` +
      'correct the shape or the data',
  );
}
