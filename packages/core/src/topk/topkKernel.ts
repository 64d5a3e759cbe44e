// SPDX-License-Identifier: Apache-2.0
// The kernel of include/flashinfer/topk.cuh: how rows are spread over blocks, how much is sampled and how many candidates
// are kept, and the spec of each instantiation.
import type { AotRequest } from '../jit/aotRequest.ts';
import { namedSpec } from '../jit/namedSpec.ts';
import type { KernelSpec, ParamField } from '../jit/spec.ts';
import { cppType, type DType, dtypes } from '../tensor/dtype.ts';

export interface TopKLimits {
  readonly numSms: number;
  /** Most dynamic shared memory of one block, bytes. */
  readonly sharedPerBlock: number;
}

/** How one call runs; counts in elements. */
export interface TopKPlan {
  readonly threads: number;
  /** Blocks a row. */
  readonly splits: number;
  /** Candidates that shared memory holds; 0: select from the row itself. */
  readonly capacity: number;
  /** 0: every element is a candidate. */
  readonly samples: number;
  /** Which of the samples, counted from the largest, is the guess, and how many more may pass. */
  readonly sampleRank: number;
  readonly sampleSlack: number;
  /** Candidates one split may have. */
  readonly region: number;
  /** 0: unsorted; else the power of two from k up, at least 64. */
  readonly sortLength: number;
  /** Sorts in shared memory, behind the candidates. */
  readonly sortsInShared: boolean;
  readonly sharedBytes: number;
}

/** Rows up to this are candidates as a whole. */
const wholeRow = 6144;
const sampleCount = 4096;
/** Fewer elements are not worth a block of their own. */
const minShare = 2048;
const maxSplits = 16;
/** Static shared memory of the kernel (the bins), and what the system keeps a block, bytes. */
const fixedShared = 10 * 1024;

/**
 * With mu samples expected above the true k-th, the guess is four standard deviations lower, so that it fails for one
 * row in tens of thousands, and six more of room make an overflow rarer still. Both cost time only.
 */
export function planTopK(length: number, k: number, rows: number, sorted: boolean, limits: TopKLimits): TopKPlan {
  const sortLength = sorted ? Math.max(64, 2 ** Math.ceil(Math.log2(k))) : 0;
  const available = limits.sharedPerBlock - fixedShared;
  let capacity = length;
  let samples = 0;
  let sampleRank = 0;
  let sampleSlack = 0;
  if (length > wholeRow) {
    const perSample = length / sampleCount;
    const mean = k / perSample;
    samples = sampleCount;
    sampleRank = Math.ceil(mean + 4 * Math.sqrt(mean) + 5);
    sampleSlack = Math.floor(sampleRank / 16) + 1;
    const candidates = (sampleRank + sampleSlack + 6 * Math.sqrt(sampleRank)) * perSample;
    capacity = Math.max(sampleCount, 256 * Math.ceil(candidates / 256));
  }
  if (capacity * 8 > available || (samples > 0 && capacity > length / 2)) {
    return {
      threads: 1024,
      splits: 1,
      capacity: 0,
      samples: 0,
      sampleRank: 0,
      sampleSlack: 0,
      region: 0,
      sortLength,
      sortsInShared: sortLength * 8 <= available,
      sharedBytes: sortLength * 8 <= available ? sortLength * 8 : 0,
    };
  }
  const sortsInShared = (capacity + sortLength) * 8 <= available;
  const sharedBytes = (capacity + (sortsInShared ? sortLength : 0)) * 8;
  const { threads, splits } = spread(length, samples, rows, limits.numSms);
  return {
    threads,
    splits,
    capacity,
    samples,
    sampleRank,
    sampleSlack,
    region: Math.min(capacity, 256 * Math.ceil((length / splits + 256) / 256)),
    sortLength,
    sortsInShared,
    sharedBytes,
  };
}

/**
 * Up to a row a multiprocessor, blocks are large and have one for themselves; few rows are split among those left over.
 * H200, 2048 of 128256 float32: 1 row in 16 splits 20 us, 16 rows in 8 26 us, 64 rows in 2 37 us (whole 46), 128 rows
 * whole 49 us (in 2 71); 512 rows in blocks of 512 threads 154 us, of 1024 168 us.
 */
function spread(length: number, samples: number, rows: number, numSms: number): { threads: number; splits: number } {
  if (rows > numSms) return { threads: 512, splits: 1 };
  if (samples === 0) return { threads: 1024, splits: 1 };
  return { threads: 1024, splits: Math.min(maxSplits, Math.floor(length / minShare), Math.floor(numSms / rows)) };
}

const params: readonly ParamField[] = [
  { name: 'x', type: 'ptr' },
  { name: 'values', type: 'ptr' },
  { name: 'indices', type: 'ptr' },
  { name: 'counters', type: 'ptr' },
  { name: 'region_counts', type: 'ptr' },
  { name: 'regions', type: 'ptr' },
  { name: 'sort_memory', type: 'ptr' },
  { name: 'stride', type: 'i64' },
  { name: 'vectors', type: 'i32' },
  { name: 'k', type: 'i32' },
  { name: 'splits', type: 'i32' },
  { name: 'capacity', type: 'i32' },
  { name: 'region', type: 'i32' },
  { name: 'samples', type: 'i32' },
  { name: 'sample_rank', type: 'i32' },
  { name: 'sample_slack', type: 'i32' },
  { name: 'sort_length', type: 'i32' },
  { name: 'tie_large', type: 'i32' },
];

export function topKSpec(dtype: DType, vec: number, threads: number): KernelSpec {
  const name = `topk_${dtypes[dtype].short}_v${vec}_t${threads}`;
  return namedSpec(name, () => ({
    name,
    header: 'flashinfer/topk.cuh',
    entry: `flashinfer::topk<flashinfer::TopKConfig<${cppType(dtype)}, ${vec}, ${threads}>>`,
    params,
    threads,
    minBlocksPerSm: 1024 / threads,
  }));
}

/** Every dtype and way to spread rows at least once, for prebuilt kernels and compile checks. */
export function topKSpecs(): KernelSpec[] {
  return [
    topKSpec('float32', 4, 512),
    topKSpec('float32', 4, 1024),
    topKSpec('float32', 1, 512),
    topKSpec('bfloat16', 8, 1024),
    topKSpec('bfloat16', 8, 512),
    topKSpec('float16', 8, 512),
    topKSpec('float16', 1, 1024),
  ];
}

/** Rows of logits or probabilities; vocabularies fill whole accesses. */
export function topKModelSpecs({ dtypes: modelDtypes }: AotRequest): KernelSpec[] {
  return (['float32', ...modelDtypes] as const).flatMap((dtype) =>
    [512, 1024].map((threads) => topKSpec(dtype, dtype === 'float32' ? 4 : 8, threads)),
  );
}
