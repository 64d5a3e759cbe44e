// SPDX-License-Identifier: Apache-2.0
// Kernels of include/flashinfer/rope.cuh: how tokens are spread over threads, and the spec of each instantiation.
import type { AotRequest } from '../jit/aotRequest.ts';
import { namedSpec } from '../jit/namedSpec.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { cppType, type DType, dtypes } from '../tensor/dtype.ts';

/** Largest rotary dimension: RopeConfig::kMaxPairs is half of it. */
export const maxRotaryDim = 1024;
const maxThreads = 256;
/** Of the kernel of a head a thread that asks ahead: parts of one token in several blocks would come at several times. */
const mostThreads = 1024;

/** What of a call is decided when its kernel is compiled. */
export interface RopeKernelOptions {
  readonly dtype: DType;
  readonly indexDtype: 'int32' | 'int64';
  readonly interleave: boolean;
  readonly positions: 'posIds' | 'indptr';
  readonly angles: 'frequency' | 'cache';
  readonly inPlace: boolean;
}

export interface RopeTile {
  /** Elements an access, and pairs a thread rotates in a head. */
  readonly vec: number;
  /** Heads a thread rotates. */
  readonly heads: number;
  /** Tokens of a table, so many that their blocks ask for later ones. */
  readonly ahead: boolean;
  readonly columns: number;
  readonly groups: number;
  readonly tokensPerBlock: number;
  /** Blocks along the grid's y that share a token. */
  readonly blocksPerToken: number;
  readonly threads: number;
}

/** Threads a multiprocessor holds. */
const threadsPerSm = 2048;
/** Elements an access of very few tokens in place. */
const fewVec = 4;

/**
 * A thread takes four heads, or two where four do not divide them, if that still leaves enough threads: more bytes in
 * flight and fewer angles. Few tokens get a thread a head, so that each is done sooner; where angles are made, a few more
 * get two heads a thread (H200, 1024 tokens: 11.6 us for 12.5). Many tokens of a table in place get a thread a head, too: they
 * come from L2, where fewer bytes in flight do (H200, T8192: 46.0 us for 46.5; pairs of neighbours 46.6 for 46.5, out of
 * place 46.7 for 46.3). Tables of frequencies are made once a block and pay in large ones; otherwise small blocks are best
 * while there are multiprocessors for them, then blocks of whole tokens with few idle threads. In place, very few tokens by
 * position ids have accesses of half the width (in graphs 0.89 for 1.04 us with one token, 0.95 for 1.12 with 32; by requests
 * and out of place it costs as much).
 */
export function chooseRopeTile(
  tokens: number,
  numHeads: number,
  rotaryDim: number,
  mostVec: number,
  numSms: number,
  { angles, positions, interleave, inPlace }: RopeTileOptions,
): RopeTile {
  const shareOf = (columns: number) => (tokens * numHeads * columns) / (numSms * threadsPerSm);
  const narrow = inPlace && positions === 'posIds' && shareOf(rotaryDim / 2 / fewVec) < 1 / 8;
  const vec = narrow ? Math.min(mostVec, fewVec) : mostVec;
  const columns = rotaryDim / 2 / vec;
  const share = shareOf(columns);
  const cached = angles === 'cache';
  const oneHead = share < 1 || (cached && inPlace && !interleave);
  const few = !cached && share < 4;
  const heads = oneHead ? 1 : headsPerThread(numHeads, few || positions === 'indptr' ? 2 : 4);
  const ahead = share >= 1 && cached;
  const groups = numHeads / heads;
  const items = columns * groups;
  const tokensPerBlock = Math.max(1, Math.floor((cached ? 192 : maxThreads) / items));
  const small = Math.ceil(items / 96);
  const blocksPerToken =
    cached && tokensPerBlock === 1 && tokens * small <= numSms ? small : Math.ceil(items / mostOf({ heads, ahead }));
  const threads = 32 * Math.ceil((tokensPerBlock * items) / blocksPerToken / 32);
  return { vec, heads, ahead, columns, groups, tokensPerBlock, blocksPerToken, threads };
}

type RopeTileOptions = Pick<RopeKernelOptions, 'angles' | 'positions' | 'interleave' | 'inPlace'>;

/** Threads a block has at most. */
const mostOf = ({ heads, ahead }: Pick<RopeTile, 'heads' | 'ahead'>): number =>
  ahead && heads === 1 ? mostThreads : maxThreads;

/** The greatest divisor among 4, 2 and 1, `most` at most; with the search for a request, four take too many registers. */
const headsPerThread = (heads: number, most: 2 | 4): number =>
  heads % 4 === 0 && most === 4 ? 4 : heads % 2 === 0 ? 2 : 1;

/** In the order in which kernels read them: constants that no block read before come from afar, a line at a time. */
const params: readonly ParamField[] = [
  { name: 'items_multiplier', type: 'u32' },
  { name: 'columns_multiplier', type: 'u32' },
  { name: 'items', type: 'i32' },
  { name: 'columns', type: 'i32' },
  { name: 'tokens_per_block', type: 'i32' },
  { name: 'tokens', type: 'i32' },
  { name: 'q_heads', type: 'i32' },
  { name: 'groups', type: 'i32' },
  { name: 'positions', type: 'ptr' },
  { name: 'q', type: 'ptr' },
  { name: 'k', type: 'ptr' },
  { name: 'q_stride_n', type: 'i64' },
  { name: 'q_stride_h', type: 'i64' },
  { name: 'k_stride_n', type: 'i64' },
  { name: 'k_stride_h', type: 'i64' },
  { name: 'cache', type: 'ptr' },
  { name: 'cache_stride', type: 'i64' },
  { name: 'cache_rows', type: 'i64' },
  { name: 'rotary_dim', type: 'i32' },
  { name: 'ahead', type: 'i32' },
  { name: 'k_heads', type: 'i32' },
  { name: 'batch_size', type: 'i32' },
  { name: 'requests_per_token', type: 'f32' },
  { name: 'tail', type: 'i32' },
  { name: 'q_ahead_bytes', type: 'u32' },
  { name: 'k_ahead_bytes', type: 'u32' },
  { name: 'q_out', type: 'ptr' },
  { name: 'k_out', type: 'ptr' },
  { name: 'q_out_stride_n', type: 'i64' },
  { name: 'q_out_stride_h', type: 'i64' },
  { name: 'k_out_stride_n', type: 'i64' },
  { name: 'k_out_stride_h', type: 'i64' },
  { name: 'indptr', type: 'ptr' },
  { name: 'rcp_scale', type: 'f64' },
  { name: 'log2_step', type: 'f64' },
  { name: 'smooth_a', type: 'f64' },
  { name: 'smooth_b', type: 'f64' },
];

export function ropeSpec(o: RopeKernelOptions, tile: Pick<RopeTile, 'vec' | 'heads' | 'ahead'>): KernelSpec {
  const { vec, heads, ahead } = tile;
  const source = `${o.positions === 'posIds' ? 'pos_ids' : 'indptr'}_${dtypes[o.indexDtype].short}`;
  const options = `${o.angles === 'cache' ? '_cache' : ''}${o.interleave ? '_interleave' : ''}${o.inPlace ? '_inplace' : ''}`;
  const name = `rope_${dtypes[o.dtype].short}_${source}${options}_v${vec}h${heads}${ahead ? '_ahead' : ''}`;
  return namedSpec(name, () => {
    const types = `${cppType(o.dtype)}, ${cppType(o.indexDtype)}`;
    const positions = `flashinfer::RopePositions::${o.positions === 'posIds' ? 'kPosIds' : 'kIndptr'}`;
    const angles = `flashinfer::RopeAngles::${o.angles === 'cache' ? 'kCache' : 'kFrequency'}`;
    const config = `flashinfer::RopeConfig<${types}, ${vec}, ${heads}, ${o.interleave}, ${positions}, ${angles}, ${o.inPlace}, ${ahead}>`;
    const entry = `flashinfer::rope<${config}>`;
    return { name, header: 'flashinfer/rope.cuh', entry, params, threads: mostOf(tile) };
  });
}

/** Every source of positions and angles, dtype and pairing at least once, for prebuilt kernels and compile checks. */
export function ropeSpecs(): KernelSpec[] {
  const base: RopeKernelOptions = {
    dtype: 'bfloat16',
    indexDtype: 'int32',
    interleave: false,
    positions: 'posIds',
    angles: 'cache',
    inPlace: false,
  };
  const few = { vec: 8, heads: 1, ahead: false };
  const many = { vec: 8, heads: 4, ahead: true };
  const made = { ...many, ahead: false };
  return [
    ropeSpec(base, many),
    ropeSpec({ ...base, inPlace: true }, { ...many, heads: 1 }),
    ropeSpec({ ...base, inPlace: true }, { ...few, vec: fewVec }),
    ropeSpec({ ...base, indexDtype: 'int64' }, few),
    ropeSpec({ ...base, dtype: 'float16', interleave: true }, many),
    ropeSpec({ ...base, angles: 'frequency' }, made),
    ropeSpec({ ...base, angles: 'frequency', positions: 'indptr', dtype: 'float16' }, { ...made, heads: 2 }),
    ropeSpec({ ...base, angles: 'frequency', positions: 'indptr', interleave: true }, few),
    ropeSpec({ ...base, dtype: 'float32', angles: 'frequency', interleave: true }, { ...made, vec: 4 }),
    ropeSpec({ ...base, dtype: 'float16', angles: 'frequency', interleave: true }, { ...few, vec: 1 }),
  ];
}

/**
 * Pairs of halves for few tokens, as in decode, and for many, and pairs of neighbours in place from a cache; no model has
 * heads that need narrower accesses.
 */
export function ropeModelSpecs({ dtypes: modelDtypes, models }: AotRequest): KernelSpec[] {
  const sources = [
    { angles: 'cache', positions: 'posIds', indexDtype: 'int32' },
    { angles: 'cache', positions: 'posIds', indexDtype: 'int64' },
    { angles: 'frequency', positions: 'posIds', indexDtype: 'int32' },
    { angles: 'frequency', positions: 'indptr', indexDtype: 'int32' },
  ] as const;
  const halves = sources.flatMap((source) =>
    [false, true].map((inPlace) => ({ ...source, interleave: false, inPlace })),
  );
  const neighbours = sources
    .filter(({ angles }) => angles === 'cache' && models.some(({ attention }) => attention.latent))
    .map((source) => ({ ...source, interleave: true, inPlace: true }));
  return modelDtypes.flatMap((dtype) =>
    [...halves, ...neighbours].flatMap((options) =>
      modelTiles(options).map((tile) => ropeSpec({ ...options, dtype }, tile)),
    ),
  );
}

function modelTiles({
  angles,
  positions,
  interleave,
  inPlace,
}: RopeTileOptions): Pick<RopeTile, 'vec' | 'heads' | 'ahead'>[] {
  const ahead = angles === 'cache';
  const few = { vec: 8, heads: 1, ahead: false };
  const fewest = inPlace && positions === 'posIds' ? [{ ...few, vec: fewVec }] : [];
  const most = positions === 'indptr' ? [2] : [2, 4];
  const many = ahead ? [1, ...(inPlace && !interleave ? [] : most)] : most;
  return [...fewest, few, ...many.map((heads) => ({ vec: 8, heads, ahead }))];
}
