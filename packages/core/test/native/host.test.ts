// SPDX-License-Identifier: Apache-2.0
import { randomBytes, randomInt } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { native, toFlashInferError } from '../../src/native/load.ts';

function thrown(run: () => unknown): Error & { code?: string } {
  try {
    run();
  } catch (error) {
    return error as Error;
  }
  throw new Error('expected the call to throw');
}

describe('host memory', () => {
  const { host } = native();

  it('keeps what was written, at any offset, in 64-byte aligned blocks', () => {
    for (let round = 0; round < 50; round++) {
      const bytes = randomInt(1, 5000);
      const block = host.alloc(bytes);
      expect(block % 64).toBe(0);
      const written = new Uint8Array(randomBytes(bytes));
      host.write(block, written);
      const from = randomInt(0, bytes);
      const back = new Uint8Array(bytes - from).fill(0xcd);
      host.read(block + from, back);
      expect(back).toEqual(written.subarray(from));
      host.free(block);
    }
  });

  it('copies overlapping ranges and fills', () => {
    const block = host.alloc(300);
    const source = new Uint8Array(randomBytes(200));
    host.write(block, source);
    host.copy(block + 7, block, 200);
    const moved = new Uint8Array(200);
    host.read(block + 7, moved);
    expect(moved).toEqual(source);
    host.fill(block + 10, 0xa5, 20);
    host.read(block + 7, moved);
    expect([...moved.subarray(0, 3)]).toEqual([...source.subarray(0, 3)]);
    expect(moved.subarray(3, 23).every((byte) => byte === 0xa5)).toBe(true);
    expect(moved.subarray(23)).toEqual(source.subarray(23));
    host.free(block);
  });

  it('writes only the window of a subarray', () => {
    const block = host.alloc(8);
    host.fill(block, 0xee, 8);
    const backing = new Uint8Array([1, 2, 3, 4, 5, 6]);
    host.write(block + 2, backing.subarray(2, 5));
    const back = new Uint8Array(8);
    host.read(block, back);
    expect([...back]).toEqual([0xee, 0xee, 3, 4, 5, 0xee, 0xee, 0xee]);
    host.free(block);
  });

  it('counts allocated bytes and gives memory back to the system', () => {
    const before = host.allocatedBytes();
    const rss = process.memoryUsage().rss;
    const bytes = 16 << 20;
    for (let round = 0; round < 100; round++) {
      const block = host.alloc(bytes);
      host.fill(block, round, bytes);
      expect(host.allocatedBytes()).toBe(before + bytes);
      host.free(block);
    }
    expect(host.allocatedBytes()).toBe(before);
    expect(process.memoryUsage().rss - rss).toBeLessThan(10 * bytes);
  });

  it('allocates zero bytes as a block of its own', () => {
    const a = host.alloc(0);
    const b = host.alloc(0);
    expect(a).toBeGreaterThan(0);
    expect(b).not.toBe(a);
    host.free(a);
    host.free(b);
  });

  it('refuses a double free and a foreign pointer, and stays usable', () => {
    const block = host.alloc(64);
    host.free(block);
    const twice = thrown(() => host.free(block));
    expect(twice.code).toBe('INVALID_POINTER');
    expect(twice.message).toContain(String(block));
    expect(thrown(() => host.free(0)).code).toBe('INVALID_POINTER');
    const inner = host.alloc(256);
    expect(thrown(() => host.free(inner + 64)).code).toBe('INVALID_POINTER');
    host.free(inner);
    const mapped = toFlashInferError(twice, 'Tensor.dispose');
    expect(mapped.code).toBe('ERR_FLASHINFER_INVALID_ARGUMENT');
    expect(mapped.message).toMatch(/^Tensor\.dispose: host\.free: \d+ is not a block/);
    expect(mapped.cause).toBe(twice);
  });

  it('reports an impossible size as out of memory', () => {
    const error = thrown(() => host.alloc(2 ** 52));
    expect(error.code).toBe('OOM');
    expect(error.message).toContain(String(2 ** 52));
    expect(toFlashInferError(error, 'empty').code).toBe('ERR_FLASHINFER_OUT_OF_MEMORY');
  });

  it('refuses arguments of the wrong type without touching memory', () => {
    const block = host.alloc(8);
    expect(() => host.write(block, new Uint16Array(4) as never)).toThrow(/Uint8Array/);
    expect(() => host.write(block, 'text' as never)).toThrow(/Uint8Array/);
    expect(() => host.alloc('x' as never)).toThrow(/address or size/);
    expect(() => (host.copy as (dst: number) => void)(block)).toThrow(/address or size/);
    host.free(block);
  });
});
