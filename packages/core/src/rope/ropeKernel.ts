// SPDX-License-Identifier: Apache-2.0
// Kernels of include/flashinfer/rope.cuh: how tokens are spread over threads, and the spec of each instantiation.
import type { AotRequest } from '../jit/aotRequest.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { type DType, dtypes } from '../tensor/dtype.ts';

/** Largest rotary dimension: RopeConfig::kMaxPairs is half of it. */
export const maxRotaryDim = 1024;
const threads = 256;

/** What of a call is decided when its kernel is compiled. */
export interface RopeKernelOptions {
  readonly dtype: DType;
  readonly indexDtype: 'int32' | 'int64';
  readonly interleave: boolean;
  readonly positions: 'posIds' | 'indptr';
  readonly angles: 'frequency' | 'cache';
  /** The output outgrows the L2 cache. */
  readonly stream: boolean;
}

export interface RopeTile {
  /** Elements an access, and pairs a thread rotates in a head. */
  readonly vec: number;
  /** Heads a thread rotates. */
  readonly heads: number;
  readonly columns: number;
  readonly groups: number;
  readonly tokensPerBlock: number;
  /** Blocks along the grid's y that share a token. */
  readonly blocksPerToken: number;
}

/** Threads a multiprocessor holds. */
const threadsPerSm = 2048;

/**
 * A thread takes four heads where that still leaves enough threads: more bytes in flight and fewer angles. Few tokens
 * get a thread a head, so that each is done sooner. (H200, 8192 tokens: 2, 4, 5 and 8 heads in blocks of 64 to 512
 * threads reach 2850 to 3720 GB/s; one head 3070.)
 */
export function chooseRopeTile(
  tokens: number,
  numHeads: number,
  rotaryDim: number,
  vec: number,
  numSms: number,
): RopeTile {
  const columns = rotaryDim / 2 / vec;
  const heads = tokens * numHeads * columns >= numSms * threadsPerSm ? 4 : 1;
  const groups = Math.ceil(numHeads / heads);
  const items = columns * groups;
  return {
    vec,
    heads,
    columns,
    groups,
    tokensPerBlock: Math.max(1, Math.floor(threads / items)),
    blocksPerToken: Math.ceil(items / threads),
  };
}

const params: readonly ParamField[] = [
  { name: 'q', type: 'ptr' },
  { name: 'k', type: 'ptr' },
  { name: 'q_out', type: 'ptr' },
  { name: 'k_out', type: 'ptr' },
  { name: 'positions', type: 'ptr' },
  { name: 'indptr', type: 'ptr' },
  { name: 'cache', type: 'ptr' },
  { name: 'q_stride_n', type: 'i64' },
  { name: 'q_stride_h', type: 'i64' },
  { name: 'k_stride_n', type: 'i64' },
  { name: 'k_stride_h', type: 'i64' },
  { name: 'q_out_stride_n', type: 'i64' },
  { name: 'q_out_stride_h', type: 'i64' },
  { name: 'k_out_stride_n', type: 'i64' },
  { name: 'k_out_stride_h', type: 'i64' },
  { name: 'cache_stride', type: 'i64' },
  { name: 'cache_rows', type: 'i64' },
  { name: 'rcp_scale', type: 'f64' },
  { name: 'log2_theta', type: 'f64' },
  { name: 'smooth_a', type: 'f64' },
  { name: 'smooth_b', type: 'f64' },
  { name: 'tokens', type: 'i32' },
  { name: 'q_heads', type: 'i32' },
  { name: 'k_heads', type: 'i32' },
  { name: 'batch_size', type: 'i32' },
  { name: 'rotary_dim', type: 'i32' },
  { name: 'columns', type: 'i32' },
  { name: 'groups', type: 'i32' },
  { name: 'tokens_per_block', type: 'i32' },
  { name: 'tail', type: 'i32' },
];

const specs = new Map<string, KernelSpec>();

/** The same object for the same arguments: kernels are looked up by it. */
export function ropeSpec(o: RopeKernelOptions, { vec, heads }: Pick<RopeTile, 'vec' | 'heads'>): KernelSpec {
  const { short, cpp } = dtypes[o.dtype];
  const source = `${o.positions === 'posIds' ? 'pos_ids' : 'indptr'}_${dtypes[o.indexDtype].short}`;
  const options = `${o.angles === 'cache' ? '_cache' : ''}${o.interleave ? '_interleave' : ''}`;
  const name = `rope_${short}_${source}${options}_v${vec}h${heads}${o.stream ? '_stream' : ''}`;
  let spec = specs.get(name);
  if (spec === undefined) {
    const types = `${cpp === 'float' ? cpp : `flashinfer::${cpp}`}, flashinfer::${dtypes[o.indexDtype].cpp}`;
    const positions = `flashinfer::RopePositions::${o.positions === 'posIds' ? 'kPosIds' : 'kIndptr'}`;
    const angles = `flashinfer::RopeAngles::${o.angles === 'cache' ? 'kCache' : 'kFrequency'}`;
    const config = `flashinfer::RopeConfig<${types}, ${vec}, ${heads}, ${o.interleave}, ${positions}, ${angles}, ${o.stream}>`;
    const entry = `flashinfer::rope<${config}>`;
    // Four heads take 90 registers where they may, and two blocks a multiprocessor are too few (H200: 3280 GB/s, 3700).
    const minBlocksPerSm = heads === 4 ? { minBlocksPerSm: 3 } : {};
    spec = { name, header: 'flashinfer/rope.cuh', entry, params, threads, ...minBlocksPerSm };
    specs.set(name, spec);
  }
  return spec;
}

/** Every source of positions and angles, dtype and pairing at least once, for prebuilt kernels and compile checks. */
export function ropeSpecs(): KernelSpec[] {
  const base: RopeKernelOptions = {
    dtype: 'bfloat16',
    indexDtype: 'int32',
    interleave: false,
    positions: 'posIds',
    angles: 'cache',
    stream: false,
  };
  return [
    ropeSpec(base, { vec: 8, heads: 4 }),
    ropeSpec({ ...base, stream: true }, { vec: 8, heads: 4 }),
    ropeSpec({ ...base, indexDtype: 'int64' }, { vec: 8, heads: 1 }),
    ropeSpec({ ...base, dtype: 'float16', interleave: true }, { vec: 8, heads: 4 }),
    ropeSpec({ ...base, angles: 'frequency' }, { vec: 8, heads: 4 }),
    ropeSpec({ ...base, angles: 'frequency', positions: 'indptr', dtype: 'float16' }, { vec: 8, heads: 4 }),
    ropeSpec({ ...base, angles: 'frequency', positions: 'indptr', interleave: true }, { vec: 8, heads: 1 }),
    ropeSpec({ ...base, dtype: 'float32', angles: 'frequency', interleave: true }, { vec: 4, heads: 4 }),
    ropeSpec({ ...base, dtype: 'float16', angles: 'frequency', interleave: true }, { vec: 1, heads: 1 }),
  ];
}

/** Pairs of halves for few tokens, as in decode, and for many; no model has heads that need narrower accesses. */
export function ropeModelSpecs({ dtypes: modelDtypes }: AotRequest): KernelSpec[] {
  const sources = [
    { angles: 'cache', positions: 'posIds', indexDtype: 'int32' },
    { angles: 'cache', positions: 'posIds', indexDtype: 'int64' },
    { angles: 'frequency', positions: 'posIds', indexDtype: 'int32' },
    { angles: 'frequency', positions: 'indptr', indexDtype: 'int32' },
  ] as const;
  return modelDtypes.flatMap((dtype) =>
    sources.flatMap((source) =>
      [
        { heads: 1, stream: false },
        { heads: 1, stream: true },
        { heads: 4, stream: false },
        { heads: 4, stream: true },
      ].map(({ heads, stream }) => ropeSpec({ ...source, dtype, interleave: false, stream }, { vec: 8, heads })),
    ),
  );
}
