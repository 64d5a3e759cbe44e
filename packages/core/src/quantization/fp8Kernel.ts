// SPDX-License-Identifier: Apache-2.0
// Kernels of include/flashinfer/quantize_fp8.cuh: how tiles are spread over threads, and the spec of each instantiation.
import { type AotRequest, tensorParallelSizes } from '../jit/aotRequest.ts';
import { namedSpec } from '../jit/namedSpec.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { cppType, type DType, dtypes } from '../tensor/dtype.ts';

export const fp8BlockSize = 128;

/** Where scales come from; the names are those of the enum. */
export type Fp8ScaleSource = 'kTile' | 'kGiven' | 'kPartials';

/** Template arguments VEC, VECS, LANES, TILES and COLUMNS of QuantizeFp8Config; `columns` 0: a tile is a whole row. */
export interface Fp8Tile {
  readonly vec: number;
  readonly vecs: number;
  readonly lanes: number;
  readonly tiles: number;
  readonly columns: number;
}

/** Accesses a thread keeps at most; longer tiles are read twice. */
const maxVecs = 16;

/** One scale a row of `length` elements. */
export function tokenTile(length: number, vec: number): Fp8Tile {
  const vectors = Math.max(1, length / vec);
  if (vectors <= 128) {
    const lanes = Math.min(32, nextPowerOfTwo(vectors));
    return { vec, vecs: nextPowerOfTwo(Math.ceil(vectors / lanes)), lanes, tiles: 128 / lanes, columns: 0 };
  }
  let vecs = 4;
  while (vectors > 1024 * vecs && vecs < maxVecs) vecs *= 2;
  return { vec, vecs, lanes: Math.min(1024, 32 * Math.ceil(vectors / vecs / 32)), tiles: 1, columns: 0 };
}

/**
 * One scale for 128 elements of `rows` rows, 1 or 128. A thread takes two accesses of one row's 128 (H200, 8192 x 8192
 * bfloat16: 56.8 us; with one 69.2, four 57.5; 256 threads a block 57.9).
 */
export function blockTile(rows: number, vec: number): Fp8Tile {
  const columns = fp8BlockSize / vec;
  if (rows > 1) {
    return { vec, vecs: Math.min(maxVecs, (rows * columns) / 256), lanes: 256, tiles: 1, columns };
  }
  const lanes = Math.min(32, columns / 2);
  return { vec, vecs: columns / lanes, lanes, tiles: 128 / lanes, columns };
}

/** One scale for all: pieces of rows. */
export function pieceTile(vec: number): Fp8Tile {
  return { vec, vecs: 4, lanes: 256, tiles: 1, columns: 1024 };
}

function nextPowerOfTwo(x: number): number {
  return 2 ** Math.ceil(Math.log2(x));
}

const quantizeParams: readonly ParamField[] = [
  { name: 'x', type: 'ptr' },
  { name: 'out', type: 'ptr' },
  { name: 'scales', type: 'ptr' },
  { name: 'partials', type: 'ptr' },
  { name: 'x_stride', type: 'i64' },
  { name: 'out_stride', type: 'i64' },
  { name: 'scale_stride_r', type: 'i64' },
  { name: 'scale_stride_c', type: 'i64' },
  { name: 'rows', type: 'i32' },
  { name: 'columns', type: 'i32' },
  { name: 'tiles', type: 'i32' },
  { name: 'column_tiles', type: 'i32' },
  { name: 'tile_rows', type: 'i32' },
  { name: 'tile_vectors', type: 'i32' },
  { name: 'num_partials', type: 'i32' },
];

const maxParams: readonly ParamField[] = [
  { name: 'x', type: 'ptr' },
  { name: 'partials', type: 'ptr' },
  { name: 'x_stride', type: 'i64' },
  { name: 'rows', type: 'i32' },
  { name: 'columns', type: 'i32' },
];

const dequantizeParams: readonly ParamField[] = [
  { name: 'x', type: 'ptr' },
  { name: 'out', type: 'ptr' },
  { name: 'scales', type: 'ptr' },
  { name: 'x_stride', type: 'i64' },
  { name: 'out_stride', type: 'i64' },
  { name: 'scale_stride_r', type: 'i64' },
  { name: 'scale_stride_c', type: 'i64' },
  { name: 'rows', type: 'i32' },
  { name: 'columns', type: 'i32' },
  { name: 'tile_rows', type: 'i32' },
  { name: 'tile_columns', type: 'i32' },
];

const header = 'flashinfer/quantize_fp8.cuh';
export function quantizeFp8Spec(x: DType, out: DType, tile: Fp8Tile, source: Fp8ScaleSource): KernelSpec {
  const { vec, vecs, lanes, tiles, columns } = tile;
  const shape = `v${vec}x${vecs}_${lanes}x${tiles}_c${columns}`;
  const name = `quantize_${dtypes[x].short}_to_${dtypes[out].short}_${shape}_${source.slice(1).toLowerCase()}`;
  return namedSpec(name, () => {
    const types = `${cppType(x)}, ${cppType(out)}`;
    const numbers = `${vec}, ${vecs}, ${lanes}, ${tiles}, ${columns}`;
    const config = `flashinfer::QuantizeFp8Config<${types}, ${numbers}, flashinfer::Fp8Scale::${source}>`;
    return {
      name,
      header,
      entry: `flashinfer::quantize_fp8<${config}>`,
      params: quantizeParams,
      threads: lanes * tiles,
    };
  });
}

export function fp8MaxSpec(x: DType, vec: number): KernelSpec {
  const name = `fp8_partial_max_${dtypes[x].short}_v${vec}`;
  const entry = `flashinfer::fp8_partial_max<flashinfer::Fp8MaxConfig<${cppType(x)}, ${vec}>>`;
  return namedSpec(name, () => ({ name, header, entry, params: maxParams, threads: 256 }));
}

export function dequantizeFp8Spec(x: DType, out: DType, vec: number): KernelSpec {
  const name = `dequantize_${dtypes[x].short}_to_${dtypes[out].short}_v${vec}`;
  const config = `flashinfer::DequantizeFp8Config<${cppType(x)}, ${cppType(out)}, ${vec}>`;
  const entry = `flashinfer::dequantize_fp8<${config}>`;
  return namedSpec(name, () => ({ name, header, entry, params: dequantizeParams, threads: 256 }));
}

/** Every dtype, tile and source of scales at least once, for prebuilt kernels and compile checks. */
export function fp8Specs(): KernelSpec[] {
  return [
    quantizeFp8Spec('bfloat16', 'float8_e4m3fn', tokenTile(4096, 8), 'kTile'),
    quantizeFp8Spec('bfloat16', 'float8_e4m3fn', tokenTile(128, 8), 'kTile'),
    quantizeFp8Spec('bfloat16', 'float8_e4m3fn', blockTile(1, 8), 'kTile'),
    quantizeFp8Spec('bfloat16', 'float8_e4m3fn', blockTile(128, 8), 'kTile'),
    quantizeFp8Spec('bfloat16', 'float8_e4m3fn', pieceTile(8), 'kGiven'),
    quantizeFp8Spec('bfloat16', 'float8_e4m3fn', pieceTile(8), 'kPartials'),
    quantizeFp8Spec('float16', 'float8_e5m2', tokenTile(111, 1), 'kTile'),
    quantizeFp8Spec('float16', 'float8_e5m2', blockTile(128, 8), 'kGiven'),
    quantizeFp8Spec('float32', 'float8_e5m2', blockTile(1, 4), 'kTile'),
    quantizeFp8Spec('float32', 'float8_e4m3fn', blockTile(128, 4), 'kTile'),
    quantizeFp8Spec('float32', 'float8_e4m3fn', pieceTile(4), 'kPartials'),
    fp8MaxSpec('bfloat16', 8),
    fp8MaxSpec('float32', 4),
    dequantizeFp8Spec('float8_e4m3fn', 'bfloat16', 8),
    dequantizeFp8Spec('float8_e4m3fn', 'float32', 8),
    dequantizeFp8Spec('float8_e5m2', 'float16', 8),
    dequantizeFp8Spec('float8_e5m2', 'float16', 1),
  ];
}

/**
 * Inputs of a model's products and what its cache takes, to float8_e4m3fn: a scale for all, a token, 128 of its elements
 * or a block of weights; and back.
 */
export function fp8ModelSpecs({ models, dtypes: modelDtypes }: AotRequest): KernelSpec[] {
  const lengths = models.flatMap(({ hidden, innerNorms, intermediate, attention }) => {
    const { numQoHeads, headDim, headDimVo } = attention;
    const parts = [intermediate, numQoHeads * headDimVo].flatMap((length) =>
      tensorParallelSizes.map((size) => length / size),
    );
    return [hidden, ...innerNorms, ...parts, headDim];
  });
  const tokenTiles = [...new Set(lengths)].map((length) => tokenTile(length, 8));
  return modelDtypes.flatMap((dtype) => [
    ...[...tokenTiles, blockTile(1, 8), blockTile(fp8BlockSize, 8)].map((tile) =>
      quantizeFp8Spec(dtype, 'float8_e4m3fn', tile, 'kTile'),
    ),
    quantizeFp8Spec(dtype, 'float8_e4m3fn', pieceTile(8), 'kGiven'),
    quantizeFp8Spec(dtype, 'float8_e4m3fn', pieceTile(8), 'kPartials'),
    fp8MaxSpec(dtype, 8),
    dequantizeFp8Spec('float8_e4m3fn', dtype, 8),
  ]);
}
