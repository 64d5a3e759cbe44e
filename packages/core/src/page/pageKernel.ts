// SPDX-License-Identifier: Apache-2.0
// Kernels of include/flashinfer/page.cuh: how tokens are spread over threads, and the specs.
import type { AotRequest } from '../jit/aotRequest.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';

const header = 'flashinfer/page.cuh';
const threads = 128;
/** Of appends of small tokens. Measured on an H200, as the two tokens of a thread: 1 and 4 to 8 tokens are slower. */
const appendThreads = 256;
/** A token that is spread over two blocks streams slower: the second comes much later, behind those of other tokens. */
const mostThreads = 1024;

/** In the order in which kernels read them: constants that no block read before come from afar, a line at a time. */
const appendParams: readonly ParamField[] = [
  { name: 'k', type: 'ptr' },
  { name: 'v', type: 'ptr' },
  { name: 'k_stride_n', type: 'i64' },
  { name: 'v_stride_n', type: 'i64' },
  { name: 'items', type: 'i32' },
  { name: 'rows', type: 'i32' },
  { name: 'kv_indptr', type: 'ptr' },
  { name: 'kv_indices', type: 'ptr' },
  { name: 'batch_size', type: 'i32' },
  { name: 'num_indices', type: 'i32' },
  { name: 'batch_indices', type: 'ptr' },
  { name: 'positions', type: 'ptr' },
  { name: 'page_size', type: 'i32' },
  { name: 'page_size_multiplier', type: 'u32' },
  { name: 'num_pages', type: 'i32' },
  { name: 'items_multiplier', type: 'u32' },
  { name: 'k_cache', type: 'ptr' },
  { name: 'v_cache', type: 'ptr' },
  { name: 'k_cache_stride_page', type: 'i64' },
  { name: 'k_cache_stride_n', type: 'i64' },
  { name: 'v_cache_stride_page', type: 'i64' },
  { name: 'v_cache_stride_n', type: 'i64' },
  { name: 'slots', type: 'i32' },
  { name: 'heads', type: 'i32' },
  { name: 'k_chunks', type: 'i32' },
  { name: 'k_chunks_multiplier', type: 'u32' },
  { name: 'v_chunks', type: 'i32' },
  { name: 'v_chunks_multiplier', type: 'u32' },
  { name: 'k_stride_h', type: 'i64' },
  { name: 'v_stride_h', type: 'i64' },
  { name: 'k_cache_stride_h', type: 'i64' },
  { name: 'v_cache_stride_h', type: 'i64' },
  { name: 'ahead', type: 'i32' },
  { name: 'ahead_run', type: 'i32' },
  { name: 'k_ahead_bytes', type: 'u32' },
  { name: 'v_ahead_bytes', type: 'u32' },
];

/**
 * How the accesses of a token lie. `whole`: its k and its v are runs of memory of equal length, a thread has the same part
 * of both; `uniform`: the threads of a warp move parts of the same tokens.
 */
export type AppendLayout = 'any' | 'uniform' | 'whole';

export interface AppendTile {
  readonly layout: AppendLayout;
  /** Tokens a thread moves its part of. */
  readonly rows: number;
  /** Tokens that the threads of a block share. */
  readonly slots: number;
  readonly blocks: number;
  /** Blocks along the grid's y that share a token. */
  readonly blocksPerToken: number;
  readonly threads: number;
}

/** Threads a multiprocessor holds. */
const threadsPerSm = 2048;

/** Many tokens give a thread several, for more bytes in flight. `items`: accesses of a token. */
const rowsPerThread = (tokens: number, items: number, numSms: number): number =>
  tokens * items >= 2 * numSms * threadsPerSm ? 2 : 1;

/** `items`: accesses of a token. */
export function chooseAppendTile(tokens: number, items: number, numSms: number): AppendTile {
  const rows = rowsPerThread(tokens, items, numSms);
  const slots = Math.max(1, Math.floor(appendThreads / items));
  const blocks = Math.ceil(tokens / (slots * rows));
  const shared = items <= appendThreads ? { blocksPerToken: 1, threads: appendThreads } : shareToken(items);
  return { layout: items % 32 === 0 ? 'uniform' : 'any', rows, slots, blocks, ...shared };
}

function shareToken(items: number): Pick<AppendTile, 'blocksPerToken' | 'threads'> {
  const blocksPerToken = Math.ceil(items / mostThreads);
  return { blocksPerToken, threads: 32 * Math.ceil(items / blocksPerToken / 32) };
}

/** Blocks of fewer threads, of one token each, are no faster (H200, 16 x 1024 tokens of 64 items: 18.7 us for 18.6). */
export const fewestWholeItems = 96;

/** `items`: accesses of k, or of v, of a token; not fewer than `fewestWholeItems`. */
export function chooseWholeTile(tokens: number, items: number, numSms: number): AppendTile {
  const rows = rowsPerThread(tokens, 2 * items, numSms);
  return { layout: 'whole', rows, slots: 1, blocks: Math.ceil(tokens / rows), ...shareToken(items) };
}

const appendSpecs = new Map<string, KernelSpec>();

/** `bytes`: of an access. The same object for the same arguments: kernels are looked up by it. */
export function appendSpec(bytes: number, { rows, layout }: Pick<AppendTile, 'rows' | 'layout'>): KernelSpec {
  const name = `append_paged_kv_b${bytes}r${rows}${layout === 'any' ? '' : `_${layout}`}`;
  let spec = appendSpecs.get(name);
  if (spec === undefined) {
    const step = layout === 'whole' ? 'append_whole_tokens' : 'append_paged_kv';
    const entry = `flashinfer::${step}<flashinfer::AppendConfig<${bytes}, ${rows}, ${layout !== 'any'}>>`;
    // Left to itself, nvcc 13.0 spills to stay at 32 registers.
    spec = { name, header, entry, params: appendParams, threads: mostThreads, minBlocksPerSm: 1 };
    appendSpecs.set(name, spec);
  }
  return spec;
}

export const batchIndicesPositionsSpec: KernelSpec = {
  name: 'batch_indices_positions',
  header,
  entry: 'flashinfer::batch_indices_positions',
  params: [
    { name: 'append_indptr', type: 'ptr' },
    { name: 'seq_lens', type: 'ptr' },
    { name: 'batch_indices', type: 'ptr' },
    { name: 'positions', type: 'ptr' },
    { name: 'batch_size', type: 'i32' },
    { name: 'rows', type: 'i32' },
    { name: 'requests_per_row', type: 'f32' },
  ],
  threads,
};

export const seqLensSpec: KernelSpec = {
  name: 'seq_lens',
  header,
  entry: 'flashinfer::seq_lens',
  params: [
    { name: 'kv_indptr', type: 'ptr' },
    { name: 'kv_last_page_len', type: 'ptr' },
    { name: 'seq_lens', type: 'ptr' },
    { name: 'batch_size', type: 'i32' },
    { name: 'page_size', type: 'i32' },
  ],
  threads,
};

const modelAppends = (): KernelSpec[] =>
  [1, 2].flatMap((rows) => (['any', 'uniform', 'whole'] as const).map((layout) => appendSpec(16, { rows, layout })));

/** For compile checks. */
export function pageSpecs(): KernelSpec[] {
  return [...modelAppends(), appendSpec(1, { rows: 2, layout: 'any' }), batchIndicesPositionsSpec, seqLensSpec];
}

/** Heads of models fill whole accesses. */
export function pageModelSpecs(_: AotRequest): KernelSpec[] {
  return [...modelAppends(), batchIndicesPositionsSpec, seqLensSpec];
}
