// SPDX-License-Identifier: Apache-2.0
// Writes a kernel's arguments into the bytes of its `struct Params`. Runs at every launch.
import { FlashInferError } from '../errors.ts';
import { type FieldLayout, structLayout } from './layout.ts';
import type { KernelSpec, ParamType } from './spec.ts';

/** One value a field of the spec, by name. `ptr`, `i64` and `u64` take a safe integer or a bigint. */
export type KernelArgs = Readonly<Record<string, number | bigint | Uint8Array>>;

const typeCodes = {
  ptr: 0,
  i32: 1,
  u32: 2,
  f32: 3,
  i64: 4,
  u64: 5,
  f64: 6,
  u8: 7,
  tensormap: 8,
} as const satisfies Record<ParamType, number>;
const twoTo32 = 0x1_0000_0000;

/** The parameter block of one kernel. `buffer` is what the addon reads at launch. */
export class ParamsPacker {
  readonly buffer: ArrayBuffer;
  readonly #context: string;
  /** In the order in which the last caller gave its arguments. */
  #fields: readonly FieldLayout[];
  #names: readonly string[];
  #codes: Uint8Array;
  #offsets: Uint16Array;
  readonly #u8: Uint8Array;
  readonly #i32: Int32Array;
  readonly #u32: Uint32Array;
  readonly #f32: Float32Array;
  readonly #f64: Float64Array;
  readonly #u64: BigUint64Array;

  constructor(spec: Pick<KernelSpec, 'name' | 'params'>) {
    const { fields, bytes } = structLayout(spec.params, spec.name);
    const buffer = new ArrayBuffer(bytes);
    this.buffer = buffer;
    this.#context = spec.name;
    this.#fields = fields;
    this.#names = fields.map((field) => field.name);
    this.#codes = Uint8Array.from(fields, (field) => typeCodes[field.type]);
    this.#offsets = Uint16Array.from(fields, (field) => field.offset);
    this.#u8 = new Uint8Array(buffer);
    // A struct with 8-byte fields is a multiple of 8 bytes long, so what these views leave off no field of theirs uses.
    this.#i32 = new Int32Array(buffer, 0, bytes >>> 2);
    this.#u32 = new Uint32Array(buffer, 0, bytes >>> 2);
    this.#f32 = new Float32Array(buffer, 0, bytes >>> 2);
    this.#f64 = new Float64Array(buffer, 0, bytes >>> 3);
    this.#u64 = new BigUint64Array(buffer, 0, bytes >>> 3);
  }

  /** Every field, and nothing else, must be there with a value its type can hold. */
  pack(args: KernelArgs): void {
    const names = this.#names;
    const codes = this.#codes;
    const offsets = this.#offsets;
    let i = 0;
    let given = 0;
    // In a for-in loop V8 loads `args[name]` by index; looking up known names in `args` takes twice as long.
    for (const name in args) {
      given++;
      if (name !== names[i]) break;
      const value = args[name];
      const code = codes[i] as number;
      const offset = offsets[i] as number;
      const fits =
        typeof value === 'number' ? this.#writeNumber(code, offset, value) : this.#writeOther(code, offset, value);
      if (!fits) this.#refuse(i, value);
      i++;
    }
    if (i !== names.length || given !== i) {
      this.#reorder(args);
      this.pack(args);
    }
  }

  /** Follows the caller's order of names from now on; they are as many as the fields, so each is there once. */
  #reorder(args: KernelArgs): void {
    const byName = new Map(this.#fields.map((field) => [field.name, field]));
    const names: string[] = [];
    for (const name in args) names.push(name);
    const unknown = names.filter((name) => !byName.has(name));
    if (unknown.length > 0) {
      throw new FlashInferError(
        'ERR_FLASHINFER_INTERNAL',
        `${this.#context}: arguments ${unknown.join(', ')} are not fields; expected ${[...byName.keys()].join(', ')}; please report`,
      );
    }
    const missing = this.#fields.findIndex((field) => !names.includes(field.name));
    if (missing >= 0) this.#refuse(missing, undefined);
    this.#names = names;
    this.#fields = names.map((name) => byName.get(name) as FieldLayout);
    this.#codes = Uint8Array.from(this.#fields, (field) => typeCodes[field.type]);
    this.#offsets = Uint16Array.from(this.#fields, (field) => field.offset);
  }

  #writeNumber(code: number, offset: number, value: number): boolean {
    switch (code) {
      case typeCodes.ptr:
      case typeCodes.u64:
        if (!(value >= 0 && value <= Number.MAX_SAFE_INTEGER)) return false;
        return this.#writeInteger64(offset, value);
      case typeCodes.i64:
        if (!(Math.abs(value) <= Number.MAX_SAFE_INTEGER)) return false;
        return this.#writeInteger64(offset, value);
      case typeCodes.i32:
        this.#i32[offset >>> 2] = value;
        return (value | 0) === value;
      case typeCodes.u32:
        this.#u32[offset >>> 2] = value;
        return value >>> 0 === value;
      case typeCodes.f32:
        this.#f32[offset >>> 2] = value;
        return true;
      case typeCodes.f64:
        this.#f64[offset >>> 3] = value;
        return true;
      case typeCodes.u8:
        this.#u8[offset] = value;
        return (value & 0xff) === value;
      default:
        return false;
    }
  }

  // Two halves: a BigInt would be an allocation at every launch.
  #writeInteger64(offset: number, value: number): boolean {
    const high = Math.floor(value / twoTo32);
    this.#u32[offset >>> 2] = value - high * twoTo32;
    this.#i32[(offset >>> 2) + 1] = high;
    return Number.isInteger(value);
  }

  #writeOther(code: number, offset: number, value: bigint | Uint8Array | undefined): boolean {
    if (typeof value === 'bigint') {
      const fits = code === typeCodes.i64 ? BigInt.asIntN(64, value) === value : BigInt.asUintN(64, value) === value;
      if (!fits || (code !== typeCodes.ptr && code !== typeCodes.i64 && code !== typeCodes.u64)) return false;
      this.#u64[offset >>> 3] = value;
      return true;
    }
    if (code !== typeCodes.tensormap || !(value instanceof Uint8Array) || value.byteLength !== 128) return false;
    this.#u8.set(value, offset);
    return true;
  }

  #refuse(index: number, value: unknown): never {
    const { name, type } = this.#fields[index] as FieldLayout;
    const given = value === undefined ? 'is missing' : `is ${describe(value)}`;
    throw new FlashInferError(
      'ERR_FLASHINFER_INTERNAL',
      `${this.#context}: argument ${name} ${given}; expected ${expectedValue[type]}; please report`,
    );
  }
}

function describe(value: unknown): string {
  return value instanceof Uint8Array ? `${value.byteLength} bytes` : `${String(value)} (${typeof value})`;
}

const expectedValue: Record<ParamType, string> = {
  ptr: 'a device address (ptr)',
  i32: 'a 32-bit integer (i32)',
  u32: 'an unsigned 32-bit integer (u32)',
  i64: 'a 64-bit integer (i64)',
  u64: 'an unsigned 64-bit integer (u64)',
  f32: 'a number (f32)',
  f64: 'a number (f64)',
  u8: 'an integer from 0 to 255 (u8)',
  tensormap: 'a tensor map of 128 bytes (Uint8Array)',
};
