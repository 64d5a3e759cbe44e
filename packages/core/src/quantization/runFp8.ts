// SPDX-License-Identifier: Apache-2.0
// Runs checked quantisations to fp8 and back on their devices.
import { getKernel } from '../jit/kernel.ts';
import { native } from '../native/load.ts';
import { deviceProperties } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { workspace } from '../runtime/workspace.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { vectorWidth } from '../tensor/vectorWidth.ts';
import {
  blockTile,
  dequantizeFp8Spec,
  type Fp8Tile,
  fp8BlockSize,
  fp8MaxSpec,
  pieceTile,
  quantizeFp8Spec,
  tokenTile,
} from './fp8Kernel.ts';

/** What one scale is for. */
export type Fp8Scheme = 'tensor' | 'token' | 'group' | 'block';

/** x and out as rows: `rowStride` elements apart; `scale` float32, of tile (r, c) at r * scaleStrideR + c * scaleStrideC. */
export interface Fp8Call {
  readonly scheme: Fp8Scheme;
  readonly x: Tensor;
  readonly out: Tensor;
  readonly xStride: number;
  readonly outStride: number;
  readonly rows: number;
  readonly length: number;
  readonly scale: Tensor;
  readonly scaleStrideR: number;
  readonly scaleStrideC: number;
}

/** Rows and elements of one scale's tile. */
function tileExtent({ scheme, rows, length }: Fp8Call): { tileRows: number; tileLength: number } {
  if (scheme === 'tensor') return { tileRows: rows, tileLength: length };
  if (scheme === 'token') return { tileRows: 1, tileLength: length };
  return { tileRows: scheme === 'group' ? 1 : fp8BlockSize, tileLength: fp8BlockSize };
}

/** Writes `scale` too unless it is `given`. There are elements. */
export function runQuantizeFp8(call: Fp8Call, given: boolean): void {
  if (call.x.deviceIndex < 0) native().cpu.quantizeFp8({ ...cpuArgs(call), given });
  else quantizeOnCuda(call, given);
}

export function runDequantizeFp8(call: Fp8Call): void {
  if (call.x.deviceIndex < 0) native().cpu.dequantizeFp8(cpuArgs(call));
  else dequantizeOnCuda(call);
}

function cpuArgs(call: Fp8Call) {
  const { x, out, xStride, outStride, rows, length, scale, scaleStrideR, scaleStrideC } = call;
  const { tileRows, tileLength } = tileExtent(call);
  return {
    dtype: dtypes[x.dtype].code,
    outDtype: dtypes[out.dtype].code,
    x: x.ptr,
    xStride,
    out: out.ptr,
    outStride,
    rows,
    length,
    tileRows,
    tileLength,
    scale: scale.ptr,
    scaleStrideR,
    scaleStrideC,
  };
}

/** Partial maxima of a whole tensor; each block of the second kernel reads all of them. */
const maxPartials = 1024;

function quantizeOnCuda(call: Fp8Call, given: boolean): void {
  const { scheme, x, out, xStride, outStride, rows, length, scale, scaleStrideR, scaleStrideC } = call;
  const { deviceIndex } = x;
  const stream = currentStream(deviceIndex);
  const vec = vectorWidth(scheme === 'group' || scheme === 'block' ? gcdBlock(length) : length, [x, out]);
  const columns = length / vec;
  const tile = chooseTile(scheme, length, vec);
  const tileRows = scheme === 'block' ? fp8BlockSize : 1;
  const columnTiles = tile.columns === 0 ? 1 : Math.ceil(columns / tile.columns);
  const tiles = Math.ceil(rows / tileRows) * columnTiles;
  let partials = 0;
  let numPartials = 0;
  if (scheme === 'tensor' && !given) {
    const blocks = 4 * deviceProperties(deviceIndex).multiProcessorCount;
    numPartials = Math.min(maxPartials, blocks, Math.ceil((rows * columns) / 1024));
    partials = workspace(deviceIndex, numPartials * 4);
    const args = { x: x.ptr, partials, x_stride: xStride, rows, columns };
    getKernel(fp8MaxSpec(x.dtype, vec), deviceIndex).launch([numPartials, 1, 1], args, { stream });
  }
  const source = given ? 'kGiven' : scheme === 'tensor' ? 'kPartials' : 'kTile';
  const kernel = getKernel(quantizeFp8Spec(x.dtype, out.dtype, tile, source), deviceIndex);
  const args = {
    x: x.ptr,
    out: out.ptr,
    scales: scale.ptr,
    partials,
    x_stride: xStride,
    out_stride: outStride,
    scale_stride_r: scaleStrideR,
    scale_stride_c: scaleStrideC,
    rows,
    columns,
    tiles,
    column_tiles: columnTiles,
    tile_rows: tileRows,
    tile_vectors: tile.columns === 0 ? columns : tile.columns * tileRows,
    num_partials: numPartials,
  };
  kernel.launch([Math.ceil(tiles / tile.tiles), 1, 1], args, { stream });
}

function chooseTile(scheme: Fp8Scheme, length: number, vec: number): Fp8Tile {
  if (scheme === 'tensor') return pieceTile(vec);
  if (scheme === 'token') return tokenTile(length, vec);
  return blockTile(scheme === 'group' ? 1 : fp8BlockSize, vec);
}

/** Accesses must divide rows as well as blocks, whose 128 elements every width divides. */
function gcdBlock(length: number): number {
  return length % fp8BlockSize === 0 ? fp8BlockSize : length;
}

/** Half of the widest access of 16-bit outputs, so that one access of fp8 becomes one of out. */
const dequantizeVec = 8;

function dequantizeOnCuda(call: Fp8Call): void {
  const { x, out, xStride, outStride, rows, length, scale, scaleStrideR, scaleStrideC } = call;
  const { deviceIndex } = x;
  const vec = Math.min(dequantizeVec, vectorWidth(length, [x, out]));
  const columns = length / vec;
  const { tileRows, tileLength } = tileExtent(call);
  const args = {
    x: x.ptr,
    out: out.ptr,
    scales: scale.ptr,
    x_stride: xStride,
    out_stride: outStride,
    scale_stride_r: scaleStrideR,
    scale_stride_c: scaleStrideC,
    rows,
    columns,
    tile_rows: tileRows,
    tile_columns: Math.max(1, tileLength / vec),
  };
  const kernel = getKernel(dequantizeFp8Spec(x.dtype, out.dtype, vec), deviceIndex);
  kernel.launch([Math.ceil((rows * columns) / 256), 1, 1], args, { stream: currentStream(deviceIndex) });
}
