// SPDX-License-Identifier: Apache-2.0
// Descriptions of tensors for the copy engine (CUDA driver API, cuTensorMapEncodeTiled): what a box of the fa3 template is.
import { native, toFlashInferError } from '../native/load.ts';
import type { DType } from '../tensor/dtype.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { KvView } from './pagedKvCache.ts';

/** CUtensorMapDataType; bytes have no type of their own for float8. */
const dataTypes: Partial<Record<DType, number>> = { float16: 6, bfloat16: 9, float8_e4m3fn: 0 };
/** CUtensorMapSwizzle. */
const swizzle128 = 3;
const swizzle64 = 2;
const promote128 = 2;

interface Box {
  readonly dtype: DType;
  readonly address: number;
  /** Innermost first, in elements; the stride of the innermost is 1 and left out. */
  readonly dims: readonly number[];
  readonly strides: readonly number[];
  readonly box: readonly number[];
  readonly swizzle?: number;
}

function encode({ dtype, address, dims, strides, box, swizzle = swizzle128 }: Box): Uint8Array {
  const { bytes } = dtypes[dtype];
  try {
    return native().cuda.tensorMapEncodeTiled({
      dtype: dataTypes[dtype]!,
      rank: dims.length,
      address,
      dims: [...dims],
      strides: strides.map((stride) => stride * bytes),
      box: [...box],
      elementStrides: dims.map(() => 1),
      interleave: 0,
      swizzle,
      l2Promotion: promote128,
      oobFill: 0,
    });
  } catch (error) {
    throw toFlashInferError(error, 'cuTensorMapEncodeTiled');
  }
}

/** Columns a box: 128 bytes, the swizzle's width. */
function columns(dtype: DType): number {
  return 128 / dtypes[dtype].bytes;
}

/** Queries, or the output: a box is `tokens` tokens of a group's heads. */
export function queryMap(
  q: { readonly ptr: number; readonly strideN: number; readonly strideH: number },
  shape: { readonly tokens: number; readonly heads: number; readonly headDim: number; readonly dtype: DType },
  box: { readonly tokens: number; readonly heads: number },
): Uint8Array {
  return encode({
    dtype: shape.dtype,
    address: q.ptr,
    dims: [shape.headDim, shape.heads, shape.tokens],
    strides: [stride(q.strideH, shape.headDim), stride(q.strideN, shape.headDim)],
    box: [columns(shape.dtype), box.heads, box.tokens],
  });
}

/** Contiguous or ragged keys or values: a box is a tile's rows of one head. */
export function rowsMap(
  kv: Pick<KvView, 'ptr' | 'strideN' | 'strideH'>,
  shape: { readonly rows: number; readonly heads: number; readonly headDim: number; readonly dtype: DType },
  kvTile: number,
): Uint8Array {
  return encode({
    dtype: shape.dtype,
    address: kv.ptr,
    dims: [shape.headDim, shape.rows, shape.heads],
    strides: [stride(kv.strideN, shape.headDim), stride(kv.strideH, shape.headDim)],
    box: [columns(shape.dtype), kvTile, 1],
  });
}

/** Transposed values of float8 (fp8_values.cuh): a box is a column of so many keys and all dimensions of a head. */
export function columnsMap(
  address: number,
  shape: { readonly columns: number; readonly headDim: number; readonly heads: number },
  keys: 64 | 128,
): Uint8Array {
  const { columns: all, headDim, heads } = shape;
  return encode({
    dtype: 'float8_e4m3fn',
    address,
    dims: [all, headDim, heads],
    strides: [all, all * headDim],
    box: [keys, headDim, 1],
    swizzle: keys === 64 ? swizzle64 : swizzle128,
  });
}

/** Paged keys or values: a box is a page's rows of one head, or the part of them that is a tile. */
export function pagesMap(
  kv: KvView,
  shape: {
    readonly pages: number;
    readonly pageSize: number;
    readonly heads: number;
    readonly headDim: number;
    readonly dtype: DType;
  },
  kvTile: number,
): Uint8Array {
  return encode({
    dtype: shape.dtype,
    address: kv.ptr,
    dims: [shape.headDim, shape.pageSize, shape.heads, shape.pages],
    strides: [kv.strideN, kv.strideH, kv.stridePage].map((each) => stride(each, shape.headDim)),
    box: [columns(shape.dtype), Math.min(shape.pageSize, kvTile), 1, 1],
  });
}

/** The stride of a dimension of one element says nothing, and the driver refuses a zero. */
function stride(elements: number, headDim: number): number {
  return elements > 0 ? elements : headDim;
}
