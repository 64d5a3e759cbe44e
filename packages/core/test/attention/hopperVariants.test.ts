// SPDX-License-Identifier: Apache-2.0
// Custom variants on the fa3 template, which 'auto' does not choose for them, against the float64 reference.
import { describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { testDevice } from '../device.ts';
import { uniformSource } from '../reference/random.ts';
import { expectThrows } from '../thrownBy.ts';
import { onHopper } from './attentionCase.ts';
import {
  checkPaged,
  checkRagged,
  checkSingle,
  defined,
  type Example,
  examples,
  type VariantCase,
} from './variantCase.ts';

/** What the template has: every hook but that of the query. */
const ownHooks: Example = {
  name: 'mask, logits and output',
  variant: defined({
    name: 'three_hooks',
    params: { every: 'int32', shift: 'float32' },
    logitsMask: '(kvIdx + qoIdx + kvHeadIdx) % every != 0',
    logitsTransform: 'logits * (qoHeadIdx % 2 == 0 ? 0.5f : 1.5f) + shift * batchIdx * (kvIdx % 2)',
    outputTransform: 'output * (qoHeadIdx + 1) + (isinf(lse) ? 0.0f : 0.125f * lse) + dimIdx / (float)(qoLen + kvLen)',
  }),
  make: () => ({
    params: { every: 3, shift: 0.25 },
    reference: {
      mask: ({ kvIdx, qoIdx, kvHeadIdx }) => (kvIdx + qoIdx + kvHeadIdx) % 3 !== 0,
      logits: (x, { qoHeadIdx, batchIdx, kvIdx }) =>
        x * (qoHeadIdx % 2 === 0 ? 0.5 : 1.5) + 0.25 * batchIdx * (kvIdx % 2),
      output: (o, lse, dim, { qoHeadIdx, qoLen, kvLen }) =>
        o * (qoHeadIdx + 1) + (lse === -Infinity ? 0 : 0.125 * lse) + dim / (qoLen + kvLen),
    },
  }),
};

const served = [...examples.filter(({ name }) => name !== 'every hook'), ownHooks];

describe.skipIf(!onHopper)("variants with backend 'fa3'", () => {
  const uniform = uniformSource(71);
  const length = (most: number): number => 1 + Math.floor(uniform() * most);
  // Tiles that are full, partly hidden and empty; requests without rows or keys.
  const lengths = { qoLens: [3, 140, 0, length(50), 20], kvLens: [30, 300, 5, 0, length(500)] };
  const narrow = { ...lengths, numQoHeads: 4, numKvHeads: 2, headDim: 64, dtype: 'float16', backend: 'fa3' } as const;
  const wide = { ...narrow, numQoHeads: 3, numKvHeads: 1, headDim: 128, dtype: 'bfloat16' } as const;

  // Few combinations, since each compiles a kernel.
  it.each(served)('$name', async (example) => {
    await checkSingle(example, { ...narrow, qoLens: [150], kvLens: [length(500)], options: { causal: true } });
    await checkRagged(example, { ...wide, options: { smScale: 0.11, vScale: 0.5 } });
    // Boxes of the copy engine, and rows that are gathered.
    await checkPaged(example, { ...wide, pageSize: 16, options: { causal: true } }, 'prefill');
    await checkPaged(example, { ...narrow, pageSize: 5, options: { windowLeft: 50 } }, 'prefill');
  });

  const structs = served.filter(({ name }) => name.startsWith('a struct') || name === ownHooks.name);
  it.each(structs)('head dimensions 256, and 192 with values of 128: $name', async (example) => {
    const c: VariantCase = { ...narrow, options: { causal: true } };
    await checkRagged(example, { ...c, headDim: 192, headDimVo: 128 });
    await checkPaged(example, { ...c, headDim: 192, headDimVo: 128, pageSize: 256 }, 'prefill');
    await checkPaged(example, { ...c, headDim: 256, pageSize: 3 }, 'prefill');
  });

  it.each(['paged', 'ragged'])('a hook of the query is refused in plan(), %s', (kind) => {
    const variant = flashinfer.defineAttentionVariant({ name: 'half_query', queryTransform: 'q * 0.5f' });
    const plan = { qoIndptr: [0, 4], numQoHeads: 4, numKvHeads: 2, headDimQk: 64, variant };
    const options = { backend: 'fa3', device: testDevice } as const;
    const pages = { pagedKvIndptr: [0, 1], pagedKvIndices: [0], pagedKvLastPageLen: [4], pageSize: 4 };
    const refused = (): void => {
      if (kind === 'paged') new flashinfer.BatchPrefillWithPagedKVCacheWrapper(options).plan({ ...plan, ...pages });
      else new flashinfer.BatchPrefillWithRaggedKVCacheWrapper(options).plan({ ...plan, kvIndptr: [0, 4] });
    };
    expectThrows(refused, 'ERR_FLASHINFER_UNSUPPORTED', 'fa3', 'queryTransform', 'fa2');
  });
});

it('the fa3 template is tested with all variants but that of the query', () => {
  expect(served.length).toBe(examples.length);
});
