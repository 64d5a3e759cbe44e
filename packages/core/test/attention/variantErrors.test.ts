// SPDX-License-Identifier: Apache-2.0
// Definitions and values that are refused before anything is compiled.
import { describe, expect, it } from 'vitest';
import * as flashinfer from '../../src/index.ts';
import { onCuda, testDevice } from '../device.ts';
import { expectThrows } from '../thrownBy.ts';

const { defineAttentionVariant } = flashinfer;
type Definition = flashinfer.AttentionVariantDefinition;
const code = 'ERR_FLASHINFER_INVALID_ARGUMENT';

describe('defineAttentionVariant refuses', () => {
  const hook = { logitsTransform: 'logits' };
  const cases: [string, unknown, ...string[]][] = [
    ['no definition', undefined, 'definition is undefined'],
    ['no name', { ...hook }, 'name is undefined'],
    ['an empty name', { name: '', ...hook }, "name is ''", 'identifier'],
    ['a name that is no identifier', { name: 'soft cap', ...hook }, "name is 'soft cap'"],
    ['a name that starts with a digit', { name: '2cap', ...hook }, "name is '2cap'"],
    ['a keyword as name', { name: 'class', ...hook }, "name is 'class'"],
    ['a long name', { name: 'x'.repeat(33), ...hook }, 'at most 32'],
    ['an unknown hook', { name: 'a', logitTransform: 'logits' }, 'logitTransform is no part', 'logitsTransform'],
    ['no hook', { name: 'a' }, 'no hook is given', 'queryTransform'],
    ['an empty hook', { name: 'a', logitsMask: '  ' }, "logitsMask is '  '"],
    ['a hook that is no text', { name: 'a', logitsMask: () => true }, 'logitsMask is'],
    ['a reserved param', { name: 'a', params: { kvIdx: 'int32' }, ...hook }, "param 'kvIdx'", 'already'],
    ['a keyword as param', { name: 'a', params: { float: 'float32' }, ...hook }, "param 'float'"],
    ['a param that is no identifier', { name: 'a', params: { 'a-b': 'float32' }, ...hook }, "param 'a-b'"],
    ['an unknown type', { name: 'a', params: { x: 'double' }, ...hook }, "x has type 'double'", 'float64', 'float16[]'],
    ['a scalar of 16 bits', { name: 'a', params: { x: 'float16' }, ...hook }, "type 'float16'"],
    ['a tensor of an unknown dtype', { name: 'a', params: { x: 'float64[]' }, ...hook }, "type 'float64[]'"],
    ['params that are a list', { name: 'a', params: ['x'], ...hook }, 'params is'],
    ['useSoftmax as text', { name: 'a', useSoftmax: 'no', ...hook }, "useSoftmax is 'no'"],
    ['hooks beside a struct', { name: 'a', decl: 'struct a {};', ...hook }, 'decl and logitsTransform'],
    ['a struct of another name', { name: 'a', decl: 'struct b {};' }, "no 'struct a'"],
  ];
  it.each(cases)('%s', (_, definition, ...parts) => {
    expectThrows(() => defineAttentionVariant(definition as Definition), code, 'defineAttentionVariant', ...parts);
  });

  it('nothing of a definition that has all there is', () => {
    const variant = defineAttentionVariant({
      name: 'Whole_1',
      params: { a: 'float32', b: 'bool[]' },
      queryTransform: 'q',
      logitsTransform: 'logits',
      logitsMask: 'true',
      outputTransform: 'output',
      useSoftmax: false,
    });
    expect(variant).toMatchObject({ name: 'Whole_1', params: { a: 'float32', b: 'bool[]' }, useSoftmax: false });
    expect(Object.isFrozen(variant)).toBe(true);
  });
});

const make = (shape: number[], dtype: flashinfer.DType = 'float16') =>
  flashinfer.zeros(shape, { dtype, device: testDevice });
const [q, k, v] = [make([4, 64]), make([10, 2, 64]), make([10, 2, 64])];
const variant = defineAttentionVariant({
  name: 'Checked',
  params: { x: 'float32', n: 'int32', u: 'uint32', big: 'int64', on: 'bool', bias: 'float32[]' },
  logitsTransform: 'logits + x',
});
const good = { x: 1, n: -1, u: 1, big: 2n ** 40n, on: true, bias: make([3], 'float32') };
type Params = flashinfer.VariantParams;
const decode =
  (variantParams: unknown, options: flashinfer.SingleDecodeOptions = {}) =>
  () =>
    flashinfer.singleDecodeWithKVCache(q, k, v, {
      variant,
      ...options,
      variantParams: variantParams as Params,
    } as flashinfer.SingleDecodeOptions & { returnLse?: false });

describe('a call with a variant refuses', () => {
  const cases: [string, object, ...string[]][] = [
    ['a missing param', { n: undefined }, 'variantParams.n is missing', 'int32', 'Checked'],
    ['an unknown param', { y: 1 }, 'variantParams.y', 'expected x, n, u, big, on, bias'],
    ['text for a number', { x: '1' }, "variantParams.x is '1'", 'a number'],
    ['a tensor for a number', { x: good.bias }, 'variantParams.x is a Tensor', '[]'],
    ['a fraction for an int32', { n: 1.5 }, 'variantParams.n is 1.5', '2^31'],
    ['a negative uint32', { u: -1 }, 'variantParams.u is -1'],
    ['an int64 that no double holds', { big: 2 ** 60 }, 'variantParams.big', 'bigint'],
    ['a bigint of more than 64 bits', { big: 2n ** 64n }, 'variantParams.big'],
    ['a number for a bool', { on: 1 }, 'variantParams.on is 1', 'true or false'],
    ['an empty tensor', { bias: make([0], 'float32') }, 'variantParams.bias is an empty tensor'],
  ];
  it.each(cases)('%s', (_, change, ...parts) => {
    expectThrows(decode({ ...good, ...change }), code, 'singleDecodeWithKVCache', ...parts);
  });

  it('a tensor of another dtype, or that is not contiguous, or no tensor', () => {
    const run = (bias: unknown) => decode({ ...good, bias });
    expectThrows(run(make([3], 'float16')), 'ERR_FLASHINFER_INVALID_DTYPE', 'variantParams.bias', 'float32');
    const strided = make([4, 6], 'float32').transpose(0, 1);
    expectThrows(run(strided), 'ERR_FLASHINFER_NON_CONTIGUOUS', 'variantParams.bias');
    expectThrows(run(3), code, 'variantParams.bias');
    const freed = make([3], 'float32');
    freed.dispose();
    expectThrows(run(freed), 'ERR_FLASHINFER_DISPOSED', 'variantParams.bias');
  });

  it.runIf(onCuda)('a tensor of another device', () => {
    const bias = flashinfer.zeros([3], { dtype: 'float32', device: 'cpu' });
    expectThrows(decode({ ...good, bias }), 'ERR_FLASHINFER_DEVICE_MISMATCH', 'variantParams.bias', 'cpu', testDevice);
  });

  it('built-in changes of the logits beside it', () => {
    expectThrows(decode(good, { logitsSoftCap: 30 }), code, 'Checked', 'logitsSoftCap');
    expectThrows(decode(good, { posEncodingMode: 'ALIBI' }), code, 'Checked', 'ALIBI');
  });

  it('an lse without softmax, single and planned', () => {
    const sigmoid = defineAttentionVariant({ name: 'Sigmoid', logitsTransform: 'logits', useSoftmax: false });
    const call = () => flashinfer.singleDecodeWithKVCache(q, k, v, { variant: sigmoid, returnLse: true });
    expectThrows(call, code, 'returnLse', 'Sigmoid', 'useSoftmax');
    const wrapper = new flashinfer.BatchPrefillWithRaggedKVCacheWrapper({ device: testDevice });
    const heads = { numQoHeads: 4, numKvHeads: 2, headDimQk: 64 };
    wrapper.plan({ qoIndptr: [0, 1], kvIndptr: [0, 10], ...heads, variant: sigmoid });
    const rows = make([1, 4, 64]);
    expectThrows(() => wrapper.run(rows, k, v, { returnLse: true }), code, 'run: returnLse', 'Sigmoid');
    expectThrows(() => wrapper.run(rows, k, v, { variantParams: { a: 1 } }), code, 'variantParams.a', 'no params');
  });

  it('a definition in place of what defineAttentionVariant made of it', () => {
    const definition = { name: 'a', logitsTransform: 'logits' } as unknown as flashinfer.AttentionVariant;
    const call = () => flashinfer.singleDecodeWithKVCache(q, k, v, { variant: definition });
    expectThrows(call, code, 'variant is', 'defineAttentionVariant');
  });

  it('params without a variant', () => {
    const call = () => flashinfer.singleDecodeWithKVCache(q, k, v, { variantParams: { a: 1 } });
    expectThrows(call, code, 'variantParams', 'without a variant');
  });
});
