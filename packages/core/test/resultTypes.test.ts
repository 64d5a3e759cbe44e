// SPDX-License-Identifier: Apache-2.0
// The types of results: those of the inputs where they are known, and always such that values are read as numbers.
import { expect, expectTypeOf, it } from 'vitest';
import * as api from '../src/index.ts';
import { testDevice as device } from './device.ts';

type Half = api.Tensor<'float16'>;

it('are those of the inputs', () => {
  const x: Half = api.randn([2, 4, 64], { dtype: 'float16', device });
  const weight = api.ones([64], { dtype: 'float16', device });
  const posIds = api.arange(2, { dtype: 'int32', device });
  expectTypeOf(api.rmsnorm(x, weight)).toEqualTypeOf<Half>();
  expectTypeOf(api.siluAndMul(x)).toEqualTypeOf<Half>();
  expectTypeOf(api.applyRopePosIds(x, x, posIds)).toEqualTypeOf<[Half, Half]>();
  expectTypeOf(api.topK(x.view(8, 64), 3)).toEqualTypeOf<[Half, api.Tensor<'int32'>]>();
  const [o, lse] = api.singlePrefillWithKVCache(x, x, x, { returnLse: true });
  expectTypeOf(o).toEqualTypeOf<Half>();
  expectTypeOf(lse).toEqualTypeOf<api.Tensor<'float32'>>();
  expectTypeOf(api.mergeState(o, lse, o, lse)).toEqualTypeOf<[Half, api.Tensor<'float32'>]>();
  expect([o.dtype, lse.dtype]).toEqual(['float16', 'float32']);
});

it('of attention over float8 are the two that its output may have', () => {
  type Eight = api.Tensor<'float8_e4m3fn'>;
  const prefill = (q: Eight) => api.singlePrefillWithKVCache(q, q, q);
  expectTypeOf(prefill).returns.toEqualTypeOf<api.Tensor<'float16' | 'bfloat16'>>();
});

it('of tensors of any type are read as numbers', () => {
  const x: api.Tensor = api.ones([1, 4, 64], { dtype: 'float16', device });
  const values = api.singlePrefillWithKVCache(x, x, x).toArraySync();
  expectTypeOf(values).toEqualTypeOf<Float32Array>();
  const run = (wrapper: api.BatchDecodeWithPagedKVCacheWrapper) => wrapper.run(x, x).toArraySync();
  expectTypeOf(run).returns.toEqualTypeOf<Float32Array>();
  expect(values.reduce((sum, value) => sum + value, 0)).toBe(256);
});
