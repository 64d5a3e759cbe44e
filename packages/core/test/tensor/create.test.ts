// SPDX-License-Identifier: Apache-2.0
import { randomBytes, randomInt } from 'node:crypto';
import { afterEach, describe, expect, expectTypeOf, it } from 'vitest';
import { defaultDevice, setDefaultDevice } from '../../src/runtime/device.ts';
import { manualSeed } from '../../src/runtime/seed.ts';
import { arange, empty, fromBits, full, ones, rand, randn, tensor, zeros } from '../../src/tensor/create.ts';
import { type DType, dtypes } from '../../src/tensor/dtype.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { testDevice as device } from '../device.ts';
import { expectThrows } from '../thrownBy.ts';

const allDTypes = Object.keys(dtypes) as DType[];

describe('tensor', () => {
  it.each([
    ['float32', new Float32Array([1.1, -0, Number.POSITIVE_INFINITY])],
    ['int8', new Int8Array([-128, 127, 3])],
    ['uint8', new Uint8Array([0, 255, 7])],
    ['int32', new Int32Array([-(2 ** 31), 2 ** 31 - 1, 5])],
    ['uint32', new Uint32Array([0, 2 ** 32 - 1, 9])],
    ['int64', new BigInt64Array([-(2n ** 63n), 2n ** 63n - 1n, 1n])],
  ] as const)('keeps the dtype and bits of a typed array: %s', async (dtype, data) => {
    using t = tensor(data, { device });
    expect([t.dtype, t.shape, t.strides, t.device]).toEqual([dtype, [3], [1], device]);
    expect(await t.toArray()).toEqual(data);
    expect(t.toArraySync()).toEqual(data);
  });

  it.each([
    [[1, 2.5], 'float32', new Float32Array([1, 2.5])],
    [new Float64Array([0.1, 2]), 'float32', new Float32Array([0.1, 2])],
    [[1n, -2n], 'int64', new BigInt64Array([1n, -2n])],
    [[true, false], 'bool', new Uint8Array([1, 0])],
    [new Uint8ClampedArray([3, 300]), 'uint8', new Uint8Array([3, 255])],
    [Buffer.from([1, 2]), 'uint8', new Uint8Array([1, 2])],
    [[], 'float32', new Float32Array()],
  ] as const)('chooses a dtype for %o: %s', async (data, dtype, expected) => {
    using t = tensor(data, { device });
    expect(t.dtype).toBe(dtype);
    expect(await t.toArray()).toEqual(expected);
  });

  it('converts numbers, cutting fractions off for integers', async () => {
    const convert = (data: number[], dtype: DType) => {
      using t = tensor(data, { dtype, device });
      return t.toArray();
    };
    expect(await convert([1, 2 ** -30, -65504, 1 / 3], 'float16')).toEqual(
      new Float32Array([1, 0, -65504, 0.333251953125]),
    );
    expect(await convert([1 + 2 ** -7, 1 + 2 ** -8, 3e38], 'bfloat16')).toEqual(
      new Float32Array([1 + 2 ** -7, 1, 3.0042e38].map((v, i) => (i === 2 ? 226 * 2 ** 120 : v))),
    );
    expect(await convert([448, -0.3], 'float8_e4m3fn')).toEqual(new Float32Array([448, -0.3125]));
    expect(await convert([57344, 1.1], 'float8_e5m2')).toEqual(new Float32Array([57344, 1]));
    expect(await convert([1.9, -1.9, 127.5], 'int8')).toEqual(new Int8Array([1, -1, 127]));
    expect(await convert([2 ** 53, -3.5], 'int64')).toEqual(new BigInt64Array([2n ** 53n, -3n]));
    expect(await convert([0, 0.1, Number.NaN, -2], 'bool')).toEqual(new Uint8Array([0, 1, 1, 1]));
    using raw = tensor(new Uint8Array([0, 2, 255]), { dtype: 'bool', device });
    expect(await raw.bits()).toEqual(new Uint8Array([0, 1, 1]));
  });

  it('copies the data', async () => {
    const data = new Float32Array([1, 2]);
    using t = tensor(data, { device });
    data.fill(9);
    expect(await t.toArray()).toEqual(new Float32Array([1, 2]));
  });

  it('takes a part of a larger buffer', async () => {
    const whole = Float32Array.from({ length: 8 }, (_, i) => i);
    using t = tensor(whole.subarray(3, 5), { device });
    expect(await t.toArray()).toEqual(new Float32Array([3, 4]));
  });

  it('refuses what has no right answer', () => {
    expectThrows(
      () => tensor([1, 2, 3], { shape: [2, 2] }),
      'ERR_FLASHINFER_INVALID_SHAPE',
      '3 values',
      'expected 4',
      '[2, 2]',
    );
    expectThrows(
      () => tensor([1, 300], { dtype: 'int8' }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'data[1] is 300',
      '-128 to 127',
    );
    expectThrows(() => tensor([Number.NaN], { dtype: 'int32' }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'NaN');
    expectThrows(() => tensor([-1], { dtype: 'uint32' }), 'ERR_FLASHINFER_INVALID_ARGUMENT', '-1', '4294967295');
    expectThrows(() => tensor([2n ** 63n]), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'int64');
    expectThrows(
      () => tensor([Number.POSITIVE_INFINITY], { dtype: 'int64' }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'Infinity',
    );
    expectThrows(() => tensor(new Uint16Array(2)), 'ERR_FLASHINFER_INVALID_DTYPE', 'Uint16Array', 'fromBits');
    const nested = [[1], [2]] as unknown as number[];
    expectThrows(() => tensor(nested, { device }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'data[0] is [1]', 'flat');
    const { port1, port2 } = new MessageChannel();
    const sent = new Int32Array(3);
    port1.postMessage(sent, [sent.buffer]);
    port1.close();
    port2.close();
    expectThrows(() => tensor(sent), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'data is a detached Int32Array', 'transfer');
    expectThrows(() => tensor('12' as never), 'ERR_FLASHINFER_INVALID_ARGUMENT', "data is '12'");
    expectThrows(
      () => tensor([1], { dtype: 'float64' as never }),
      'ERR_FLASHINFER_INVALID_DTYPE',
      "'float64'",
      'bfloat16',
    );
    expectThrows(() => tensor([1], { dtype: 'toString' as never }), 'ERR_FLASHINFER_INVALID_DTYPE', 'toString');
  });
});

describe('fromBits', () => {
  it.each(allDTypes)('keeps every bit: %s', async (dtype) => {
    const shape = [randomInt(1, 9), randomInt(1, 9)];
    const bytes = new Uint8Array(randomBytes(shape[0]! * shape[1]! * dtypes[dtype].bytes));
    using t = fromBits(bytes, { shape, dtype, device });
    expect(t.dtype).toBe(dtype);
    expect(await t.bits()).toEqual(bytes);
    using transposed = t.transpose(0, 1);
    using back = transposed.transpose(0, 1);
    expect(await back.bits()).toEqual(bytes);
  });

  it('reads 16-bit words, in the middle of a buffer', async () => {
    const words = new Uint16Array([0, 0x3c00, 0xc000, 0x7c00]);
    using half = fromBits(words.subarray(1), { shape: 3, dtype: 'float16', device });
    expect(await half.toArray()).toEqual(new Float32Array([1, -2, Number.POSITIVE_INFINITY]));
    using brain = fromBits(new Uint16Array([0x3f80, 0xc040]), { shape: [2, 1], dtype: 'bfloat16', device });
    expect(await brain.toArray()).toEqual(new Float32Array([1, -3]));
  });

  it('refuses other data and lengths', () => {
    const options = { shape: [2], dtype: 'float16', device } as const;
    expectThrows(
      () => fromBits(new Uint8Array(5), options),
      'ERR_FLASHINFER_INVALID_SHAPE',
      '2.5 elements of float16',
      'expected 2',
    );
    expectThrows(
      () => fromBits(new Float32Array(2) as never, options),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'Float32Array',
      'tensor()',
    );
    expectThrows(
      () => fromBits(new Uint8Array(4), { shape: [2] } as never),
      'ERR_FLASHINFER_INVALID_DTYPE',
      'undefined',
    );
  });
});

describe('zeros, ones, full, arange', () => {
  it.each(allDTypes)('fill every element: %s', async (dtype) => {
    using z = zeros([3, 5], { dtype, device });
    using o = ones(7, { dtype, device });
    using f = full([2], 1, { dtype, device });
    expect((await z.bits()).every((byte) => byte === 0)).toBe(true);
    expect(Array.from<number | bigint, number>(await o.toArray(), Number)).toEqual(new Array(7).fill(1));
    expect(Array.from<number | bigint, number>(await f.toArray(), Number)).toEqual([1, 1]);
    expect([z.shape, o.shape, z.dtype]).toEqual([[3, 5], [7], dtype]);
  });

  it('fill with values of the dtype, and count', async () => {
    using third = full(3, 1 / 3, { dtype: 'float16', device });
    expect(await third.toArray()).toEqual(new Float32Array(3).fill(0.333251953125));
    using big = full(2, -(2n ** 60n) - 1n, { dtype: 'int64', device });
    expect(await big.toArray()).toEqual(new BigInt64Array(2).fill(-(2n ** 60n) - 1n));
    expectThrows(() => full(2, 256, { dtype: 'uint8', device }), 'ERR_FLASHINFER_INVALID_ARGUMENT', '256', 'uint8');
    using count = arange([2, 3], { device });
    expect([count.shape, await count.toArray()]).toEqual([[2, 3], new Float32Array([0, 1, 2, 3, 4, 5])]);
    using steps = arange(4, { start: 10, step: -3, dtype: 'int32', device });
    expect(await steps.toArray()).toEqual(new Int32Array([10, 7, 4, 1]));
    expectThrows(() => arange(3, { step: Number.NaN }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'NaN');
  });

  it('make empty tensors and scalars', async () => {
    using none = zeros([3, 0], { device });
    expect([none.size, none.byteLength, (await none.toArray()).length]).toEqual([0, 0, 0]);
    using scalar = full([], 4, { device });
    expect([scalar.shape, scalar.size, (await scalar.toArray())[0]]).toEqual([[], 1, 4]);
  });

  it.each([[[-1]], [[1.5]], [[2 ** 40, 2 ** 40]], ['3'], [undefined], [[Number.NaN]]])(
    'refuse the shape %o',
    (shape) => {
      expectThrows(
        () => zeros(shape as never, { device }),
        'ERR_FLASHINFER_INVALID_SHAPE',
        'zeros: shape',
        '0 or more',
      );
    },
  );
});

describe('random tensors', () => {
  it('repeat by seed, differ between seeds, and look like their distribution', async () => {
    const read = async (t: Tensor<'float32'>) => {
      using held = t;
      return held.toArray();
    };
    const seed = randomInt(2 ** 40);
    const normal = await read(randn([100, 100], { seed, device }));
    expect(await read(randn([100, 100], { seed: BigInt(seed), device }))).toEqual(normal);
    expect(await read(randn([100, 100], { seed: seed + 1, device }))).not.toEqual(normal);
    const mean = normal.reduce((sum, v) => sum + v, 0) / normal.length;
    const variance = normal.reduce((sum, v) => sum + v * v, 0) / normal.length - mean * mean;
    expect(Math.abs(mean)).toBeLessThan(0.06);
    expect(Math.abs(variance - 1)).toBeLessThan(0.1);
    const uniform = await read(rand([10_000], { seed, device }));
    expect(uniform.every((v) => v >= 0 && v < 1)).toBe(true);
    expect(Math.abs(uniform.reduce((sum, v) => sum + v, 0) / uniform.length - 0.5)).toBeLessThan(0.02);
  });

  it('repeat after manualSeed, and go on drawing', async () => {
    const draw = async () => {
      using t = rand(5, { device });
      return t.toArray();
    };
    manualSeed(7);
    const first = [await draw(), await draw()];
    expect(first[0]).not.toEqual(first[1]);
    manualSeed(7);
    expect([await draw(), await draw()]).toEqual(first);
    manualSeed(8);
    expect(await draw()).not.toEqual(first[0]);
  });

  it('refuse integers and bad seeds', () => {
    expectThrows(
      () => randn(2, { dtype: 'int32', device }),
      'ERR_FLASHINFER_INVALID_DTYPE',
      'randn',
      'int32',
      'float16',
    );
    expectThrows(() => rand(2, { seed: 0.5, device }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'rand', '0.5');
    expectThrows(() => manualSeed(2 ** 60), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'manualSeed');
  });
});

describe('the default device', () => {
  const initial = defaultDevice();
  afterEach(() => setDefaultDevice(initial));

  it('is used where none is named', () => {
    setDefaultDevice(device);
    using t = empty(1);
    expect(t.device).toBe(device);
    expectThrows(() => empty(1, { device: 'gpu' }), 'ERR_FLASHINFER_INVALID_ARGUMENT', "'gpu'", "'cuda:<index>'");
    expectThrows(() => empty(1, { device: 'cuda:01' }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'cuda:01');
  });
});

describe('types', () => {
  it('follow the dtype', () => {
    using a = empty([1], { device });
    using b = empty([1], { dtype: 'bfloat16', device });
    using c = tensor([1n], { dtype: 'int64', device });
    expectTypeOf(a).toEqualTypeOf<Tensor<'float32'>>();
    expectTypeOf(b).toEqualTypeOf<Tensor<'bfloat16'>>();
    expectTypeOf(b).toExtend<Tensor>();
    expectTypeOf(b.toArraySync()).toEqualTypeOf<Float32Array>();
    expectTypeOf(c.toArray()).resolves.toEqualTypeOf<BigInt64Array>();
    expectTypeOf(b.to('int8')).toEqualTypeOf<Tensor<'int8'>>();
    expectTypeOf(() => b.to('cuda:1')).returns.toEqualTypeOf<Tensor<'bfloat16'>>();
    expectTypeOf(a.dataPtr).toEqualTypeOf<bigint>();
    // @ts-expect-error float64 is no dtype
    expect(() => empty([1], { dtype: 'float64' })).toThrow();
  });
});
