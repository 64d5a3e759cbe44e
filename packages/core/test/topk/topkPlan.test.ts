// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { planTopK } from '../../src/topk/topkKernel.ts';

const h200 = { numSms: 132, sharedPerBlock: 227 * 1024 };
const turing = { numSms: 40, sharedPerBlock: 64 * 1024 };

it.each([h200, turing])('plans what the device holds: %j', (limits) => {
  for (const length of [1, 6144, 6145, 20_000, 128_256, 1_000_000]) {
    for (const k of [1, 40, 2048, 5000, length]) {
      if (k > length) continue;
      for (const rows of [1, 16, 128, 512]) {
        for (const sorted of [false, true]) {
          const plan = planTopK(length, k, rows, sorted, limits);
          expect(plan.sharedBytes).toBeLessThanOrEqual(limits.sharedPerBlock - 9 * 1024);
          expect(plan.sortLength === 0).toBe(!sorted);
          if (sorted) expect(plan.sortLength).toBeGreaterThanOrEqual(k);
          if (plan.capacity === 0) continue;
          expect(plan.capacity).toBeGreaterThanOrEqual(Math.max(k, plan.samples));
          if (plan.samples === 0) expect([plan.capacity, plan.splits]).toEqual([length, 1]);
          else expect((plan.sampleRank * length) / plan.samples).toBeGreaterThan(k);
          expect(plan.region).toBeGreaterThanOrEqual(Math.min(plan.capacity, Math.ceil(length / plan.splits) + 8));
        }
      }
    }
  }
});

it('splits few rows among the multiprocessors, and many not at all', () => {
  expect(planTopK(128_256, 2048, 1, false, h200).splits).toBe(16);
  expect(planTopK(128_256, 2048, 512, false, h200).splits).toBe(1);
});
