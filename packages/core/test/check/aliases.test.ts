// SPDX-License-Identifier: Apache-2.0
// What an operator writes is not what it reads for other elements: every pair of tensors of a call in one memory.
import { describe, expect, it } from 'vitest';
import * as api from '../../src/index.ts';
import { testDevice as device } from '../device.ts';

type Tensors = Readonly<Record<string, readonly number[]>>;
type Call = (tensors: Readonly<Record<string, api.Tensor>>) => unknown;

const rows = [4, 64];
const heads = [4, 2, 64];
const states = { v: heads, s: [4, 2], vOther: heads, sOther: [4, 2] };
const positions = () => api.arange(4, { dtype: 'int32', device });

/** Float32 tensors of each call by name, the names of those that it writes, and one that a result may replace. */
const calls: Record<string, [call: Call, shapes: Tensors, written: string, same?: string]> = {
  rmsnorm: [
    ({ x, weight, out }) => api.rmsnorm(x!, weight!, { out: out! }),
    { x: rows, weight: [64], out: rows },
    'out',
    'x',
  ],
  fusedAddRmsnorm: [
    ({ x, residual, weight }) => api.fusedAddRmsnorm(x!, residual!, weight!),
    { x: rows, residual: rows, weight: [64] },
    'x residual',
  ],
  applyRopeWithCosSinCacheInplace: [
    ({ query, key, cosSinCache }) => api.applyRopeWithCosSinCacheInplace(positions(), query!, key!, 64, cosSinCache!),
    { query: heads, key: heads, cosSinCache: [8, 64] },
    'query key',
  ],
  mergeStateInPlace: [({ v, s, vOther, sOther }) => api.mergeStateInPlace(v!, s!, vOther!, sOther!), states, 'v s'],
};

describe('refuses what is written in the memory of what is read', () => {
  for (const [name, [call, shapes, written, same]] of Object.entries(calls)) {
    const names = Object.keys(shapes);
    const pairs = names.flatMap((a, i) => names.slice(i + 1).map((b) => [a, b] as const));
    it.each(pairs)(`${name}: %s and %s`, (a, b) => {
      const memory = api.rand([1024], { device });
      const place = (shape: readonly number[]) =>
        memory
          .slice(
            0,
            0,
            shape.reduce((product, extent) => product * extent),
          )
          .view(...shape);
      const fresh = names.map((each) => [each, api.rand(shapes[each]!, { device })]);
      const tensors = { ...Object.fromEntries(fresh), [a]: place(shapes[a]!), [b]: place(shapes[b]!) };
      const writes = [a, b].some((each) => written.split(' ').includes(each)) && ![a, b].includes(same ?? '');
      if (writes) expect(() => call(tensors)).toThrow(/overlap in memory/);
      else expect(() => call(tensors)).not.toThrow();
    });
  }
});
