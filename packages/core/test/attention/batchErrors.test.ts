// SPDX-License-Identifier: Apache-2.0
// What the batch wrappers refuse that no other test of theirs has: names, sizes and memory of a call.
import { describe, expect, it } from 'vitest';
import {
  BatchDecodeWithPagedKVCacheWrapper,
  BlockSparseAttentionWrapper,
  type Tensor,
  zeros,
} from '../../src/index.ts';
import { onCuda, testDevice } from '../device.ts';
import { expectThrows } from '../thrownBy.ts';

const heads = { numQoHeads: 4, numKvHeads: 2, headDimQk: 64 };
const pages = { pagedKvIndptr: [0, 2, 3], pagedKvIndices: [0, 1, 2], pagedKvLastPageLen: [1, 4], pageSize: 4 };
const argument = 'ERR_FLASHINFER_INVALID_ARGUMENT';

const make = (...shape: number[]): Tensor => zeros(shape, { dtype: 'float16', device: testDevice });

function planned(more = {}): BatchDecodeWithPagedKVCacheWrapper {
  const wrapper = new BatchDecodeWithPagedKVCacheWrapper({ device: testDevice });
  wrapper.plan({ ...heads, ...pages, ...more });
  return wrapper;
}

describe('a batch wrapper refuses', () => {
  it.each(['nope', 'cuda', 'constructor'])('backend %s, on any device', (backend) => {
    const options = { device: testDevice, backend: backend as never };
    expectThrows(() => new BatchDecodeWithPagedKVCacheWrapper(options), argument, `backend is '${backend}'`, "'fa2'");
  });

  it('requests of more tokens than 31 bits count', () => {
    const table = { pagedKvIndptr: [0, 3], pagedKvIndices: [0, 0, 0], pagedKvLastPageLen: [1], pageSize: 2 ** 30 };
    expectThrows(() => planned(table), argument, 'request 0 has 2147483649 tokens in 3 pages', '2147483647');
    const most = { ...table, pagedKvIndptr: [0, 2], pagedKvLastPageLen: [2 ** 30 - 1] };
    expect(() => planned(most)).not.toThrow();
  });

  it('a list of caches that is no pair', () => {
    const cache = make(3, 4, 2, 64);
    for (const list of [[cache], [cache, cache, cache]]) {
      const run = () => planned().run(make(2, 4, 64), list as never);
      expectThrows(run, argument, `pagedKVCache is an array of ${list.length}`, '[k, v] or one tensor');
    }
  });

  it('an index array of another kind, and says which', () => {
    for (const indices of [new Uint32Array(3), new Float64Array(3)]) {
      const kind = `pagedKvIndices is a ${indices.constructor.name} of 3`;
      expectThrows(() => planned({ pagedKvIndices: indices }), argument, kind, 'Int32Array.from(pagedKvIndices');
    }
    expectThrows(() => planned({ pagedKvIndptr: [0, 2n, 3] }), argument, 'pagedKvIndptr holds 2n at 1', 'int32');
    expectThrows(() => planned({ pagedKvIndptr: [2, 1] }), argument, 'starts with 2', 'sums of lengths');
  });

  it('an output in the memory of another', () => {
    const memory = make(2, 8, 64);
    const q = memory.slice(1, 0, 4);
    const cache = make(3, 2, 4, 2, 64);
    expectThrows(() => planned().run(q, cache, { out: memory.slice(1, 2, 6) }), argument, 'out and q overlap');
    expect(planned().run(q, cache, { out: memory.slice(1, 4, 8) }).shape).toEqual([2, 4, 64]);
  });

  it('a mask of blocks that is too short, before it makes room for the whole', () => {
    const wrapper = new BlockSparseAttentionWrapper({ device: testDevice });
    const blocks = { indptr: [0, 1], indices: [0], M: 2 ** 20, N: 2 ** 20, R: 2 ** 20, C: 2 ** 20, ...heads };
    expectThrows(() => wrapper.plan({ ...blocks, mask: [true] }), argument, 'mask has 1 entries', String(2 ** 40));
    const packedMask = new Uint8Array(1);
    expectThrows(() => wrapper.plan({ ...blocks, packedMask }), argument, 'packedMask has 1 bytes', String(2 ** 37));
  });

  it.skipIf(onCuda)('an lse in the memory of q, out or sinks', () => {
    const wrapper = planned({ qDtype: 'float32' });
    const float = (...shape: number[]) => zeros(shape, { device: testDevice });
    const [q, out, cache, sinks] = [float(2, 4, 64), float(2, 4, 64), float(3, 2, 4, 2, 64), float(8)];
    for (const [name, of] of Object.entries({ q, out, sinks })) {
      const lse = of.view(of.size).slice(0, 0, 8).view(2, 4);
      const options = { returnLse: true, lse, out, sinks: sinks.slice(0, 0, 4) } as const;
      expectThrows(() => wrapper.run(q, cache, options), argument, `lse and ${name} overlap`);
    }
  });
});
