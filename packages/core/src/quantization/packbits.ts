// SPDX-License-Identifier: Apache-2.0
import { type HostIndices, hostIndptr } from '../attention/hostArray.ts';
import { Checker } from '../check/checker.ts';
import { logCall } from '../logging.ts';
import type { Device } from '../runtime/device.ts';
import { empty, tensor } from '../tensor/create.ts';
import type { DType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { type BitOrder, packBits } from './packBitsKernel.ts';

/** Options of `packbits` and `segmentPackbits`. */
export interface PackbitsOptions {
  /**
   * Which bit of its byte the first of eight elements becomes: the highest, as NumPy's packbits does, or the lowest, as
   * attention's packed masks have it. Default `'big'`.
   */
  bitorder?: BitOrder;
}

const optionNames: readonly (keyof PackbitsOptions)[] = ['bitorder'];
const orders: readonly BitOrder[] = ['big', 'little'];
const elements = { dtypes: ['bool', 'uint8'] as readonly DType[] };
const indptrRule = { dtypes: ['int32'] as readonly DType[] };

/**
 * Packs booleans into bits, eight a byte; the last byte is filled up with zeros.
 * @param x `[numElements]` bool | uint8, where anything but 0 is true
 * @param options see {@link PackbitsOptions}
 * @returns uint8 `[ceil(numElements / 8)]`
 * @throws {InvalidArgumentError} on a wrong shape, dtype or option
 * @remarks Asynchronous on the current stream.
 * @see FlashInfer `packbits`
 * @example
 * ```ts
 * import { packbits, tensor } from '@flashinfer/core';
 *
 * const x = tensor([1, 0, 1, 1, 0, 0, 1, 0, 1], { dtype: 'bool' });
 * console.log(await packbits(x).toArray()); // 0b10110010, 0b10000000
 * console.log(await packbits(x, { bitorder: 'little' }).toArray()); // 0b01001101, 0b00000001
 * ```
 */
export function packbits(x: Tensor, options: PackbitsOptions = {}): Tensor<'uint8'> {
  const order = checkElements(new Checker('packbits'), x, options);
  logCall('packbits', { x, options });
  using source = x.contiguous();
  const packed = empty([Math.ceil(x.size / 8)], { dtype: 'uint8', device: x.device });
  packBits(source, packed, order);
  return packed;
}

/**
 * As {@link packbits} for each segment of x by itself, which starts at a byte of its own: the form in which batch
 * attention takes custom masks (`bitorder: 'little'`).
 * @param x `[numElements]` bool | uint8, where anything but 0 is true
 * @param indptr first element of each segment, `[numSegments + 1]`, 0 first and numElements last: an Int32Array or
 *   number[], or an int32 tensor on x's device. A tensor on a GPU is read back, for which the call waits: prefer host
 *   arrays.
 * @param options see {@link PackbitsOptions}
 * @returns `[packed, packedIndptr]`: uint8 `[packedIndptr[numSegments]]`, and the first byte of each segment,
 *   `[numSegments + 1]`: an Int32Array, or an int32 tensor where indptr is a tensor
 * @throws {InvalidArgumentError} on a wrong shape, dtype, device or option, and on an indptr that does not rise from 0
 *   to numElements
 * @remarks Asynchronous on the current stream with host arrays; not inside a graph capture.
 * @see FlashInfer `segment_packbits`
 * @example
 * ```ts
 * import { segmentPackbits, tensor } from '@flashinfer/core';
 *
 * const x = tensor([1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1], { dtype: 'bool' });
 * const [packed, packedIndptr] = segmentPackbits(x, [0, 3, 12], { bitorder: 'little' });
 * console.log(await packed.toArray()); // 0b00000101, then 0b00111111, 0b00000001
 * console.log(packedIndptr); // 0, 1, 3
 * ```
 */
export function segmentPackbits(
  x: Tensor,
  indptr: HostIndices,
  options?: PackbitsOptions,
): [packed: Tensor<'uint8'>, packedIndptr: Int32Array];
export function segmentPackbits(
  x: Tensor,
  indptr: Tensor,
  options?: PackbitsOptions,
): [packed: Tensor<'uint8'>, packedIndptr: Tensor<'int32'>];
export function segmentPackbits(
  x: Tensor,
  indptr: HostIndices | Tensor,
  options: PackbitsOptions = {},
): [packed: Tensor<'uint8'>, packedIndptr: Int32Array | Tensor] {
  const check = new Checker('segmentPackbits');
  const order = checkElements(check, x, options);
  const first = readIndptr(check, indptr);
  const last = first[first.length - 1]!;
  if (last !== x.size) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `indptr ends with ${last}; expected numElements=${x.size} as in x; pass the segments of all of x`,
    );
  }
  logCall('segmentPackbits', { x, indptr, options });
  const firstByte = packedOffsets(first);
  const packed = empty([firstByte[firstByte.length - 1]!], { dtype: 'uint8', device: x.device });
  using src = upload(first, x.device);
  const dst = upload(firstByte, x.device);
  using source = x.contiguous();
  packBits(source, packed, order, { src, dst });
  if (indptr instanceof Tensor) return [packed, dst];
  dst.dispose();
  return [packed, firstByte];
}

function checkElements(check: Checker, x: Tensor, options: PackbitsOptions): BitOrder {
  check.tensor('x', x, ['numElements'], elements).options(options, optionNames);
  check.oneOf('bitorder', options.bitorder, orders);
  return options.bitorder ?? 'big';
}

function readIndptr(check: Checker, indptr: HostIndices | Tensor): Int32Array {
  if (!(indptr instanceof Tensor)) return hostIndptr(check.functionName, 'indptr', indptr);
  check.tensor('indptr', indptr, ['numSegments + 1'], indptrRule);
  return hostIndptr(check.functionName, 'indptr', indptr.toArraySync() as Int32Array);
}

function packedOffsets(indptr: Int32Array): Int32Array {
  const offsets = new Int32Array(indptr.length);
  for (let s = 1; s < indptr.length; ++s) {
    offsets[s] = offsets[s - 1]! + Math.ceil((indptr[s]! - indptr[s - 1]!) / 8);
  }
  return offsets;
}

function upload(values: Int32Array, device: Device): Tensor<'int32'> {
  return tensor(values, { dtype: 'int32', device });
}
