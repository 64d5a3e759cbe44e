// SPDX-License-Identifier: Apache-2.0
// Where each field of `struct Params` lies: the one place from which the C++ struct and its writer are both made.
import { FlashInferError } from '../errors.ts';
import type { ParamField, ParamType } from './spec.ts';

interface ParamTypeInfo {
  readonly bytes: number;
  readonly align: number;
  /** C++ type; fundamental types only, so that the generated source needs no header of its own. */
  readonly cpp: string;
}

export const paramTypes = {
  ptr: { bytes: 8, align: 8, cpp: 'void*' },
  i32: { bytes: 4, align: 4, cpp: 'int' },
  u32: { bytes: 4, align: 4, cpp: 'unsigned int' },
  i64: { bytes: 8, align: 8, cpp: 'long long' },
  u64: { bytes: 8, align: 8, cpp: 'unsigned long long' },
  f32: { bytes: 4, align: 4, cpp: 'float' },
  f64: { bytes: 8, align: 8, cpp: 'double' },
  u8: { bytes: 1, align: 1, cpp: 'unsigned char' },
  // CUtensorMap is 128 bytes and must lie on a 64-byte boundary (CUDA driver API, cuTensorMapEncodeTiled).
  tensormap: { bytes: 128, align: 64, cpp: 'FlashInferTensorMap' },
} as const satisfies Record<ParamType, ParamTypeInfo>;

export interface FieldLayout extends ParamField {
  readonly offset: number;
}

export interface StructLayout {
  readonly fields: readonly FieldLayout[];
  readonly bytes: number;
  readonly align: number;
}

/** What every supported architecture and toolkit can take; 32,764 bytes need sm_70 and CUDA 12.1. */
const maxParamBytes = 4096;

/** Offsets by C++'s rules of natural alignment. */
export function structLayout(params: readonly ParamField[], context: string): StructLayout {
  const fields: FieldLayout[] = [];
  let end = 0;
  let align = 1;
  for (const { name, type } of params) {
    const info = paramTypes[type];
    const offset = roundUp(end, info.align);
    fields.push({ name, type, offset });
    end = offset + info.bytes;
    align = Math.max(align, info.align);
  }
  const bytes = roundUp(end, align);
  if (bytes === 0 || bytes > maxParamBytes) {
    throw new FlashInferError(
      'ERR_FLASHINFER_INTERNAL',
      `${context}: params take ${bytes} bytes; expected 1 to ${maxParamBytes}; move large data to device memory`,
    );
  }
  return { fields, bytes, align };
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
