// SPDX-License-Identifier: Apache-2.0
// What only the cpu device has: instruction set versions, threads, unaligned addresses, damaged bytes.
import { randomBytes, randomInt } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import { native } from '../../src/native/load.ts';
import { type DType, dtypes } from '../../src/tensor/dtype.ts';
import { allDTypes, convertValue, floatDTypes, readValue, type Value } from '../tensor/elementwiseReference.ts';

const { cpu, host } = native();
const isas = cpu.info().availableIsas;
const blocks: number[] = [];

afterEach(() => {
  for (const block of blocks.splice(0)) host.free(block);
  cpu.setIsa('auto');
});

/** Native memory, filled with a pattern that no operation leaves by chance; `offset` bytes off its alignment. */
function poisoned(bytes: number, offset = 0): number {
  const block = host.alloc(bytes + offset);
  blocks.push(block);
  host.fill(block, 0xa5, bytes + offset);
  return block + offset;
}

function holding(bytes: Uint8Array, offset = 0): number {
  const ptr = poisoned(bytes.byteLength, offset);
  host.write(ptr, bytes);
  return ptr;
}

function contents(ptr: number, bytes: number): Uint8Array {
  const out = new Uint8Array(bytes);
  host.read(ptr, out);
  return out;
}

function same(a: Value, b: Value): boolean {
  return Object.is(a, b);
}

function cast(src: number, srcDtype: DType, dst: number, dstDtype: DType, count: number): void {
  cpu.cast({ src, srcDtype: dtypes[srcDtype].code, dst, dstDtype: dtypes[dstDtype].code, count });
}

describe('cpu.cast', () => {
  it.each(isas)('%s converts random bits between all dtypes, also from unaligned addresses', (isa) => {
    cpu.setIsa(isa);
    for (const srcDtype of allDTypes) {
      for (const dstDtype of allDTypes) {
        const count = randomInt(1, 300);
        const srcBytes = new Uint8Array(randomBytes(count * dtypes[srcDtype].bytes));
        const dstBytes = count * dtypes[dstDtype].bytes;
        const src = holding(srcBytes, dtypes[srcDtype].bytes * randomInt(0, 5));
        const dst = poisoned(dstBytes + 1, dtypes[dstDtype].bytes * randomInt(0, 5));
        cast(src, srcDtype, dst, dstDtype, count);
        const result = contents(dst, dstBytes + 1);
        expect(result[dstBytes], `${srcDtype} to ${dstDtype} wrote past the end`).toBe(0xa5);
        for (let i = 0; i < count; i++) {
          const given = readValue(srcBytes, srcDtype, i);
          const got = readValue(result, dstDtype, i);
          const wanted = convertValue(given, dstDtype);
          if (!same(got, wanted)) {
            expect.fail(`${srcDtype} ${String(given)} to ${dstDtype}: got ${String(got)}, expected ${String(wanted)}`);
          }
        }
      }
    }
  });

  it('reads any nonzero byte of a bool as true and writes 1', () => {
    const bytes = new Uint8Array([0, 1, 2, 128, 255, 0]);
    const src = holding(bytes);
    const dst = poisoned(24);
    cast(src, 'bool', dst, 'float32', 6);
    expect([...new Float32Array(contents(dst, 24).buffer)]).toEqual([0, 1, 1, 1, 1, 0]);
    cast(src, 'uint8', dst, 'bool', 6);
    expect([...contents(dst, 6)]).toEqual([0, 1, 1, 1, 1, 0]);
  });

  it('gives the same bytes with one thread and several', () => {
    const count = 300_007;
    const src = holding(new Uint8Array(randomBytes(count * 4)));
    const one = poisoned(count * 2);
    const many = poisoned(count * 2);
    const { numThreads } = cpu.info();
    try {
      cpu.setNumThreads(1);
      cast(src, 'float32', one, 'bfloat16', count);
      cpu.setNumThreads(4);
      cast(src, 'float32', many, 'bfloat16', count);
    } finally {
      cpu.setNumThreads(numThreads);
    }
    expect(Buffer.compare(contents(many, count * 2), contents(one, count * 2))).toBe(0);
  });

  it('refuses a dtype code it does not know', () => {
    expect(() => cpu.cast({ src: poisoned(4), srcDtype: 99, dst: poisoned(4), dstDtype: 0, count: 1 })).toThrow(
      /cpu\.cast: dtype code 99/,
    );
  });
});

describe('cpu.randomUniform and cpu.randomNormal', () => {
  const count = 100_003;

  it.each(floatDTypes)('gives %s the same bits with every instruction set and number of threads', (dtype) => {
    const seed = randomBytes(8).readBigUInt64LE();
    const bytes = count * dtypes[dtype].bytes;
    const { numThreads } = cpu.info();
    for (const random of [cpu.randomUniform, cpu.randomNormal]) {
      const expected = poisoned(bytes);
      cpu.setIsa('generic');
      cpu.setNumThreads(1);
      random({ dst: expected, dtype: dtypes[dtype].code, count, seed });
      cpu.setNumThreads(numThreads);
      for (const isa of isas) {
        cpu.setIsa(isa);
        const dst = poisoned(bytes + 1);
        random({ dst, dtype: dtypes[dtype].code, count, seed });
        expect(Buffer.compare(contents(dst, bytes), contents(expected, bytes)), isa).toBe(0);
        expect(contents(dst + bytes, 1)[0]).toBe(0xa5);
      }
    }
  });

  it('refuses integer dtypes', () => {
    expect(() => cpu.randomNormal({ dst: poisoned(4), dtype: dtypes.int32.code, count: 1, seed: 1n })).toThrow(
      /cpu\.randomNormal: dtype code 7 is not a floating dtype/,
    );
  });
});

describe.each(isas)('cpu.maxUint32 with %s', (isa) => {
  it('finds the largest value wherever it is, negative ones counting as larger', () => {
    cpu.setIsa(isa);
    for (let round = 0; round < 100; round++) {
      const values = Int32Array.from({ length: randomInt(1, 300) }, () => randomInt(0, 2 ** 31));
      expect(cpu.maxUint32(values)).toBe(Math.max(...values));
      values[randomInt(0, values.length)] = -1;
      expect(cpu.maxUint32(values)).toBe(2 ** 32 - 1);
    }
    expect(cpu.maxUint32(new Int32Array(0))).toBe(0);
    expect(cpu.maxUint32(Int32Array.of(9, 1, 2).subarray(1))).toBe(2);
    expect(() => cpu.maxUint32(new Uint8Array(4) as never)).toThrow('expected an Int32Array');
  });
});

describe('cpu.stridedCopy', () => {
  it('refuses ranks and element sizes it has no loop for', () => {
    const shape = Array<number>(9).fill(1);
    const ptr = poisoned(8);
    const call = (over: object) => () =>
      cpu.stridedCopy({ src: ptr, dst: ptr, elementBytes: 4, shape, srcStrides: shape, dstStrides: shape, ...over });
    expect(call({})).toThrow(/cpu\.stridedCopy: rank 9; expected at most 8/);
    expect(call({ shape: [1], srcStrides: [1], dstStrides: [1], elementBytes: 3 })).toThrow(/elements of 3 bytes/);
    expect(call({ shape: [1], srcStrides: [1, 1], dstStrides: [1] })).toThrow(/srcStrides has 2 entries; expected 1/);
  });
});
