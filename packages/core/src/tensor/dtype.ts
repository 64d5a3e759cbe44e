// SPDX-License-Identifier: Apache-2.0
// The element types, once: bytes, the code shared with csrc/cpu/dtype.h, and the C++ type kernels use.

interface DTypeInfo {
  readonly bytes: 1 | 2 | 4 | 8;
  /** Value of `flashinfer::DType` in include/flashinfer/dtype.h; a test compares the two tables. */
  readonly code: number;
  /** Type name inside namespace flashinfer in kernels. */
  readonly cpp: string;
  /** Short name used in kernel names. */
  readonly short: string;
  readonly floating: boolean;
}

export const dtypes = {
  float16: { bytes: 2, code: 0, cpp: 'half_t', short: 'f16', floating: true },
  bfloat16: { bytes: 2, code: 1, cpp: 'bfloat16_t', short: 'bf16', floating: true },
  float32: { bytes: 4, code: 2, cpp: 'float', short: 'f32', floating: true },
  float8_e4m3fn: { bytes: 1, code: 3, cpp: 'fp8_e4m3_t', short: 'e4m3', floating: true },
  float8_e5m2: { bytes: 1, code: 4, cpp: 'fp8_e5m2_t', short: 'e5m2', floating: true },
  int8: { bytes: 1, code: 5, cpp: 'int8_t', short: 'i8', floating: false },
  uint8: { bytes: 1, code: 6, cpp: 'uint8_t', short: 'u8', floating: false },
  int32: { bytes: 4, code: 7, cpp: 'int32_t', short: 'i32', floating: false },
  uint32: { bytes: 4, code: 8, cpp: 'uint32_t', short: 'u32', floating: false },
  int64: { bytes: 8, code: 9, cpp: 'int64_t', short: 'i64', floating: false },
  bool: { bytes: 1, code: 10, cpp: 'bool', short: 'bool', floating: false },
} as const satisfies Record<string, DTypeInfo>;

/** Element type of a tensor. `float8_e4m3fn` has no infinities; `bool` is one byte, 0 or 1. */
export type DType = keyof typeof dtypes;

/** What operators compute with: values that are read into a Float32Array, and that no scale goes with. */
type ComputeDType = 'float16' | 'bfloat16' | 'float32';

/** The type of a result that has the type of its input. */
export type SameDType<D extends DType> = D & ComputeDType;

/** The type of attention's output for one of q. */
export type OutputDType<D extends DType> = D extends 'float8_e4m3fn' ? 'float16' | 'bfloat16' : D & ComputeDType;

/** The type as a template argument of kernels. */
export function cppType(dtype: DType): string {
  const { cpp } = dtypes[dtype];
  return cpp === 'float' || cpp === 'bool' ? cpp : `flashinfer::${cpp}`;
}
