// SPDX-License-Identifier: Apache-2.0
// What the rotary embeddings refuse, with which code and words.
import { describe, expect, it } from 'vitest';
import {
  applyLlama31Rope,
  applyLlama31RopeInplace,
  applyLlama31RopePosIds,
  applyLlama31RopePosIdsInplace,
  applyRope,
  applyRopeInplace,
  applyRopePosIds,
  applyRopePosIdsInplace,
  applyRopeWithCosSinCache,
  applyRopeWithCosSinCacheInplace,
  type Tensor,
  zeros,
} from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { onCuda, testDevice } from '../device.ts';
import { expectThrows } from '../thrownBy.ts';

const make = (shape: readonly number[], dtype: DType = 'float16', device: string = testDevice): Tensor =>
  zeros(shape, { dtype, device: device as typeof testDevice });

interface Arguments {
  q: Tensor;
  k: Tensor;
  indptr: Tensor;
  offsets: Tensor;
  posIds: Tensor;
  headSize: number;
  table: Tensor;
  options: Record<string, unknown>;
}

const valid = (): Arguments => ({
  q: make([3, 4, 64]),
  k: make([3, 2, 64]),
  indptr: make([3], 'int32'),
  offsets: make([2], 'int32'),
  posIds: make([3], 'int32'),
  headSize: 64,
  table: make([10, 32], 'float32'),
  options: {},
});

type Call = (a: Arguments) => unknown;
type Names = { q: string; k: string; positions: string };
const ofRequests =
  (call: (...args: Parameters<typeof applyRope>) => unknown): Call =>
  (a) =>
    call(a.q, a.k, a.indptr, a.offsets, a.options);
const ofPosIds =
  (call: (...args: Parameters<typeof applyRopePosIds>) => unknown): Call =>
  (a) =>
    call(a.q, a.k, a.posIds, a.options);
const ofTable =
  (call: (...args: Parameters<typeof applyRopeWithCosSinCache>) => unknown): Call =>
  (a) =>
    call(a.posIds, a.q, a.k, a.headSize, a.table, a.options);

const qk: Names = { q: 'q', k: 'k', positions: 'posIds' };
const queryKey: Names = { q: 'query', k: 'key', positions: 'positions' };
const calls: [name: string, call: Call, names: Names][] = [
  ['applyRope', ofRequests(applyRope), qk],
  ['applyRopeInplace', ofRequests(applyRopeInplace), qk],
  ['applyLlama31Rope', ofRequests(applyLlama31Rope), qk],
  ['applyLlama31RopeInplace', ofRequests(applyLlama31RopeInplace), qk],
  ['applyRopePosIds', ofPosIds(applyRopePosIds), qk],
  ['applyRopePosIdsInplace', ofPosIds(applyRopePosIdsInplace), qk],
  ['applyLlama31RopePosIds', ofPosIds(applyLlama31RopePosIds), qk],
  ['applyLlama31RopePosIdsInplace', ofPosIds(applyLlama31RopePosIdsInplace), qk],
  ['applyRopeWithCosSinCache', ofTable(applyRopeWithCosSinCache), queryKey],
  ['applyRopeWithCosSinCacheInplace', ofTable(applyRopeWithCosSinCacheInplace), queryKey],
];

describe.each(calls)('%s refuses', (name, call, names) => {
  const refuses = (change: Partial<Arguments>, code: Parameters<typeof expectThrows>[1], ...words: string[]): void =>
    expectThrows(() => call({ ...valid(), ...change }), code, `${name}: `, ...words);
  const table = name.includes('CosSin');
  const requests = !table && !name.includes('PosIds');
  const llama31 = name.includes('Llama31');

  it('nothing that is right', () => {
    expect(() => call(valid())).not.toThrow();
  });

  it('wrong ranks and shapes', () => {
    refuses({ q: make([3, 4, 64, 1]) }, 'ERR_FLASHINFER_INVALID_RANK', `${names.q} has rank 4`);
    refuses({ k: make([2, 2, 64]) }, 'ERR_FLASHINFER_INVALID_SHAPE', `${names.k} has nnz=2`, 'expected nnz=3');
    refuses({ k: make([3, 2, 32]) }, 'ERR_FLASHINFER_INVALID_SHAPE', `${names.k} has `, '32');
    refuses(
      { q: make([3, 2 ** 14, 64]) },
      'ERR_FLASHINFER_INVALID_SHAPE',
      '16386 heads',
      'at most 2147483647 and 16384',
    );
    if (!requests)
      refuses({ posIds: make([2], 'int32') }, 'ERR_FLASHINFER_INVALID_SHAPE', `${names.positions} has nnz=2`);
    if (requests) {
      refuses({ offsets: make([3], 'int32') }, 'ERR_FLASHINFER_INVALID_SHAPE', 'indptr has 3 elements and offsets 3');
      const none = { indptr: make([1], 'int32'), offsets: make([0], 'int32') };
      refuses(none, 'ERR_FLASHINFER_INVALID_SHAPE', 'at least one request');
    }
  });

  it('wrong dtypes', () => {
    refuses({ q: make([3, 4, 64], 'int32') }, 'ERR_FLASHINFER_INVALID_DTYPE', `${names.q} has dtype int32`, 'float32');
    refuses({ k: make([3, 2, 64], 'bfloat16') }, 'ERR_FLASHINFER_INVALID_DTYPE', `${names.k} has dtype bfloat16`);
    const wrong = requests ? { offsets: make([2], 'int64') } : { posIds: make([3], 'float32') };
    refuses(wrong, 'ERR_FLASHINFER_INVALID_DTYPE', requests ? 'offsets has dtype int64' : 'has dtype float32', 'int32');
  });

  it('heads that do not lie together, disposed tensors, and what is no tensor', () => {
    refuses({ q: make([3, 64, 4]).transpose(1, 2) }, 'ERR_FLASHINFER_NON_CONTIGUOUS', `${names.q} has strides`);
    const q = make([3, 4, 64]);
    q.dispose();
    refuses({ q }, 'ERR_FLASHINFER_DISPOSED', `${names.q} (float16[3, 4, 64]`);
    refuses({ k: undefined as never }, 'ERR_FLASHINFER_INVALID_ARGUMENT', `${names.k} is undefined`);
  });

  it('wrong options', () => {
    refuses({ options: { enablePdl: 1 } }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'enablePdl is 1', 'true or false');
    refuses({ options: { ropetheta: 1 } }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'option ropetheta is unknown');
    const flag = table ? 'isNeox' : 'interleave';
    refuses({ options: { [flag]: 'yes' } }, 'ERR_FLASHINFER_INVALID_ARGUMENT', `${flag} is 'yes'`);
  });

  if (name.endsWith('Inplace'))
    it('q and k in the same memory', () => {
      const q = make([3, 4, 64]);
      refuses({ q, k: q.slice(1, 0, 2) }, 'ERR_FLASHINFER_INVALID_ARGUMENT', `${names.q} and ${names.k} overlap`);
    });

  if (!table)
    it('rotary dimensions and frequencies out of range', () => {
      for (const rotaryDim of [0, 3, 66, 2.5, '64', null]) {
        const words = ['rotaryDim is', String(rotaryDim), 'an even number from 2 to 64'];
        refuses({ options: { rotaryDim } }, 'ERR_FLASHINFER_INVALID_ARGUMENT', ...words);
      }
      const odd = { q: make([3, 4, 63]), k: make([3, 2, 63]) };
      refuses(odd, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'rotaryDim is headDim=63, since it was left out');
      for (const option of ['ropeScale', 'ropeTheta', ...(llama31 ? ['lowFreqFactor', 'oldContextLen'] : [])]) {
        for (const value of [0, -1, Number.NaN, Infinity, '1']) {
          refuses(
            { options: { [option]: value } },
            'ERR_FLASHINFER_INVALID_SCALE',
            `${option} is`,
            String(value),
            'above 0',
          );
        }
      }
      const factors = { lowFreqFactor: 4, highFreqFactor: 4 };
      if (llama31)
        refuses({ options: factors }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'highFreqFactor is 4', 'lowFreqFactor=4');
    });

  if (table)
    it('heads and tables that do not fit', () => {
      for (const headSize of [0, -64, 1.5, '64' as never]) {
        refuses({ headSize }, 'ERR_FLASHINFER_INVALID_ARGUMENT', `headSize is`, String(headSize), 'an integer >= 1');
      }
      refuses({ headSize: undefined as never }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'headSize is undefined');
      refuses({ q: make([3, 100]) }, 'ERR_FLASHINFER_INVALID_SHAPE', 'query has rows of 100 elements', 'headSize=64');
      refuses({ headSize: 32 }, 'ERR_FLASHINFER_INVALID_SHAPE', 'query has 64 in dimension 2', 'expected 32');
      refuses({ table: make([10, 32]) }, 'ERR_FLASHINFER_INVALID_DTYPE', 'cosSinCache has dtype float16', 'float32');
      refuses({ table: make([32], 'float32') }, 'ERR_FLASHINFER_INVALID_RANK', 'cosSinCache has rank 1');
      refuses({ table: make([10, 66], 'float32') }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'rotaryDim is 66');
      refuses({ table: make([10, 31], 'float32') }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'rotaryDim is 31');
      const sideways = make([32, 10], 'float32').transpose(0, 1);
      refuses({ table: sideways }, 'ERR_FLASHINFER_NON_CONTIGUOUS', 'cosSinCache has strides');
    });

  it.runIf(onCuda)('tensors of several devices (needs FLASHINFER_TEST_DEVICE=cuda:0)', () => {
    refuses({ k: make([3, 2, 64], 'float16', 'cpu') }, 'ERR_FLASHINFER_DEVICE_MISMATCH', `${names.k} is on cpu`);
  });
});
