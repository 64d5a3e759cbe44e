// SPDX-License-Identifier: Apache-2.0
// What conversions and random numbers must give, from their definitions, in float64 and BigInt: no bit tricks here.
import type { DType } from '../../src/tensor/dtype.ts';

export interface FloatFormat {
  readonly exponentBits: number;
  readonly mantissaBits: number;
  /** Without infinities, NaN is the all-ones pattern, and overflow saturates (float8_e4m3fn). */
  readonly infinities: boolean;
}

export const floatFormats = {
  float16: { exponentBits: 5, mantissaBits: 10, infinities: true },
  bfloat16: { exponentBits: 8, mantissaBits: 7, infinities: true },
  float32: { exponentBits: 8, mantissaBits: 23, infinities: true },
  float8_e4m3fn: { exponentBits: 4, mantissaBits: 3, infinities: false },
  float8_e5m2: { exponentBits: 5, mantissaBits: 2, infinities: true },
} as const satisfies Partial<Record<DType, FloatFormat>>;

export type FloatDType = keyof typeof floatFormats;
export const floatDTypes = Object.keys(floatFormats) as FloatDType[];

export const integerRanges = {
  int8: { min: -128n, max: 127n },
  uint8: { min: 0n, max: 255n },
  int32: { min: -(1n << 31n), max: (1n << 31n) - 1n },
  uint32: { min: 0n, max: (1n << 32n) - 1n },
  int64: { min: -(1n << 63n), max: (1n << 63n) - 1n },
} as const satisfies Partial<Record<DType, { min: bigint; max: bigint }>>;

export type IntegerDType = keyof typeof integerRanges;
export const integerDTypes = Object.keys(integerRanges) as IntegerDType[];
export const allDTypes: readonly DType[] = [...floatDTypes, ...integerDTypes, 'bool'];

export function isFloatDType(dtype: DType): dtype is FloatDType {
  return dtype in floatFormats;
}

/** The value of a bit pattern. */
export function decodeFloat(bits: number, format: FloatFormat): number {
  const { exponentBits, mantissaBits, infinities } = format;
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = Math.floor(bits / 2 ** (exponentBits + mantissaBits)) === 1 ? -1 : 1;
  const exponent = Math.floor(bits / 2 ** mantissaBits) % 2 ** exponentBits;
  const mantissa = bits % 2 ** mantissaBits;
  if (exponent === 2 ** exponentBits - 1) {
    if (infinities) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
    if (mantissa === 2 ** mantissaBits - 1) return Number.NaN;
  }
  if (exponent === 0) return sign * mantissa * 2 ** (1 - bias - mantissaBits);
  return sign * (2 ** mantissaBits + mantissa) * 2 ** (exponent - bias - mantissaBits);
}

export function largestFinite(format: FloatFormat): number {
  const top = 2 ** (format.exponentBits + format.mantissaBits) - 1;
  const last = format.infinities ? top - 2 ** format.mantissaBits : top - 1;
  return decodeFloat(last, format);
}

/** `x` rounded to the format's nearest value, ties to even. */
export function roundFloat(x: number, format: FloatFormat): number {
  if (!Number.isFinite(x)) return Number.isNaN(x) || format.infinities ? x : Math.sign(x) * largestFinite(format);
  if (x === 0) return x;
  const bias = 2 ** (format.exponentBits - 1) - 1;
  let exponent = Math.floor(Math.log2(Math.abs(x)));
  if (2 ** exponent > Math.abs(x)) exponent--;
  if (2 ** (exponent + 1) <= Math.abs(x)) exponent++;
  exponent = Math.max(exponent, 1 - bias);
  const quantum = 2 ** (exponent - format.mantissaBits);
  const scaled = Math.abs(x) / quantum;
  let units = Math.floor(scaled);
  const rest = scaled - units;
  if (rest > 0.5 || (rest === 0.5 && units % 2 === 1)) units++;
  const rounded = Math.sign(x) * units * quantum;
  if (Math.abs(rounded) <= largestFinite(format)) return units === 0 ? 0 * Math.sign(x) : rounded;
  return Math.sign(x) * (format.infinities ? Number.POSITIVE_INFINITY : largestFinite(format));
}

/** An integer of any size, rounded once. */
export function roundBigInt(x: bigint, format: FloatFormat): number {
  const magnitude = x < 0n ? -x : x;
  const dropped = BigInt(Math.max(0, magnitude.toString(2).length - 50));
  const kept = magnitude >> dropped;
  // 50 bits hold any tie of a 24-bit format; one more says whether something was cut off.
  const sticky = kept << dropped === magnitude ? 0 : 0.5;
  return roundFloat((x < 0n ? -1 : 1) * (Number(kept) + sticky) * 2 ** Number(dropped), format);
}

export function wrapInteger(x: bigint, dtype: IntegerDType): bigint {
  const { min, max } = integerRanges[dtype];
  const span = max - min + 1n;
  return ((((x - min) % span) + span) % span) + min;
}

export function truncateToInteger(x: number, dtype: IntegerDType): bigint {
  if (Number.isNaN(x)) return 0n;
  const { min, max } = integerRanges[dtype];
  if (x >= Number(max) + 1) return max;
  if (x < Number(min)) return min;
  const truncated = BigInt(Math.trunc(x));
  return truncated > max ? max : truncated;
}

/** A value as it converts: a number for floating dtypes, a bigint for integers, a boolean for bool. */
export type Value = number | bigint | boolean;

/** The conversion of one value of dtype `src` to `dst`. */
export function convertValue(value: Value, dst: DType): Value {
  if (dst === 'bool')
    return typeof value === 'boolean' ? value : typeof value === 'bigint' ? value !== 0n : value !== 0;
  const plain = typeof value === 'boolean' ? BigInt(value) : value;
  if (isFloatDType(dst)) {
    return typeof plain === 'number' ? roundFloat(plain, floatFormats[dst]) : roundBigInt(plain, floatFormats[dst]);
  }
  const integer = dst as IntegerDType;
  return typeof plain === 'number' ? truncateToInteger(plain, integer) : wrapInteger(plain, integer);
}

const littleEndian = true;

/** Element `index` of raw bytes. */
export function readValue(bytes: Uint8Array, dtype: DType, index: number): Value {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (dtype) {
    case 'float32':
      return decodeFloat(view.getUint32(4 * index, littleEndian), floatFormats.float32);
    case 'float16':
    case 'bfloat16':
      return decodeFloat(view.getUint16(2 * index, littleEndian), floatFormats[dtype]);
    case 'float8_e4m3fn':
    case 'float8_e5m2':
      return decodeFloat(view.getUint8(index), floatFormats[dtype]);
    case 'int8':
      return BigInt(view.getInt8(index));
    case 'uint8':
      return BigInt(view.getUint8(index));
    case 'int32':
      return BigInt(view.getInt32(4 * index, littleEndian));
    case 'uint32':
      return BigInt(view.getUint32(4 * index, littleEndian));
    case 'int64':
      return view.getBigInt64(8 * index, littleEndian);
    case 'bool':
      return view.getUint8(index) !== 0;
  }
}

/** Ten rounds of Philox4x32 on four counter words under two key words. */
export function philox4x32(counter: readonly number[], key: readonly number[]): number[] {
  const words = counter.map(BigInt);
  const keys = key.map(BigInt);
  const mask = 0xffffffffn;
  for (let round = 0; round < 10; round++) {
    const [x = 0n, y = 0n, z = 0n, w = 0n] = words;
    const [k0 = 0n, k1 = 0n] = keys;
    const product0 = 0xd2511f53n * x;
    const product1 = 0xcd9e8d57n * z;
    words.splice(0, 4, (product1 >> 32n) ^ y ^ k0, product1 & mask, (product0 >> 32n) ^ w ^ k1, product0 & mask);
    keys.splice(0, 2, (k0 + 0x9e3779b9n) & mask, (k1 + 0xbb67ae85n) & mask);
  }
  return words.map(Number);
}

/** Random word of element `index`; stream 0 is uniform, 1 normal. */
export function randomWords(stream: number, seed: bigint, group: number): number[] {
  const counter = [group % 2 ** 32, Math.floor(group / 2 ** 32), stream, 0];
  return philox4x32(counter, [Number(seed & 0xffffffffn), Number((seed >> 32n) & 0xffffffffn)]);
}

/** Elements 4 * group to 4 * group + 3 of a normal tensor, in float64. */
export function normalGroup(seed: bigint, group: number): number[] {
  const [r0 = 0, a0 = 0, r1 = 0, a1 = 0] = randomWords(1, seed, group);
  return [
    [r0, a0],
    [r1, a1],
  ].flatMap(([radiusWord = 0, angleWord = 0]) => {
    const radius = Math.sqrt(-2 * Math.log((radiusWord + 1) / 2 ** 32));
    const angle = (2 * Math.PI * angleWord) / 2 ** 32;
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
}
