// SPDX-License-Identifier: Apache-2.0
import { describeNonTensor, describeValue } from '../check/describeValue.ts';
import { DisposedError, InvalidArgumentError } from '../errors.ts';
import type { Ptr } from '../native/binding.ts';
import { native } from '../native/load.ts';
import { type Device, deviceIndex, parseDevice } from '../runtime/device.ts';
import { disposeSymbol } from '../runtime/disposeSymbol.ts';
import { Storage } from '../runtime/storage.ts';
import { type DType, dtypes } from './dtype.ts';
import { castContiguous, copyStrided } from './elementwise.ts';
import { bytesOf, type HostArray, type HostArrayOf, hostArray, widensOnHost } from './hostData.ts';
import { contiguousStrides, sizeOf, stridesAreContiguous, viewStrides } from './strides.ts';
import { copyDeviceToHost, copyHostToDevice, copyWithin, readBytes, readBytesSync } from './transfer.ts';

/**
 * A strided array on a device. Views (`view`, `slice`, `select`, `transpose`) share memory with their base; each is
 * disposed of by itself, and the memory is freed with the last one: on `dispose()`, at the end of a `using` scope, or
 * by the garbage collector. Freeing follows stream order, so dispose right after a launch is fine. To keep a tensor
 * beyond a scope that disposes of it, keep a view of it.
 * @example
 * ```ts
 * import { arange, type Tensor } from '@flashinfer/core';
 *
 * const x: Tensor = arange([2, 3, 4], { dtype: 'float16' });
 * const row = x.select(0, 1).slice(-1, 0, 2); // [3, 2], in the memory of x
 * console.log(row.shape, row.strides, await row.to('float32').toArray());
 * x.dispose(); // row stays valid
 * ```
 */
export class Tensor<D extends DType = DType> {
  readonly shape: readonly number[];
  /** In elements. */
  readonly strides: readonly number[];
  readonly dtype: D;
  readonly device: Device;
  /** @internal -1 for the cpu. */
  readonly deviceIndex: number;
  /** Number of elements. */
  readonly size: number;
  /** Whether the elements lie in row-major order without gaps. */
  readonly isContiguous: boolean;
  private readonly storage: Storage;
  /** Of the first element, from the start of the storage. */
  private readonly byteOffset: number;
  private isDisposed = false;

  /** Tensors come from `tensor`, `fromBits`, `empty` and the like, and from views. */
  private constructor(
    storage: Storage,
    dtype: D,
    device: Device,
    shape: readonly number[],
    strides: readonly number[],
    byteOffset: number,
  ) {
    if (!(storage instanceof Storage)) throw constructed();
    this.shape = shape;
    this.strides = strides;
    this.dtype = dtype;
    this.device = device;
    this.deviceIndex = storage.deviceIndex;
    this.size = sizeOf(shape);
    this.isContiguous = stridesAreContiguous(shape, strides);
    this.storage = storage;
    this.byteOffset = byteOffset;
  }

  /** @internal A new contiguous tensor with undefined contents. */
  static allocate<D extends DType>(shape: readonly number[], dtype: D, device: Device, caller: string): Tensor<D> {
    const storage = new Storage(deviceIndex(device), sizeOf(shape) * dtypes[dtype].bytes, caller);
    return new Tensor(storage, dtype, device, shape, contiguousStrides(shape), 0);
  }

  /** Number of dimensions. */
  get rank(): number {
    return this.shape.length;
  }

  /** Bytes of the elements, without gaps. */
  get byteLength(): number {
    return this.size * dtypes[this.dtype].bytes;
  }

  /** @internal Address of the first element, for work on the current stream; 0 where there are no elements. */
  get ptr(): Ptr {
    if (this.isDisposed) throw this.disposedError('ptr');
    return this.storage.use() + this.byteOffset;
  }

  /**
   * Address of the first element, in host or device memory. Valid while the tensor lives; work that other libraries
   * enqueue must be ordered with the current stream.
   */
  get dataPtr(): bigint {
    return BigInt(this.ptr);
  }

  get disposed(): boolean {
    return this.isDisposed;
  }

  /**
   * The same elements under another shape, without copying; one extent may be -1.
   *
   * @throws InvalidArgumentError `ERR_FLASHINFER_INVALID_SHAPE` when the sizes differ, `ERR_FLASHINFER_NON_CONTIGUOUS`
   * when the strides need a copy
   */
  view(...shape: number[]): Tensor<D> {
    const resolved = this.resolveShape(shape);
    const strides = this.isContiguous ? contiguousStrides(resolved) : viewStrides(this.shape, this.strides, resolved);
    if (strides !== undefined) return this.makeView('view', resolved, strides, 0);
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_NON_CONTIGUOUS',
      `Tensor.view: ${this.describe()} with strides [${this.strides.join(', ')}] cannot be viewed as ` +
        `[${resolved.join(', ')}]; expected dims that lie together in memory; call contiguous() first`,
    );
  }

  /** Elements `start` (included) to `end` (excluded) of dimension `dim`; negative values count from the end. */
  slice(dim: number, start: number, end: number = this.shape[this.resolveDim('slice', dim)]!): Tensor<D> {
    const d = this.resolveDim('slice', dim);
    const extent = this.shape[d]!;
    const from = fromEnd(start, extent);
    const to = fromEnd(end, extent);
    if (!(Number.isInteger(from) && Number.isInteger(to) && 0 <= from && from <= to && to <= extent)) {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `Tensor.slice: start ${describeValue(start)} and end ${describeValue(end)} on dim ${dim} of ${this.describe()}; expected integers with ` +
          `0 <= start <= end <= ${extent}; negative values count from the end`,
      );
    }
    const shape = this.shape.with(d, to - from);
    return this.makeView('slice', shape, this.strides, to === from ? 0 : from * this.strides[d]!);
  }

  /** Element `index` of dimension `dim`, which disappears; negative values count from the end. */
  select(dim: number, index: number): Tensor<D> {
    const d = this.resolveDim('select', dim);
    const extent = this.shape[d]!;
    const i = fromEnd(index, extent);
    if (!(Number.isInteger(i) && 0 <= i && i < extent)) {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `Tensor.select: index ${describeValue(index)} on dim ${dim} of ${this.describe()}; expected an integer from ${-extent} to ` +
          `${extent - 1}; check the extent of the dim`,
      );
    }
    const offset = i * this.strides[d]!;
    return this.makeView('select', this.shape.toSpliced(d, 1), this.strides.toSpliced(d, 1), offset);
  }

  /** Dimensions `dim0` and `dim1` exchanged, without copying; negative dims count from the end. */
  transpose(dim0: number, dim1: number): Tensor<D> {
    const [a, b] = [this.resolveDim('transpose', dim0), this.resolveDim('transpose', dim1)];
    const swap = (values: readonly number[]) => values.with(a, values[b]!).with(b, values[a]!);
    return this.makeView('transpose', swap(this.shape), swap(this.strides), 0);
  }

  /** A view of this tensor where it is contiguous, else a contiguous copy. Either is disposed of by itself. */
  contiguous(): Tensor<D> {
    if (this.isContiguous) return this.makeView('contiguous', this.shape, contiguousStrides(this.shape), 0);
    const copy = Tensor.allocate(this.shape, this.dtype, this.device, 'Tensor.contiguous');
    return initialize(copy, () => copyStrided(this, copy));
  }

  /**
   * This tensor on another device, or with another element type; a view where nothing changes. Copies to the cpu
   * block until they are there (`toArray()` does not); copies to a GPU are in its current stream.
   */
  to(device: Device | 'cuda'): Tensor<D>;
  to<T extends DType>(dtype: T): Tensor<T>;
  to(target: string): Tensor {
    if (typeof target === 'string' && Object.hasOwn(dtypes, target)) return this.toDType(target as DType);
    if (typeof target === 'string' && /^(cpu$|cuda)/.test(target)) return this.toDevice(parseDevice(target));
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `Tensor.to: target is ${describeValue(target)}; expected one of ${Object.keys(dtypes).join(', ')}, or 'cpu', 'cuda' ` +
        "or 'cuda:<index>'; call to() twice to change both",
    );
  }

  private toDType<T extends DType>(dtype: T): Tensor<T> {
    this.requireLive('to');
    if ((this.dtype as DType) === dtype)
      return this.makeView('to', this.shape, this.strides, 0) as unknown as Tensor<T>;
    using source = this.contiguous();
    const converted = Tensor.allocate(this.shape, dtype, this.device, 'Tensor.to');
    return initialize(converted, () => castContiguous(source, converted));
  }

  private toDevice(device: Device): Tensor<D> {
    this.requireLive('to');
    if (device === this.device) return this.makeView('to', this.shape, this.strides, 0);
    using source = this.contiguous();
    const copy = Tensor.allocate(this.shape, this.dtype, device, 'Tensor.to');
    return initialize(copy, () => copyBytes(source, copy, 'Tensor.to'));
  }

  /** Overwrites this tensor with `src`, of the same shape; its dtype and device may differ. Returns this tensor. */
  copy_(src: Tensor): this {
    this.requireLive('copy_');
    if (!(src instanceof Tensor)) {
      const { given, fix } = describeNonTensor(src);
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `Tensor.copy_: src is ${given}; expected a Tensor of shape [${this.shape.join(', ')}]; ${fix}`,
      );
    }
    if (src.shape.length !== this.shape.length || src.shape.some((extent, d) => extent !== this.shape[d])) {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_SHAPE',
        `Tensor.copy_: src has shape [${src.shape.join(', ')}]; expected [${this.shape.join(', ')}] as the ` +
          'destination; use view() or slice()',
      );
    }
    using source = src.movedTo(this.device, this.dtype);
    if (!this.overlaps(source)) {
      copyElements(source, this);
      return this;
    }
    using copy = Tensor.allocate(source.shape, this.dtype, this.device, 'Tensor.copy_');
    copyElements(source, copy);
    copyElements(copy, this);
    return this;
  }

  /** Converts on the cpu where one of the two is there, so that no kernel is needed. */
  private movedTo<T extends DType>(device: Device, dtype: T): Tensor<T> {
    if (this.deviceIndex < 0) {
      using converted = this.toDType(dtype);
      return converted.toDevice(device);
    }
    using moved = this.toDevice(device);
    return moved.toDType(dtype);
  }

  private overlaps(other: Tensor): boolean {
    if (this.storage !== other.storage || this.size === 0) return false;
    return this.byteOffset < other.byteEnd && other.byteOffset < this.byteEnd;
  }

  /** End of the last element, from the start of the storage. */
  private get byteEnd(): number {
    const last = this.shape.reduce((sum, extent, d) => sum + (extent - 1) * this.strides[d]!, 0);
    return this.byteOffset + (last + 1) * dtypes[this.dtype].bytes;
  }

  /**
   * The values, row-major; floating types as Float32Array, int64 as BigInt64Array, bool as 0 and 1. Waits for the
   * GPU off the event loop. The tensor may be disposed of, and overwritten in its stream, meanwhile.
   */
  async toArray(): Promise<HostArrayOf<D>> {
    this.requireLive('toArray');
    const { values, bits } = this.hostTarget();
    await this.readInto(bits, 'Tensor.toArray');
    return this.widened(values, bits);
  }

  /** As `toArray()`, blocking this thread until the GPU is done. */
  toArraySync(): HostArrayOf<D> {
    this.requireLive('toArraySync');
    const { values, bits } = this.hostTarget();
    using source = this.contiguous();
    readBytesSync(this.deviceIndex, source.ptr, bits, 'Tensor.toArraySync');
    return this.widened(values, bits);
  }

  /** The raw bytes of the elements, row-major and little-endian; `fromBits` is the way back. */
  async bits(): Promise<Uint8Array> {
    this.requireLive('bits');
    const bits = new Uint8Array(this.byteLength);
    await this.readInto(bits, 'Tensor.bits');
    return bits;
  }

  private async readInto(bits: Uint8Array, caller: string): Promise<void> {
    // Keeps the memory until the copy is done, also when this tensor is disposed of meanwhile.
    using source = this.contiguous();
    await readBytes(this.deviceIndex, source.ptr, bits, caller);
  }

  /** The array to return and the bytes to read into: its own, unless they are widened after. */
  private hostTarget(): { values: HostArray; bits: Uint8Array } {
    const values = hostArray(this.dtype, this.size);
    return { values, bits: widensOnHost(this.dtype) ? new Uint8Array(this.byteLength) : bytesOf(values) };
  }

  private widened(values: HostArray, bits: Uint8Array): HostArrayOf<D> {
    if (widensOnHost(this.dtype)) {
      using narrow = Tensor.allocate([this.size], this.dtype, 'cpu', 'Tensor.toArray');
      using wide = Tensor.allocate([this.size], 'float32', 'cpu', 'Tensor.toArray');
      native().host.write(narrow.ptr, bits);
      castContiguous(narrow, wide);
      native().host.read(wide.ptr, bytesOf(values));
    }
    return values as HostArrayOf<D>;
  }

  /** Gives this tensor's share of the memory back, in stream order. Idempotent. Views stay valid. */
  dispose(): void {
    if (this.isDisposed) return;
    this.isDisposed = true;
    this.storage.release();
  }

  [disposeSymbol](): void {
    this.dispose();
  }

  /** @internal E.g. `float16[2, 8, 128]@cuda:0`. */
  describe(): string {
    return `${this.dtype}[${this.shape.join(', ')}]@${this.device}`;
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `Tensor ${this.describe()}${this.isDisposed ? ' (disposed)' : ''}`;
  }

  /** @internal */
  requireLive(method: string): void {
    if (this.isDisposed) throw this.disposedError(method);
  }

  private disposedError(method: string): DisposedError {
    return new DisposedError(
      `Tensor.${method}: ${this.describe()} was disposed; expected a live tensor; keep a view of it, or dispose later`,
    );
  }

  private makeView(
    method: string,
    shape: readonly number[],
    strides: readonly number[],
    elementOffset: number,
  ): Tensor<D> {
    this.requireLive(method);
    this.storage.retain();
    const byteOffset = this.byteOffset + elementOffset * dtypes[this.dtype].bytes;
    return new Tensor(this.storage, this.dtype, this.device, shape, strides, byteOffset);
  }

  private resolveDim(method: string, dim: number): number {
    const rank = this.shape.length;
    const d = fromEnd(dim, rank);
    if (Number.isInteger(d) && 0 <= d && d < rank) return d;
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `Tensor.${method}: dim ${describeValue(dim)} of ${this.describe()}; expected an integer from ${-rank} to ${rank - 1}; ` +
        'dims count from 0, or from -1 backwards',
    );
  }

  private resolveShape(shape: readonly number[]): readonly number[] {
    let known = 1;
    let inferred = -1;
    let valid = true;
    for (let d = 0; d < shape.length; d++) {
      const extent = shape[d]!;
      if (extent === -1 && inferred === -1) inferred = d;
      else if (Number.isSafeInteger(extent) && extent >= 0) known *= extent;
      else valid = false;
    }
    const resolved = inferred === -1 ? shape : shape.with(inferred, this.size / known);
    if (valid && (inferred === -1 ? known === this.size : Number.isSafeInteger(this.size / known))) return resolved;
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `Tensor.view: ${describeValue(shape)} does not fit ${this.describe()}; expected ${this.size} elements and at most ` +
        'one -1; check the extents',
    );
  }
}

/** The constructor is private to TypeScript only. */
function constructed(): InvalidArgumentError {
  return new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    'Tensor: called as a constructor; expected one of the functions that make tensors; use tensor(values, { shape, dtype }), ' +
      'fromBits() or empty()',
  );
}

/** A position that may count from the end; anything but a number as it is, for the checks that follow. */
function fromEnd(position: number, extent: number): number {
  return typeof position === 'number' && position < 0 ? position + extent : position;
}

/** @internal Runs what gives a new tensor its contents; disposes of the tensor if that fails. */
export function initialize<T extends Tensor>(tensor: T, write: () => void): T {
  try {
    write();
    return tensor;
  } catch (error) {
    tensor.dispose();
    throw error;
  }
}

/** Elements of `src` into `dst`, of the same shape, dtype and device. */
function copyElements(src: Tensor, dst: Tensor): void {
  if (src.isContiguous && dst.isContiguous)
    copyWithin(dst.deviceIndex, dst.ptr, src.ptr, dst.byteLength, 'Tensor.copy_');
  else copyStrided(src, dst);
}

/** Whole contents of `src` into `dst`, both contiguous, of the same size and dtype, on any devices. */
function copyBytes(src: Tensor, dst: Tensor, caller: string): void {
  const bytes = src.byteLength;
  if (src.device === dst.device) copyWithin(dst.deviceIndex, dst.ptr, src.ptr, bytes, caller);
  else if (src.deviceIndex < 0) copyHostToDevice(dst.deviceIndex, dst.ptr, src.ptr, bytes, caller);
  else if (dst.deviceIndex < 0) copyDeviceToHost(src.deviceIndex, dst.ptr, src.ptr, bytes, caller);
  else {
    // Not every pair of GPUs can reach each other's memory.
    using host = Tensor.allocate([bytes], 'uint8', 'cpu', caller);
    copyDeviceToHost(src.deviceIndex, host.ptr, src.ptr, bytes, caller);
    copyHostToDevice(dst.deviceIndex, dst.ptr, host.ptr, bytes, caller);
  }
}
