// SPDX-License-Identifier: Apache-2.0
// getBatchIndicesPositions and getSeqLens against their definitions, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import { full, getBatchIndicesPositions, getSeqLens, type Tensor, tensor } from '../../src/index.ts';
import { testDevice } from '../device.ts';
import { uniformSource } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';

const indices = (values: readonly number[]): Tensor<'int32'> =>
  tensor([...values], { dtype: 'int32', device: testDevice });
const values = (x: Tensor): number[] => [...(x.toArraySync() as Int32Array)];

describe('getBatchIndicesPositions', () => {
  it.each([
    ['one request', [3], 3],
    ['empty requests at all places', [0, 2, 0, 0, 5, 1, 0], 8],
    ['padding', [1, 1, 1], 17],
    ['no requests', [], 5],
    ['no tokens', [0, 0], 0],
    ['many requests', Array.from({ length: 700 }, (_, r) => r % 4), 2000],
  ])('%s', (_, added, nnz) => {
    const uniform = uniformSource(added.length);
    const seqLens = added.map((count) => count + Math.floor(uniform() * 5000));
    const indptr = [0];
    for (const count of added) indptr.push(indptr.at(-1)! + count);
    const requests = added.flatMap((count, r) => Array.from({ length: count }, () => r));
    const positions = added.flatMap((count, r) => Array.from({ length: count }, (_, i) => seqLens[r]! - count + i));
    while (requests.length < nnz) requests.push(-1);
    while (positions.length < nnz) positions.push(0);

    expect(getBatchIndicesPositions(indptr, seqLens, nnz).map((x) => [...x])).toEqual([requests, positions]);
    const found = getBatchIndicesPositions(indices(indptr), indices(seqLens), nnz);
    expect(found.map(values)).toEqual([requests, positions]);
    expect(found.map(({ dtype, device }) => [dtype, device])).toEqual(found.map(() => ['int32', testDevice]));

    const [batchIndices, out] = [0, 1].map(() => full([nnz], 99, { dtype: 'int32', device: testDevice })) as [
      Tensor,
      Tensor,
    ];
    const given = { batchIndices, positions: out };
    expect(getBatchIndicesPositions(indices(indptr), indices(seqLens), nnz, given)).toEqual([batchIndices, out]);
    expect([values(batchIndices), values(out)]).toEqual([requests, positions]);
  });
});

describe('getSeqLens', () => {
  it.each([
    [[0, 2], [0], 16, 'kvLastPageLen holds 0 at 0; expected 1 to pageSize=16'],
    [[0, 2], [17], 16, 'kvLastPageLen holds 17 at 0'],
    [[0, 0], [-1], 16, 'kvLastPageLen holds -1 at 0; expected 0 to pageSize=16'],
    [[0, 3], [1], 2 ** 30, 'request 0 3 pages'],
  ])('refuses host arrays with lengths that cannot be: %j, %j, %d', (indptr, last, pageSize, words) => {
    expectThrows(() => getSeqLens(indptr, last, pageSize), 'ERR_FLASHINFER_INVALID_ARGUMENT', words);
  });

  it.each([
    [[0, 2, 3, 3], [4, 16, 0], 16, [20, 16, 0]],
    [[0, 5], [1], 1, [5]],
    [[0], [], 7, []],
  ])('of pages %j with %j in the last, %i a page', (indptr, last, pageSize, expected) => {
    expect([...getSeqLens(indptr, last, pageSize)]).toEqual(expected);
    expect(values(getSeqLens(indices(indptr), indices(last), pageSize))).toEqual(expected);
  });

  it('of many requests', () => {
    const indptr = Array.from({ length: 1001 }, (_, r) => 2 * r);
    const last = Array.from({ length: 1000 }, (_, r) => 1 + (r % 5));
    expect(values(getSeqLens(indices(indptr), indices(last), 5))).toEqual(last.map((n) => 5 + n));
  });
});
