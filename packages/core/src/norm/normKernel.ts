// SPDX-License-Identifier: Apache-2.0
// Kernels of include/flashinfer/norm.cuh: how rows are spread over threads, and the spec of each instantiation.
import type { AotRequest } from '../jit/aotRequest.ts';
import { namedSpec } from '../jit/namedSpec.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { cppType, type DType, dtypes } from '../tensor/dtype.ts';

/** Longest row: what 1024 threads keep in registers. */
export const maxRowLength = 32768;

/** What of a call is decided when its kernel is compiled. */
export interface NormKernelOptions {
  readonly kind: 'rms' | 'layer';
  /** Adds x to the residual first. */
  readonly add: boolean;
  readonly dtype: DType;
  readonly weightDtype: DType;
  readonly outDtype: DType;
  /** Rows are heads of tokens, with strides of their own; otherwise all rows of a tensor are at one distance. */
  readonly heads: boolean;
}

/** Template arguments VEC, VECS, LANES, ROWS and FULL of NormConfig. */
export interface NormTile {
  readonly vec: number;
  readonly vecs: number;
  readonly lanes: number;
  readonly rows: number;
  /** The threads' accesses are the whole row, without idle lanes. */
  readonly full: boolean;
}

/** What a thread does with an access: more work, more registers, and a sum of its own for the mean. */
export type NormWork = Pick<NormKernelOptions, 'kind' | 'add' | 'dtype' | 'outDtype'>;

/**
 * Short rows belong to a warp or a part of one, which needs no barrier; longer ones to a block. A thread takes two or four
 * accesses of a row, so that many bytes are in flight, unless there are so few rows that all fit on the device at
 * once: then more threads make each of them faster.
 */
export function chooseNormTile(length: number, vec: number, numRows: number, numSms: number, work: NormWork): NormTile {
  const vectors = length / vec;
  if (vectors <= 128) {
    const lanes = Math.min(32, nextPowerOfTwo(vectors));
    const threads = numRows * lanes >= numSms * 512 ? 128 : 32;
    const vecs = nextPowerOfTwo(Math.ceil(vectors / lanes));
    return { vec, vecs, lanes, rows: threads / lanes, full: vectors === vecs * lanes };
  }
  let vecs = numRows <= numSms ? 1 : takesTwo(work, vec, vectors) ? 2 : 4;
  while (vectors > 1024 * vecs) vecs *= 2;
  const lanes = 32 * Math.ceil(vectors / vecs / 32);
  return { vec, vecs, lanes, rows: 1, full: vectors === vecs * lanes };
}

/**
 * Rows that are asked for ahead come from L2, where fewer bytes in flight do, and more threads end sooner. H200, bfloat16, two
 * accesses for four: rmsnorm 8192 x 8192 68.1 us for 68.5, 8192 x 4096 36.5 for 36.9, fusedAddRmsnorm 8192 x 4096 68.0 for
 * 68.8; but layernorm 8192 x 8192 73.7 for 71.6, rmsnormQuant 55.0 for 54.3.
 */
function takesTwo({ kind, add, dtype, outDtype }: NormWork, vec: number, vectors: number): boolean {
  if (add && vectors >= 1024) return true;
  const wholeAccesses = vec * dtypes[dtype].bytes === 16 && dtype !== 'float32';
  return kind === 'rms' && wholeAccesses && (add || outDtype === dtype);
}

/**
 * Blocks that share a row's threads serve one row each: several a multiprocessor, they overlap better than blocks that
 * stay (H200, 8192 x 8192 bfloat16: 3.6 TB/s for 3.4). Rows of a warp are too short to pay for a block's start and its
 * weights (8192 x 32 heads of 128: 3.1 TB/s for 3.4).
 */
export function normBlocks(tile: NormTile, numRows: number, residentBlocks: () => number): number {
  const blocks = Math.ceil(numRows / tile.rows);
  return tile.lanes > 32 ? blocks : Math.min(blocks, residentBlocks());
}

/**
 * Whether a kernel tells tokens from heads. For rows at one distance only those do without that take one access of a row, or
 * that have the most threads; the others keep to one kernel for both, which with two accesses is the faster one: 32
 * registers for 40 (rmsnorm 8192 x 8192 68.1 us for 68.5). With the residual it takes 64 for 40, and 300 x 8192 10.6 for 10.1.
 */
export function splitsIntoHeads({ vecs, lanes }: NormTile, oneDistance: boolean, add: boolean): boolean {
  if (!oneDistance || lanes <= 32 || vecs > 2) return true;
  return vecs === 2 && lanes < (add ? 512 : 1024);
}

/** Rows whose blocks ask for a later one: `rows` from the `first` on ask for that of `distance` tokens later. */
export interface NormAhead {
  readonly distance: number;
  readonly first: number;
  readonly rows: number;
}

const nothingAhead: NormAhead = { distance: 0, first: 0, rows: 0 };

/**
 * Bytes of x between a row and the one it asks for, a multiprocessor. H200, 8192 x 8192 bfloat16: rmsnorm 70.9 us, with 16,
 * 24, 32, 48, 64, 96 KiB 68.4, 68.2, 68.5, 68.9, 72.1, 83.5; fusedAddRmsnorm 137.6, with 8, 16, 24, 32, 48 132.9, 131.5, 130.4,
 * 130.9, 139.8.
 */
const aheadBytesPerSm = 24 * 1024;

/**
 * `rowBytes` of x, `rowsPerToken` of which follow one another. What the first blocks could ask for is on its way by itself, as
 * they all start at once; so no block of few rows asks at all.
 */
export function normAhead(
  { lanes, vecs }: NormTile,
  rowBytes: number,
  numRows: number,
  rowsPerToken: number,
  numSms: number,
  residentBlocks: () => number,
): NormAhead {
  if (lanes <= 32 || vecs === 1) return nothingAhead;
  const distance = Math.ceil((numSms * aheadBytesPerSm) / (rowBytes * rowsPerToken));
  const distanceInRows = distance * rowsPerToken;
  const first = Math.max(0, residentBlocks() - distanceInRows);
  return { distance, first, rows: Math.max(0, numRows - distanceInRows - first) };
}

function nextPowerOfTwo(x: number): number {
  return 2 ** Math.ceil(Math.log2(x));
}

const params: readonly ParamField[] = [
  { name: 'out', type: 'ptr' },
  { name: 'x', type: 'ptr' },
  { name: 'residual', type: 'ptr' },
  { name: 'weight', type: 'ptr' },
  { name: 'bias', type: 'ptr' },
  { name: 'scale', type: 'ptr' },
  { name: 'out_stride_n', type: 'i64' },
  { name: 'out_stride_h', type: 'i64' },
  { name: 'x_stride_n', type: 'i64' },
  { name: 'x_stride_h', type: 'i64' },
  { name: 'residual_stride_n', type: 'i64' },
  { name: 'residual_stride_h', type: 'i64' },
  { name: 'rows', type: 'i32' },
  { name: 'heads', type: 'i32' },
  { name: 'vectors', type: 'i32' },
  { name: 'rcp_length', type: 'f32' },
  { name: 'eps', type: 'f32' },
  { name: 'weight_offset', type: 'f32' },
  { name: 'scale_value', type: 'f32' },
  { name: 'ahead', type: 'i32' },
  { name: 'first_ahead', type: 'u32' },
  { name: 'rows_ahead', type: 'u32' },
];

export function normSpec(o: NormKernelOptions, { vec, vecs, lanes, rows, full }: NormTile): KernelSpec {
  const base = `${o.add ? 'fused_add_' : ''}${o.kind}norm_${dtypes[o.dtype].short}`;
  const quantized = o.outDtype === o.dtype ? '' : `_to_${dtypes[o.outDtype].short}`;
  const name = `${base}${quantized}_v${vec}x${vecs}_${lanes}x${rows}${full ? '_full' : ''}${o.heads ? '_heads' : ''}`;
  return namedSpec(name, () => {
    const types = [o.dtype, o.weightDtype, o.outDtype].map(cppType).join(', ');
    const kind = `flashinfer::NormKind::${o.kind === 'rms' ? 'kRms' : 'kLayer'}`;
    const shape = `${vec}, ${vecs}, ${lanes}, ${rows}, ${kind}, ${o.add}, ${full}, ${o.heads}`;
    const entry = `flashinfer::norm<flashinfer::NormConfig<${types}, ${shape}>>`;
    return { name, header: 'flashinfer/norm.cuh', entry, params, threads: lanes * rows };
  });
}

/** Every kind, dtype and way to spread rows at least once, for prebuilt kernels and compile checks. */
export function normSpecs(): KernelSpec[] {
  const plain = (dtype: DType): NormKernelOptions => ({
    kind: 'rms',
    add: false,
    dtype,
    weightDtype: dtype,
    outDtype: dtype,
    heads: false,
  });
  const bf16 = plain('bfloat16');
  const spec = (options: NormKernelOptions, length: number, vec: number, rows: number): KernelSpec => {
    const tile = chooseNormTile(length, vec, rows, 132, options);
    return normSpec({ ...options, heads: splitsIntoHeads(tile, !options.heads, options.add) }, tile);
  };
  return [
    spec(bf16, 4096, 8, 8192),
    spec(bf16, 4096, 8, 1),
    spec({ ...bf16, heads: true }, 4096, 8, 1),
    spec(bf16, 128, 8, 8192),
    spec(plain('float16'), 111, 1, 8192),
    spec(plain('float32'), 8192, 4, 8192),
    spec({ ...bf16, add: true }, 8192, 8, 8192),
    spec({ ...bf16, add: true }, 4096, 8, 1),
    spec({ ...bf16, outDtype: 'float8_e4m3fn' }, 4096, 8, 8192),
    spec({ ...plain('float16'), add: true, outDtype: 'float8_e5m2' }, 3584, 8, 8192),
    spec({ ...bf16, kind: 'layer', weightDtype: 'float32' }, 4096, 8, 8192),
    spec({ ...bf16, kind: 'layer', weightDtype: 'float32', outDtype: 'float8_e4m3fn' }, 4096, 8, 8192),
  ];
}

/** For few rows, as in decode, and for many. */
const rowCounts = [1, 8192] as const;

/** Norms of models: alone and fused with the residual, to 16 bits and to fp8; those within attention alone, to 16 bits. */
export function normModelSpecs({ models, dtypes: modelDtypes }: AotRequest): KernelSpec[] {
  const spec = (
    dtype: DType,
    length: number,
    rows: number,
    o: Pick<NormKernelOptions, 'kind' | 'add' | 'outDtype'>,
  ) => {
    const tile = chooseNormTile(length, 8, rows, 132, { ...o, dtype });
    const weightDtype = o.kind === 'layer' ? 'float32' : dtype;
    return normSpec({ ...o, dtype, weightDtype, heads: splitsIntoHeads(tile, true, o.add) }, tile);
  };
  return modelDtypes.flatMap((dtype) =>
    models.flatMap(({ hidden, innerNorms }) =>
      rowCounts.flatMap((rows) => [
        ...[false, true].flatMap((add) =>
          ([dtype, 'float8_e4m3fn'] as const).map((outDtype) =>
            spec(dtype, hidden, rows, { kind: 'rms', add, outDtype }),
          ),
        ),
        spec(dtype, hidden, rows, { kind: 'layer', add: false, outDtype: dtype }),
        ...innerNorms.map((length) => spec(dtype, length, rows, { kind: 'rms', add: false, outDtype: dtype })),
      ]),
    ),
  );
}
