// SPDX-License-Identifier: Apache-2.0
// packbits and segmentPackbits against their definition, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import { cuda, fromBits, packbits, segmentPackbits, Tensor, tensor, zeros } from '../../src/index.ts';
import { onCuda, testDevice } from '../device.ts';
import { describeOnEachIsa } from '../isas.ts';
import { packBitsReference } from '../reference/packBits.ts';
import { maskArray, uniformSource } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';

const orders = ['big', 'little'] as const;

const boolTensor = (values: Uint8Array): Tensor =>
  fromBits(values, { shape: [values.length], dtype: 'bool', device: testDevice });

/** Not expect(): on a million bytes it takes seconds. */
function expectBytes(packed: Tensor, expected: Uint8Array, label: string): void {
  expect([packed.dtype, packed.device, [...packed.shape]]).toEqual(['uint8', testDevice, [expected.length]]);
  const found = packed.toArraySync() as Uint8Array;
  const wrong = found.findIndex((byte, i) => byte !== expected[i]);
  expect(wrong, `${label}: ${found[wrong]} for ${expected[wrong]}`).toBe(-1);
}

describeOnEachIsa('packbits', () => {
  for (const order of orders) {
    it.each([0, 1, 7, 8, 9, 10, 99, 128, 999, 5000, 131072, 999_999])(`packs %i elements, ${order}`, (count) => {
      const values = maskArray(count, count);
      expectBytes(packbits(boolTensor(values), { bitorder: order }), packBitsReference(values, order), order);
    });

    it(`takes any byte that is not 0 as true, ${order}`, () => {
      const uniform = uniformSource(3);
      const values = Uint8Array.from({ length: 4099 }, () => (uniform() < 0.5 ? 0 : Math.floor(256 * uniform())));
      const expected = packBitsReference(values, order);
      expectBytes(packbits(boolTensor(values), { bitorder: order }), expected, 'bool');
      const bytes = fromBits(values, { shape: [values.length], dtype: 'uint8', device: testDevice });
      expectBytes(packbits(bytes, { bitorder: order }), expected, 'uint8');
    });
  }

  it('starts with the highest bit by default', () => {
    expectBytes(packbits(boolTensor(Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 1))), Uint8Array.of(128, 128), 'default');
  });

  it('takes views that start anywhere, and strided ones', () => {
    const values = maskArray(3000, 4);
    const x = boolTensor(values);
    for (const start of [1, 3, 6])
      expectBytes(packbits(x.slice(0, start)), packBitsReference(values.slice(start), 'big'), 'slice');
    const column = x.view(1000, 3).select(1, 1);
    expectBytes(
      packbits(column),
      packBitsReference(
        values.filter((_, i) => i % 3 === 1),
        'big',
      ),
      'column',
    );
  });
});

/** Segments whose lengths are drawn from `lengths`, with an empty one at either end. */
function segments(count: number, lengths: readonly number[], stream: number): Int32Array {
  const uniform = uniformSource(stream);
  const indptr = new Int32Array(count + 1);
  for (let s = 1; s <= count; ++s) {
    const empty = s === 1 || s === count;
    indptr[s] = indptr[s - 1]! + (empty && count > 2 ? 0 : lengths[Math.floor(uniform() * lengths.length)]!);
  }
  return indptr;
}

function segmentReference(values: Uint8Array, indptr: Int32Array, order: 'big' | 'little'): [Uint8Array, number[]] {
  const parts = Array.from({ length: indptr.length - 1 }, (_, s) =>
    packBitsReference(values.subarray(indptr[s], indptr[s + 1]), order),
  );
  const offsets = [0];
  for (const part of parts) offsets.push(offsets[offsets.length - 1]! + part.length);
  return [Uint8Array.from(Buffer.concat(parts)), offsets];
}

describeOnEachIsa('segmentPackbits', () => {
  for (const order of orders) {
    it.each([
      [1, [5000]],
      [2, [7, 8]],
      [9, [0, 1, 7, 8, 9, 63]],
      [99, [1, 3, 100, 1000]],
      [999, [0, 13, 64, 777]],
      [4, [100_000, 123_457]],
    ] as const)(`packs %i segments of %j, ${order}`, (count, lengths) => {
      const indptr = segments(count, lengths, count);
      const values = maskArray(indptr[count]!, 5);
      const [expected, offsets] = segmentReference(values, indptr, order);
      const [packed, packedIndptr] = segmentPackbits(boolTensor(values), indptr, { bitorder: order });
      expectBytes(packed, expected, 'packed');
      expect(packedIndptr).toEqual(Int32Array.from(offsets));
    });
  }

  it('takes number[] and tensors as indptr, and answers in kind', () => {
    const values = maskArray(30, 6);
    const indptr = [0, 9, 9, 30];
    const [expected, offsets] = segmentReference(values, Int32Array.from(indptr), 'big');
    const [packed, packedIndptr] = segmentPackbits(boolTensor(values), indptr);
    expectBytes(packed, expected, 'number[]');
    expect(packedIndptr).toEqual(Int32Array.from(offsets));
    const strided = tensor([0, 7, 9, 7, 9, 7, 30, 7], { dtype: 'int32', device: testDevice }).view(4, 2).select(1, 0);
    const [fromTensor, tensorIndptr] = segmentPackbits(boolTensor(values), strided);
    expectBytes(fromTensor, expected, 'tensor');
    expect(tensorIndptr).toBeInstanceOf(Tensor);
    expect([tensorIndptr.dtype, tensorIndptr.device]).toEqual(['int32', testDevice]);
    expect(tensorIndptr.toArraySync()).toEqual(Int32Array.from(offsets));
  });

  it('packs no segments, and only empty ones', () => {
    const none = boolTensor(new Uint8Array(0));
    expect(segmentPackbits(none, [0])[1]).toEqual(Int32Array.of(0));
    const [packed, packedIndptr] = segmentPackbits(none, [0, 0, 0]);
    expect([packed.size, packedIndptr]).toEqual([0, Int32Array.of(0, 0, 0)]);
  });
});

describe('refuses', () => {
  const x = zeros([10], { dtype: 'bool', device: testDevice });

  it('what is no flat tensor of bytes', () => {
    expectThrows(() => packbits(x.view(2, 5)), 'ERR_FLASHINFER_INVALID_RANK', 'packbits: x has rank 2');
    const floats = zeros([10], { dtype: 'float32', device: testDevice });
    expectThrows(() => packbits(floats), 'ERR_FLASHINFER_INVALID_DTYPE', 'x has dtype float32', 'bool or uint8');
    const disposed = zeros([1], { dtype: 'bool', device: testDevice });
    disposed.dispose();
    expectThrows(() => packbits(disposed), 'ERR_FLASHINFER_DISPOSED', 'packbits: x');
  });

  it('unknown orders and options', () => {
    const wrong = (options: object) => () => packbits(x, options);
    expectThrows(wrong({ bitorder: 'middle' }), 'ERR_FLASHINFER_INVALID_ARGUMENT', "'middle'", "'big' or 'little'");
    expectThrows(wrong({ bitOrder: 'big' }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'option bitOrder is unknown');
  });

  it('an indptr that is not that of x', () => {
    const wrong = (indptr: number[]) => () => segmentPackbits(x, indptr);
    expectThrows(
      wrong([0, 9]),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'segmentPackbits: indptr ends with 9',
      'numElements=10',
    );
    expectThrows(wrong([0, 12]), 'ERR_FLASHINFER_INVALID_SHAPE', 'indptr ends with 12');
    expectThrows(wrong([1, 10]), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'indptr starts with 1');
    expectThrows(wrong([0, 5, 4, 10]), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'falls from 5 to 4 at 2');
    expectThrows(wrong([]), 'ERR_FLASHINFER_INVALID_SHAPE', 'indptr has 0 entries');
    const floats = tensor([0, 10], { dtype: 'float32', device: testDevice });
    expectThrows(
      () => segmentPackbits(x, floats as Tensor),
      'ERR_FLASHINFER_INVALID_DTYPE',
      'indptr has dtype float32',
    );
  });

  it.runIf(onCuda)('to upload or read an indptr inside a capture (needs FLASHINFER_TEST_DEVICE=cuda:0)', () => {
    const stream = new cuda.Stream();
    packbits(x);
    expectThrows(
      () => cuda.capture(stream, () => void segmentPackbits(x, [0, 10])),
      'ERR_FLASHINFER_UNSUPPORTED',
      'capture',
    );
  });
});
