// SPDX-License-Identifier: Apache-2.0
// What the page operators refuse, with which code and words.
import { describe, expect, it } from 'vitest';
import {
  appendPagedKVCache,
  appendPagedMlaKVCache,
  getBatchIndicesPositions,
  getSeqLens,
  type Tensor,
  zeros,
} from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { onCuda, testDevice } from '../device.ts';
import { expectThrows } from '../thrownBy.ts';

const make = (shape: readonly number[], dtype: DType = 'float16', device: string = testDevice): Tensor =>
  zeros(shape, { dtype, device: device as typeof testDevice });

type Options = Record<string, unknown>;
const table = { batchIndices: [0, 1, -1], positions: [17, 3, 0], kvIndices: [3, 0, 1], kvIndptr: [0, 2, 3] };

function append(change: Options = {}, k = make([3, 2, 64]), v = make([3, 2, 64])): void {
  appendPagedKVCache(k, v, { ...table, pagedKVCache: make([4, 2, 16, 2, 64]), ...change } as never);
}

function appendMla(change: Options = {}, ckv = make([3, 64]), kpe = make([3, 8])): void {
  const caches = { ckvCache: make([4, 16, 64]), kpeCache: make([4, 16, 8]) };
  appendPagedMlaKVCache(ckv, kpe, { ...table, ...caches, ...change } as never);
}

describe.each([
  ['appendPagedKVCache', append],
  ['appendPagedMlaKVCache', appendMla],
] as const)('%s refuses', (name, call) => {
  const refuses = (change: Options, code: Parameters<typeof expectThrows>[1], ...words: string[]): void =>
    expectThrows(() => call(change), code, `${name}: `, ...words);

  it('nothing that is right', () => {
    expect(() => call()).not.toThrow();
  });

  it('indices out of range', () => {
    const wrong = (change: Options, ...words: string[]): void =>
      refuses(change, 'ERR_FLASHINFER_INVALID_ARGUMENT', ...words);
    wrong({ batchIndices: [0, 2, -1] }, 'batchIndices holds 2 at 1', '-1 to 1 for batchSize=2');
    wrong({ batchIndices: [0, -2, -1] }, 'batchIndices holds -2 at 1');
    wrong({ positions: [-1, 0, 0] }, 'positions holds -1 at 0', 'from 0 up');
    wrong({ positions: [32, 0, 0] }, 'positions holds 32 at 0', 'less than the 32 tokens of the pages of request 0');
    wrong({ positions: [0, 16, 0] }, 'positions holds 16 at 1', 'request 1', 'add pages');
    wrong({ kvIndices: [3, 4, 1] }, 'kvIndices holds 4 at 1', '0 to 3, the pages of the cache');
    wrong({ kvIndices: [3, -1, 1] }, 'kvIndices holds -1 at 1');
    wrong({ kvIndptr: [0, 3, 2] }, 'kvIndptr falls from 3 to 2');
    wrong({ kvIndptr: [1, 2, 3] }, 'kvIndptr starts with 1');
    wrong({ positions: [0.5, 0, 0] }, 'positions holds 0.5 at 0', 'int32');
  });

  it('indices of the wrong length or kind', () => {
    refuses({ batchIndices: [0, 1] }, 'ERR_FLASHINFER_INVALID_SHAPE', 'batchIndices gives nnz=2', 'nnz=3');
    refuses({ positions: make([2], 'int32') }, 'ERR_FLASHINFER_INVALID_SHAPE', 'positions has nnz=2', 'nnz=3');
    refuses({ kvIndices: [3, 0] }, 'ERR_FLASHINFER_INVALID_SHAPE', 'kvIndices has 2 entries', 'entry 2 too');
    refuses({ kvIndptr: [] }, 'ERR_FLASHINFER_INVALID_SHAPE', 'kvIndptr is empty');
    refuses({ kvLastPageLen: [1] }, 'ERR_FLASHINFER_INVALID_SHAPE', 'batchSize=1', 'batchSize=2');
    refuses({ kvIndices: undefined }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'kvIndices is undefined');
    refuses({ positions: make([3], 'int64') }, 'ERR_FLASHINFER_INVALID_DTYPE', 'positions has dtype int64', 'int32');
    refuses({ positions: make([6], 'int32').view(3, 2).select(1, 0) }, 'ERR_FLASHINFER_NON_CONTIGUOUS', 'positions');
  });

  it('unknown options', () => {
    refuses({ layout: 'NHD' }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'option layout is unknown');
    refuses({ enablePdl: 0 }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'enablePdl is 0');
  });

  it.runIf(onCuda)('indices on another device (needs FLASHINFER_TEST_DEVICE=cuda:0)', () => {
    const positions = make([3], 'int32', 'cpu');
    refuses({ positions }, 'ERR_FLASHINFER_DEVICE_MISMATCH', 'positions is on cpu');
  });
});

describe('appendPagedKVCache refuses', () => {
  const refuses = (run: () => void, code: Parameters<typeof expectThrows>[1], ...words: string[]): void =>
    expectThrows(run, code, 'appendPagedKVCache: ', ...words);

  it('tensors that do not fit', () => {
    refuses(() => append({}, make([3, 2])), 'ERR_FLASHINFER_INVALID_RANK', 'k has rank 2');
    refuses(() => append({}, make([3, 2, 64], 'int32')), 'ERR_FLASHINFER_INVALID_DTYPE', 'k has dtype int32');
    refuses(() => append({}, undefined, make([3, 2, 64], 'float32')), 'ERR_FLASHINFER_INVALID_DTYPE', 'v has dtype');
    refuses(() => append({}, undefined, make([2, 2, 64])), 'ERR_FLASHINFER_INVALID_SHAPE', 'v has nnz=2');
    refuses(() => append({}, make([3, 64, 2]).transpose(1, 2)), 'ERR_FLASHINFER_NON_CONTIGUOUS', 'k has strides');
    refuses(
      () => append({}, undefined, make([3, 2, 32])),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'headDimVo=64',
      'headDimVo=32',
    );
  });

  it('caches that do not fit', () => {
    const cache =
      (pagedKVCache: unknown): (() => void) =>
      () =>
        append({ pagedKVCache });
    refuses(cache(undefined), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'pagedKVCache is undefined');
    refuses(cache(make([4, 16, 2, 64])), 'ERR_FLASHINFER_INVALID_RANK', 'pagedKVCache has rank 4');
    refuses(cache(make([4, 3, 16, 2, 64])), 'ERR_FLASHINFER_INVALID_SHAPE', 'pagedKVCache has 3 in dimension 1');
    refuses(cache(make([4, 2, 2, 16, 64])), 'ERR_FLASHINFER_INVALID_SHAPE', 'numKvHeads=16', 'numKvHeads=2 as in k');
    refuses(cache(make([4, 2, 16, 2, 64], 'bfloat16')), 'ERR_FLASHINFER_INVALID_DTYPE', 'dtype bfloat16', 'float16');
    refuses(
      cache([make([4, 16, 2, 64])]),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'pagedKVCache is an array of 1',
      '[k, v]',
    );
    refuses(
      cache([make([4, 16, 2, 64]), make([5, 16, 2, 64])]),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'vCache has numPages=5',
    );
    const same = make([4, 16, 2, 64]);
    refuses(cache([same, same]), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'kCache and vCache overlap');
    refuses(cache(make([4, 2, 0, 2, 64])), 'ERR_FLASHINFER_INVALID_SHAPE', 'pageSize=0');
    refuses(
      () => append({ kvLayout: 'HHD' }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      "kvLayout is 'HHD'",
      "'NHD' or 'HND'",
    );
    const pages = make([4, 2, 16, 2, 64]);
    const inside = pages.select(1, 0).select(0, 0).slice(0, 0, 3);
    refuses(
      () => append({ pagedKVCache: pages }, inside),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'k and pagedKVCache overlap',
    );
  });
});

describe('appendPagedMlaKVCache refuses', () => {
  it('tensors that do not fit', () => {
    const refuses = (run: () => void, code: Parameters<typeof expectThrows>[1], ...words: string[]): void =>
      expectThrows(run, code, 'appendPagedMlaKVCache: ', ...words);
    refuses(() => appendMla({}, make([3, 1, 64])), 'ERR_FLASHINFER_INVALID_RANK', 'ckv has rank 3');
    refuses(() => appendMla({ ckvCache: make([4, 16, 65]) }), 'ERR_FLASHINFER_INVALID_SHAPE', 'headDimCkv=65');
    refuses(() => appendMla({ kpeCache: make([4, 8, 8]) }), 'ERR_FLASHINFER_INVALID_SHAPE', 'kpeCache has pageSize=8');
    refuses(() => appendMla({ kpeCache: undefined }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'kpeCache is undefined');
  });
});

describe('getBatchIndicesPositions and getSeqLens refuse', () => {
  const positions = getBatchIndicesPositions as (...args: unknown[]) => unknown;
  const lens = getSeqLens as (...args: unknown[]) => unknown;
  const indices = (length: number): Tensor => make([length], 'int32');

  it.each<[string, () => unknown, Parameters<typeof expectThrows>[1], string]>([
    ['too few rows', () => positions([0, 4], [9], 3), 'ERR_FLASHINFER_INVALID_SHAPE', 'nnz is 3; expected at least'],
    ['no nnz', () => positions([0, 4], [9]), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'nnz is undefined'],
    ['a negative nnz', () => positions([0], [], -1), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'nnz is -1'],
    [
      'more new tokens than tokens',
      () => positions([0, 4], [3], 4),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'seqLens holds 3',
    ],
    ['other lengths', () => positions([0, 4], [9, 9], 4), 'ERR_FLASHINFER_INVALID_SHAPE', 'seqLens gives batchSize=2'],
    ['a falling indptr', () => positions([0, 4, 3], [9, 9], 4), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'falls from 4 to 3'],
    [
      'outputs of host arrays',
      () => positions([0], [], 0, { positions: 0 }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'unknown',
    ],
    ['a tensor and an array', () => positions(indices(2), [9], 4), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'seqLens is'],
    ['short seqLens', () => positions(indices(3), indices(1), 4), 'ERR_FLASHINFER_INVALID_SHAPE', 'seqLens has 1'],
    [
      'an output of another length',
      () => positions(indices(2), indices(1), 4, { positions: indices(3) }),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'positions has nnz=3',
    ],
    [
      'int64',
      () => positions(make([2], 'int64'), indices(1), 4),
      'ERR_FLASHINFER_INVALID_DTYPE',
      'appendIndptr has dtype int64',
    ],
    ['a page size of 0', () => lens([0, 1], [1], 0), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'pageSize is 0'],
    ['other lengths', () => lens([0, 1], [1, 1], 4), 'ERR_FLASHINFER_INVALID_SHAPE', 'kvLastPageLen gives batchSize=2'],
    ['a falling indptr', () => lens([0, 1, 0], [1, 1], 4), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'falls from 1 to 0'],
    ['short tensors', () => lens(indices(3), indices(1), 4), 'ERR_FLASHINFER_INVALID_SHAPE', 'kvLastPageLen has 1'],
  ])('%s', (_, run, code, words) => {
    expectThrows(run, code, words);
  });

  it('one tensor for both outputs', () => {
    const both = indices(4);
    const run = (): unknown => positions(indices(2), indices(1), 4, { positions: both, batchIndices: both });
    expectThrows(run, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'batchIndices and positions overlap');
  });
});
