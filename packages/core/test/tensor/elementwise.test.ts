// SPDX-License-Identifier: Apache-2.0
// Runs on the device named by FLASHINFER_TEST_DEVICE (default cpu); results are compared with definitions in float64 and
// BigInt, and on CUDA also bit for bit with the cpu device.
import { randomBytes, randomInt } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { UnsupportedError } from '../../src/errors.ts';
import { native } from '../../src/native/load.ts';
import type { Device } from '../../src/runtime/device.ts';
import { currentStream } from '../../src/runtime/stream.ts';
import { empty } from '../../src/tensor/create.ts';
import { type DType, dtypes } from '../../src/tensor/dtype.ts';
import {
  castContiguous,
  copyStrided,
  elementwiseSpecs,
  fillArange,
  fillNormal,
  fillUniform,
  fillValue,
} from '../../src/tensor/elementwise.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { testDevice as device } from '../device.ts';
import {
  allDTypes,
  convertValue,
  decodeFloat,
  floatDTypes,
  floatFormats,
  integerDTypes,
  normalGroup,
  philox4x32,
  randomWords,
  readValue,
  roundFloat,
  type Value,
} from './elementwiseReference.ts';

function write(target: Tensor, bytes: Uint8Array): void {
  if (target.deviceIndex < 0) native().host.write(target.ptr, bytes);
  else native().cuda.write(target.deviceIndex, target.ptr, bytes, currentStream(target.deviceIndex));
}

function read(source: Tensor): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(source.byteLength);
  if (source.deviceIndex < 0) native().host.read(source.ptr, bytes);
  else native().cuda.readSync(source.deviceIndex, source.ptr, bytes, currentStream(source.deviceIndex));
  return bytes;
}

const poison = 0xa5;

function poisoned(shape: number[], dtype: DType, on: Device = device): Tensor {
  const result = empty(shape, { dtype, device: on });
  write(result, new Uint8Array(result.byteLength).fill(poison));
  return result;
}

function holding(bytes: Uint8Array, dtype: DType): Tensor {
  const result = empty([bytes.byteLength / dtypes[dtype].bytes], { dtype, device });
  write(result, bytes);
  return result;
}

/** Converts `bytes` of `src` and compares every element with its definition. */
function expectCast(bytes: Uint8Array, src: DType, dst: DType): void {
  using source = holding(bytes, src);
  using target = poisoned([source.size], dst);
  castContiguous(source, target);
  const result = read(target);
  for (let i = 0; i < source.size; i++) {
    const given = readValue(bytes, src, i);
    const wanted = convertValue(given, dst);
    const got = readValue(result, dst, i);
    if (!Object.is(got, wanted)) {
      expect.fail(`${src} ${String(given)} to ${dst}: got ${String(got)}, expected ${String(wanted)}`);
    }
    if (dst === 'bool' && src !== 'bool') expect(result[i]).toBe(Number(wanted));
  }
}

describe('castContiguous', () => {
  const narrow = allDTypes.filter((dtype) => dtypes[dtype].bytes <= 2);

  it.each(narrow)('converts every %s to every dtype', (src) => {
    const patterns = 2 ** (8 * dtypes[src].bytes);
    const bytes = new Uint8Array(patterns * dtypes[src].bytes);
    const values = dtypes[src].bytes === 2 ? new Uint16Array(bytes.buffer) : bytes;
    for (let i = 0; i < patterns; i++) values[i] = i;
    for (const dst of allDTypes) expectCast(bytes, src, dst);
  });

  it.each(floatDTypes.filter((dtype) => dtype !== 'float32'))(
    'rounds float32 to the nearest %s: ties, neighbours of ties, overflow, subnormals, NaN',
    (dst) => {
      const format = floatFormats[dst];
      const bits: number[] = [0, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0xff800001, 1, 0x807fffff];
      const float = new Float32Array(1);
      const word = new Uint32Array(float.buffer);
      const patterns = 2 ** (format.exponentBits + format.mantissaBits);
      const step = patterns > 256 ? 7 : 1;
      for (let pattern = randomInt(0, step); pattern + 1 < patterns; pattern += step) {
        const [low, high] = [decodeFloat(pattern, format), decodeFloat(pattern + 1, format)];
        // Beyond the last value, the midpoint to what the next would be decides overflow.
        const below = Number.isFinite(low) ? low : 0;
        const quantum = Number.isFinite(high) ? high - low : below - decodeFloat(Math.max(pattern - 1, 0), format);
        float[0] = below + quantum / 2;
        const tie = word[0] as number;
        const negative = randomInt(0, 2) * 0x80000000;
        bits.push(tie + negative, Math.max(tie - 1, 0) + negative, tie + 1 + negative);
      }
      for (let i = 0; i < 20_000; i++) bits.push(randomBytes(4).readUInt32LE());
      expectCast(new Uint8Array(Uint32Array.from(bits).buffer), 'float32', dst);
    },
  );

  it('truncates float32 to integers and saturates', () => {
    const values = [0, -0, 0.99, -0.99, 1e30, -1e30, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    for (const dtype of integerDTypes) {
      const bits = 8 * dtypes[dtype].bytes;
      for (const edge of [2 ** bits, 2 ** (bits - 1), -(2 ** (bits - 1))]) {
        for (const ulps of [-2, -1, 0, 1, 2]) values.push(edge * (1 + ulps * 2 ** -23), edge + ulps, edge + ulps / 2);
      }
    }
    for (let i = 0; i < 2000; i++) values.push((Math.random() - 0.5) * 2 ** randomInt(0, 68));
    const bytes = new Uint8Array(Float32Array.from(values).buffer);
    for (const dst of [...integerDTypes, 'bool' as const]) expectCast(bytes, 'float32', dst);
  });

  it.each(['int32', 'uint32', 'int64'] as const)('rounds %s once to every dtype', (src) => {
    const bits = 8 * dtypes[src].bytes;
    const values = [0n, 1n, -1n, 1n << BigInt(bits - 1), -(1n << BigInt(bits - 1)), (1n << BigInt(bits - 1)) - 1n];
    for (let i = 0; i < 6000; i++) {
      // A tie of a type with few significant bits, and what a second rounding would get wrong beside it.
      const significant = BigInt(randomBytes(4).readUInt32LE() >>> randomInt(0, 31));
      const shifted = significant << BigInt(randomInt(0, bits));
      values.push(
        shifted,
        shifted + 1n,
        shifted - 1n,
        -shifted,
        randomBytes(8).readBigInt64LE() >> BigInt(randomInt(0, 64)),
      );
    }
    const bytes = new Uint8Array(values.length * dtypes[src].bytes);
    const view = new DataView(bytes.buffer);
    values.forEach((value, i) => {
      if (src === 'int64') view.setBigInt64(8 * i, value, true);
      else view.setUint32(4 * i, Number(BigInt.asUintN(32, value)), true);
    });
    for (const dst of allDTypes) expectCast(bytes, src, dst);
  });

  it('converts any number of elements at any offset, and nothing beside them', () => {
    for (const [src, dst] of [
      ['float32', 'bfloat16'],
      ['float8_e4m3fn', 'float16'],
      ['int64', 'int8'],
      ['bool', 'float32'],
      ['float16', 'float16'],
    ] as const) {
      for (const count of [0, 1, 2, 3, 7, 16, 17, 1023, 4096, 4097, 5000]) {
        const offset = randomInt(0, 9);
        const bytes = new Uint8Array(randomBytes((count + offset) * dtypes[src].bytes));
        using source = holding(bytes, src);
        using target = poisoned([count + offset + 3], dst);
        castContiguous(source.slice(0, offset, offset + count), target.slice(0, offset, offset + count));
        const result = read(target);
        const size = dtypes[dst].bytes;
        const outside = [...result.subarray(0, offset * size), ...result.subarray((offset + count) * size)];
        expect(outside.every((byte) => byte === poison)).toBe(true);
        for (let i = offset; i < offset + count; i++) {
          expect(readValue(result, dst, i), `${src} to ${dst}`).toEqual(convertValue(readValue(bytes, src, i), dst));
        }
      }
    }
  });
});

/** Index of every element of a strided tensor in its storage's first element, in row-major order. */
function elementOffsets(shape: readonly number[], strides: readonly number[]): number[] {
  let offsets = [0];
  shape.forEach((size, d) => {
    const stride = strides[d] as number;
    offsets = offsets.flatMap((offset) => Array.from({ length: size }, (_, i) => offset + i * stride));
  });
  return offsets;
}

/** A random view: dimensions exchanged, sliced and selected. Offset is in elements of `base`. */
function randomView(base: Tensor): Tensor {
  let view = base;
  for (let step = randomInt(0, 5); step > 0; step--) {
    const rank = view.shape.length;
    if (rank > 1 && randomInt(0, 2) === 0) {
      view = view.transpose(randomInt(0, rank), randomInt(0, rank));
    } else if (rank > 1 && randomInt(0, 4) === 0) {
      const dim = randomInt(0, rank);
      view = view.select(dim, randomInt(0, view.shape[dim] as number));
    } else if (rank > 0) {
      const dim = randomInt(0, rank);
      const size = view.shape[dim] as number;
      const start = randomInt(0, size);
      view = view.slice(dim, start, randomInt(start, size) + 1);
    }
  }
  return view;
}

function expectCopy(source: Tensor, sourceBase: Tensor, target: Tensor, targetBase: Tensor): void {
  const bytes = dtypes[source.dtype].bytes;
  const from = read(sourceBase);
  const expected = read(targetBase);
  const sourceStart = source.ptr - sourceBase.ptr;
  const targetStart = target.ptr - targetBase.ptr;
  const targets = elementOffsets(target.shape, target.strides);
  elementOffsets(source.shape, source.strides).forEach((offset, i) => {
    const at = sourceStart + offset * bytes;
    expected.set(from.subarray(at, at + bytes), targetStart + (targets[i] as number) * bytes);
  });
  copyStrided(source, target);
  const layout = `${source.shape} strides ${source.strides} to ${target.strides}, ${source.dtype}`;
  expect(Buffer.compare(read(targetBase), expected), layout).toBe(0);
}

describe('copyStrided', () => {
  const copied: DType[] = ['uint8', 'bfloat16', 'float32', 'int64'];
  const rounds = device === 'cpu' ? 60 : 12; // every new layout kind is a kernel to compile on CUDA

  it.each(copied)('copies random views of %s into contiguous tensors and into views', (dtype) => {
    for (let round = 0; round < rounds; round++) {
      const rank = randomInt(1, 6);
      const shape = Array.from({ length: rank }, () => randomInt(1, 7));
      const size = shape.reduce((product, n) => product * n, 1);
      using sourceBase = holding(new Uint8Array(randomBytes(size * dtypes[dtype].bytes)), dtype);
      const source = randomView(sourceBase.view(...shape));
      // The target lies inside a larger tensor with its dimensions exchanged; what surrounds it must not change.
      const padded = [...source.shape].map((n) => n + randomInt(0, 3));
      const swap: [number, number] = [
        randomInt(0, Math.max(padded.length, 1)),
        randomInt(0, Math.max(padded.length, 1)),
      ];
      if (padded.length > 0)
        [padded[swap[0]], padded[swap[1]]] = [padded[swap[1]] as number, padded[swap[0]] as number];
      using targetBase = poisoned(padded, dtype);
      let target: Tensor = padded.length > 0 ? targetBase.transpose(...swap) : targetBase;
      source.shape.forEach((n, d) => {
        const start = randomInt(0, (target.shape[d] as number) - n + 1);
        target = target.slice(d, start, start + n);
      });
      expectCopy(source, sourceBase, target, targetBase);
    }
  });

  it.each(copied)('transposes matrices of %s larger than a tile', (dtype) => {
    for (const [rows, columns] of [
      [64, 64],
      [33, 100],
      [129, 31],
      [1000, 8],
    ] as const) {
      using source = holding(new Uint8Array(randomBytes(3 * rows * columns * dtypes[dtype].bytes)), dtype);
      using flat = poisoned([columns, rows], dtype);
      expectCopy(
        source
          .slice(0, 0, rows * columns)
          .view(rows, columns)
          .transpose(0, 1),
        source,
        flat,
        flat,
      );
      using batched = poisoned([columns, 3, rows], dtype);
      expectCopy(source.view(3, rows, columns).transpose(0, 2).transpose(1, 2), source, batched, batched);
    }
  });

  it('copies large slices over several threads or many blocks', () => {
    using source = holding(new Uint8Array(randomBytes(2 << 20)), 'float16');
    using target = poisoned([1000, 700], 'float16');
    const rows = source.view(1024, 1024);
    expectCopy(rows.slice(0, 3, 1003).slice(1, 8, 708), source, target, target);
    expectCopy(rows.slice(0, 3, 1003).slice(1, 7, 707), source, target, target);
    expectCopy(rows.transpose(0, 1).slice(0, 3, 1003).slice(1, 8, 708), source, target, target);
  });

  it('leaves empty tensors alone and refuses more than 8 dimensions that cannot be merged', () => {
    using nothing = empty([3, 0], { dtype: 'float32', device });
    copyStrided(nothing, nothing);
    using base = empty(Array<number>(9).fill(2), { dtype: 'float32', device });
    using target = empty(Array<number>(9).fill(2), { dtype: 'float32', device });
    let reversed: Tensor = base;
    for (let d = 0; d < 4; d++) reversed = reversed.transpose(d, 8 - d);
    expect(() => copyStrided(reversed, target)).toThrow(UnsupportedError);
    expect(() => copyStrided(reversed, target)).toThrow(/copy: src has 9 dimensions .*expected at most 8/);
    // Nine dimensions that merge are fine.
    fillArange(base, 0, 1);
    copyStrided(base, target);
    expect(Buffer.compare(read(target), read(base))).toBe(0);
  });
});

describe('fillValue and fillArange', () => {
  it.each(allDTypes)('fill %s with values rounded once from float64', (dtype) => {
    // Just above a tie of float16 and bfloat16 by less than float32 resolves: rounding through float32 would lose it.
    const values = [0, -0, 1, -1, 3.7, -3.7, 1 + 2 ** -11 + 2 ** -40, 1 + 2 ** -8 + 2 ** -40, 1e6, -1e30, Number.NaN];
    for (const value of [
      ...values,
      300,
      2 ** 31,
      2 ** 40 + 0.5,
      Number.POSITIVE_INFINITY,
      (Math.random() - 0.5) * 1e4,
    ]) {
      const count = randomInt(1, 70);
      const offset = randomInt(0, 5);
      using base = poisoned([count + offset + 2], dtype);
      fillValue(base.slice(0, offset, offset + count), value);
      const bytes = read(base);
      const wanted: Value = convertValue(value, dtype);
      for (let i = offset; i < offset + count; i++) expect(readValue(bytes, dtype, i), `${value}`).toEqual(wanted);
      expect(bytes[offset * dtypes[dtype].bytes - 1] ?? poison).toBe(poison);
      expect(bytes[(offset + count) * dtypes[dtype].bytes]).toBe(poison);
    }
  });

  it('fills int64 with bigints that no number holds', () => {
    for (const value of [-1n, 0n, 0x0123456789abcdefn, -(1n << 63n), (1n << 62n) + 1n]) {
      using target = poisoned([37], 'int64');
      fillValue(target, value);
      expect([...new BigInt64Array(read(target).buffer)].every((got) => got === value)).toBe(true);
    }
  });

  it.each(allDTypes)('counts in %s', (dtype) => {
    for (const [start, step] of [
      [0, 1],
      [-5.25, 0.375],
      [randomInt(-1000, 1000), -3],
      [2 ** 33, 2 ** 20 + 1],
    ] as const) {
      const count = randomInt(1, 3000);
      using target = poisoned([count], dtype);
      fillArange(target, start, step);
      const bytes = read(target);
      for (let i = 0; i < count; i++) {
        expect(readValue(bytes, dtype, i), `${i}`).toEqual(convertValue(start + i * step, dtype));
      }
    }
  });
});

/** P(Z <= z) for a standard normal: series near 0, continued fraction of the tail beyond. */
function normalCdf(z: number): number {
  const x = Math.abs(z);
  const density = Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  let tail: number;
  if (x < 3) {
    let term = x;
    let sum = x;
    for (let k = 1; k < 60; k++) {
      term *= (x * x) / (2 * k + 1);
      sum += term;
    }
    tail = 0.5 - density * sum;
  } else {
    let fraction = x;
    for (let k = 60; k > 0; k--) fraction = x + k / fraction;
    tail = density / fraction;
  }
  return z > 0 ? 1 - tail : tail;
}

/** sqrt(n) times the largest distance from the distribution; above 2.5 once in 130,000 runs. */
function kolmogorovSmirnov(sample: Float32Array, cdf: (x: number) => number): number {
  const sorted = sample.slice().sort();
  let distance = 0;
  sorted.forEach((x, i) => {
    const p = cdf(x);
    distance = Math.max(distance, Math.abs(p - i / sorted.length), Math.abs(p - (i + 1) / sorted.length));
  });
  return distance * Math.sqrt(sorted.length);
}

describe('fillUniform and fillNormal', () => {
  it('draws from Philox4x32-10: the published test vectors of Random123', () => {
    const ones = 0xffffffff;
    expect(philox4x32([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    expect(philox4x32([ones, ones, ones, ones], [ones, ones])).toEqual([
      0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd,
    ]);
    expect(philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
    ]);
    using target = poisoned([4], 'float32');
    fillUniform(target, 0n);
    const words = [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8];
    expect([...new Float32Array(read(target).buffer)]).toEqual(words.map((word) => (word >>> 8) / 2 ** 24));
  });

  it.each(floatDTypes)('uniform %s is the leading bits of its word', (dtype) => {
    const digits = floatFormats[dtype].mantissaBits + 1;
    for (const count of [0, 1, 2, 3, 5, 1029]) {
      const seed = randomBytes(8).readBigUInt64LE();
      const offset = randomInt(0, 4);
      using base = poisoned([count + offset + 1], dtype);
      fillUniform(base.slice(0, offset, offset + count), seed);
      const bytes = read(base);
      expect(bytes[(offset + count) * dtypes[dtype].bytes]).toBe(poison);
      for (let i = 0; i < count; i++) {
        const word = randomWords(0, seed, Math.floor(i / 4))[i % 4] as number;
        expect(readValue(bytes, dtype, offset + i)).toBe(Math.floor(word / 2 ** (32 - digits)) / 2 ** digits);
      }
    }
  });

  it.each(floatDTypes)('normal %s is the Box-Muller transform of its words, to float32 accuracy', (dtype) => {
    const seed = -BigInt(randomInt(1, 2 ** 40));
    using target = poisoned([4001], dtype);
    fillNormal(target, seed);
    const bytes = read(target);
    for (let group = 0; group < 1000; group++) {
      const group4 = normalGroup(seed, group);
      group4.forEach((z, lane) => {
        const got = readValue(bytes, dtype, 4 * group + lane) as number;
        // The largest error in float32 over 40 million pairs was 2.6e-7 of the pair's radius. A value so close to a tie
        // may round to the other side in a narrower dtype.
        const slack = 4e-7 * Math.hypot(z, group4[lane ^ 1] as number);
        const format = floatFormats[dtype];
        expect(got).toBeGreaterThanOrEqual(roundFloat(z - slack, format));
        expect(got).toBeLessThanOrEqual(roundFloat(z + slack, format));
      });
    }
  });

  it.each(floatDTypes)('%s has the bits of the cpu device', (dtype) => {
    const seed = randomBytes(8).readBigUInt64LE();
    const count = 100_001;
    for (const fill of [fillUniform, fillNormal]) {
      using here = poisoned([count], dtype);
      using onCpu = poisoned([count], dtype, 'cpu');
      fill(here, seed);
      fill(onCpu, seed);
      expect(Buffer.compare(read(here), read(onCpu))).toBe(0);
    }
  });

  it('element i depends on the seed and i only', () => {
    const seed = randomBytes(8).readBigUInt64LE();
    using long = poisoned([40_000], 'float32');
    using short = poisoned([333], 'float32');
    using other = poisoned([333], 'float32');
    fillNormal(long, seed);
    fillNormal(short, seed);
    fillNormal(other, seed + 1n);
    expect(Buffer.compare(read(short), read(long).subarray(0, 333 * 4))).toBe(0);
    expect(Buffer.compare(read(other), read(short))).not.toBe(0);
  });

  it('follows the distributions: Kolmogorov-Smirnov, moments, tails, independence of neighbours', () => {
    const count = 1 << 20;
    const seed = randomBytes(8).readBigUInt64LE();
    using target = poisoned([count], 'float32');
    fillUniform(target, seed);
    const uniform = new Float32Array(read(target).buffer);
    expect(uniform.every((x) => x >= 0 && x < 1)).toBe(true);
    expect(
      kolmogorovSmirnov(uniform, (x) => x),
      `seed ${seed}`,
    ).toBeLessThan(2.5);
    fillNormal(target, seed);
    const normal = new Float32Array(read(target).buffer);
    expect(kolmogorovSmirnov(normal, normalCdf), `seed ${seed}`).toBeLessThan(2.5);

    // Each within 5.5 standard errors: a false alarm once in several million runs.
    const within = (what: string, value: number, mean: number, deviation: number) =>
      expect(Math.abs(value - mean) / (deviation / Math.sqrt(count)), `${what}, seed ${seed}`).toBeLessThan(5.5);
    const average = (f: (z: number, i: number) => number) => normal.reduce((sum, z, i) => sum + f(z, i), 0) / count;
    within(
      'mean',
      average((z) => z),
      0,
      1,
    );
    within(
      'variance',
      average((z) => z * z),
      1,
      Math.sqrt(2),
    );
    within(
      'skewness',
      average((z) => z ** 3),
      0,
      Math.sqrt(15),
    );
    within(
      'kurtosis',
      average((z) => z ** 4),
      3,
      Math.sqrt(96),
    );
    for (const lag of [1, 2, 3, 4])
      within(
        `lag ${lag}`,
        average((z, i) => z * (normal[i + lag] ?? 0)),
        0,
        1,
      );
    for (const bound of [2, 3, 4]) {
      const p = 2 * normalCdf(-bound);
      within(
        `tail beyond ${bound}`,
        average((z) => (Math.abs(z) > bound ? 1 : 0)),
        p,
        Math.sqrt(p * (1 - p)),
      );
    }
    expect(normal.reduce((largest, z) => Math.max(largest, Math.abs(z)), 0)).toBeLessThan(6.67);
  });
});

describe('elementwiseSpecs', () => {
  it('lists distinct kernels with valid names', () => {
    const specs = elementwiseSpecs();
    expect(new Set(specs.map((spec) => spec.name)).size).toBe(specs.length);
    expect(new Set(specs.map((spec) => spec.entry)).size).toBe(specs.length);
    for (const spec of specs) expect(spec.name).toMatch(/^[a-z0-9_]+$/);
    for (const dtype of allDTypes) {
      const type = new RegExp(`\\b${dtypes[dtype].cpp}\\b`);
      const casts = specs.filter((spec) => spec.entry.includes('CastConfig') && type.test(spec.entry));
      expect(casts.length, dtype).toBeGreaterThanOrEqual(2);
    }
  });
});
