// SPDX-License-Identifier: Apache-2.0
// What a kernel is, said once: the translation unit, the parameter struct and the argument packer all come from this.
import { FlashInferError } from '../errors.ts';

/**
 * Type of one kernel parameter. `ptr` is a device address (a number or bigint), `tensormap` a 128-byte TMA
 * descriptor (Uint8Array). Layout follows C++: natural alignment, `tensormap` aligned to 64 bytes.
 */
export type ParamType = 'ptr' | 'i32' | 'u32' | 'i64' | 'u64' | 'f32' | 'f64' | 'u8' | 'tensormap';

export interface ParamField {
  readonly name: string;
  readonly type: ParamType;
}

/** One kernel: a device function template of one header, instantiated once, with the struct it is given. */
export interface KernelSpec {
  /** Readable part of the module's URI, `[a-z0-9_]+`, e.g. `single_prefill_bf16_hd128_causal`. */
  readonly name: string;
  /** Path below `include/`, e.g. `flashinfer/attention/prefill.cuh`. */
  readonly header: string;
  /** The device function to call with the struct, e.g. `flashinfer::prefill<flashinfer::PrefillTraits<...>>`. */
  readonly entry: string;
  /** Fields of `struct Params`, in order; the header reads them by name as `params.q`. */
  readonly params: readonly ParamField[];
  /** Threads a block; becomes `__launch_bounds__`. */
  readonly threads: number;
  /** Second argument of `__launch_bounds__`. */
  readonly minBlocksPerSm?: number;
  /** Lowest compute capability the kernel compiles for, e.g. 80. Default 75. */
  readonly minArch?: number;
  /** The header uses architecture-specific instructions (`sm_90a`): exactly this architecture. */
  readonly exactArch?: string;
  /** C++ placed between the include and the struct: a custom attention variant. */
  readonly prelude?: string;
}

const identifier = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Specs are written by this library and by `defineAttentionVariant`; a malformed one must not reach a compiler. */
export function checkSpec(spec: KernelSpec): void {
  const { name, header, entry, params, threads, minBlocksPerSm, exactArch } = spec;
  expect(/^[a-z][a-z0-9_]*$/.test(name) && name.length <= 128, `name '${name}'`, '[a-z][a-z0-9_]*, up to 128 long');
  expect(/^[\w.-]+(\/[\w.-]+)*$/.test(header) && !header.includes('..'), `header '${header}'`, 'a path below include/');
  expect(entry.trim().length > 0, `entry '${entry}'`, 'the device function to call');
  // Unqualified, the kernel itself would be the better match: it would call itself.
  expect(entry.trim().split('<')[0] !== name, `entry '${entry}'`, "another name than the kernel's");
  expect(isIntegerIn(threads, 1, 1024), `threads ${threads}`, '1 to 1024');
  expect(
    minBlocksPerSm === undefined || isIntegerIn(minBlocksPerSm, 1, 32),
    `minBlocksPerSm ${minBlocksPerSm}`,
    '1 to 32',
  );
  expect(exactArch === undefined || /^sm_\d{2,3}[af]?$/.test(exactArch), `exactArch '${exactArch}'`, "e.g. 'sm_90a'");
  const names = new Set(params.map((field) => field.name));
  expect(names.size === params.length, `params [${params.map((field) => field.name)}]`, 'distinct names');
  for (const field of names) expect(identifier.test(field), `param '${field}'`, 'a C++ identifier');

  function expect(ok: boolean, given: string, expected: string): void {
    if (ok) return;
    throw new FlashInferError('ERR_FLASHINFER_INTERNAL', `kernel spec '${name}': ${given}; expected ${expected}`);
  }
}

function isIntegerIn(value: number, min: number, max: number): boolean {
  return Number.isInteger(value) && value >= min && value <= max;
}
