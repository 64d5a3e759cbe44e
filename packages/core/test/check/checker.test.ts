// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { Checker } from '../../src/check/checker.ts';
import { empty } from '../../src/tensor/create.ts';
import { testDevice as device } from '../device.ts';
import { expectThrows } from '../thrownBy.ts';

const halves = ['float16', 'bfloat16'] as const;
const q = empty([4, 32, 128], { dtype: 'float16', device });
const k = empty([9, 8, 128], { dtype: 'float16', device });
const qDims = ['qoLen', 'numQoHeads', 'headDim'];
const kDims = ['kvLen', 'numKvHeads', 'headDim'];

function check(): Checker {
  return new Checker('rmsnorm');
}

describe('Checker.tensor', () => {
  it('binds dims by name across tensors', () => {
    const c = check()
      .tensor('q', q, qDims, { dtypes: halves })
      .tensor('k', k, kDims, { dtypes: [q.dtype], device });
    expect(['qoLen', 'numQoHeads', 'kvLen', 'numKvHeads', 'headDim'].map((dim) => c.dim(dim))).toEqual([
      4, 32, 9, 8, 128,
    ]);
    expect(() => c.dim('pageSize')).toThrow(/pageSize.*rmsnorm.*report/);
  });

  it('takes zero extents as extents like others', () => {
    using none = empty([0, 8, 128], { dtype: 'float16', device });
    const c = check().tensor('k', none, kDims);
    expect(c.dim('kvLen')).toBe(0);
    expectThrows(
      () => c.tensor('v', k, kDims),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'v has kvLen=9',
      'expected kvLen=0 as in k',
    );
  });

  it('refuses what is no tensor', () => {
    for (const [value, text] of [
      [undefined, 'undefined'],
      [null, 'null'],
      [[1], '[1]'],
      ['x', "'x'"],
      [3, '3'],
    ]) {
      expectThrows(
        () => check().tensor('q', value as never, qDims),
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `rmsnorm: q is ${text};`,
        'expected a Tensor of shape [qoLen, numQoHeads, headDim]',
      );
    }
  });

  it('says that a tensor is of another copy of the package', () => {
    class Tensor {
      readonly dataPtr = 0n;
    }
    expectThrows(
      () => check().tensor('q', new Tensor() as never, qDims),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'rmsnorm: q is a Tensor of another copy of @flashinfer/core;',
      'load the package once',
    );
  });

  it('refuses a disposed tensor', () => {
    const gone = empty([1], { device });
    gone.dispose();
    expectThrows(
      () => check().tensor('x', gone, ['n']),
      'ERR_FLASHINFER_DISPOSED',
      'rmsnorm: x (float32[1]@',
      'disposed',
    );
  });

  it('refuses another rank', () => {
    expectThrows(
      () => check().tensor('x', q, ['numTokens', 'hiddenSize']),
      'ERR_FLASHINFER_INVALID_RANK',
      'rmsnorm: x has rank 3, shape [4, 32, 128]; expected rank 2, [numTokens, hiddenSize]; ',
      'view()',
    );
  });

  it('refuses another dtype', () => {
    expectThrows(
      () => check().tensor('q', q, qDims, { dtypes: ['bfloat16', 'float32'] }),
      'ERR_FLASHINFER_INVALID_DTYPE',
      "rmsnorm: q has dtype float16; expected bfloat16 or float32; cast with q.to('bfloat16')",
    );
  });

  it('refuses a dim that disagrees with another tensor, naming both', () => {
    using v = empty([9, 4, 128], { dtype: 'float16', device });
    expectThrows(
      () => check().tensor('k', k, kDims).tensor('v', v, kDims),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'rmsnorm: v has numKvHeads=4, shape [9, 4, 128]; expected numKvHeads=8 as in k, [kvLen, numKvHeads, headDim]; ',
    );
    using square = empty([3, 5], { device });
    expectThrows(
      () => check().tensor('x', square, ['n', 'n']),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'x has n=5',
      'n=3 as in x',
    );
  });

  it('refuses a fixed extent that differs, and lets * be anything', () => {
    expectThrows(
      () => check().tensor('q', q, ['*', 32, 64]),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'rmsnorm: q has 128 in dimension 2, shape [4, 32, 128]; expected 64, [*, 32, 64]; ',
    );
    expect(check().tensor('q', q, ['*', '*', 128])).toBeInstanceOf(Checker);
  });

  it('refuses another device than the first tensor, or than the one given', () => {
    expectThrows(
      () => check().tensor('q', q, qDims, { device: 'cuda:7' }),
      'ERR_FLASHINFER_DEVICE_MISMATCH',
      `rmsnorm: q is on ${device}; expected cuda:7 as this call; move it with q.to('cuda:7')`,
    );
    // A stand-in for a tensor of a GPU that is not here.
    const elsewhere = Object.create(k, { device: { value: 'cuda:7' } });
    expectThrows(
      () => check().tensor('q', q, qDims).tensor('k', elsewhere, kDims),
      'ERR_FLASHINFER_DEVICE_MISMATCH',
      `rmsnorm: k is on cuda:7; expected ${device} as q; move it with k.to('${device}')`,
    );
  });

  it('refuses strides where asked to', () => {
    using t = q.transpose(1, 2);
    using rows = q.slice(1, 0, 5);
    expect(check().tensor('q', t, ['*', '*', '*'])).toBeInstanceOf(Checker);
    expect(check().tensor('q', rows, ['*', '*', '*'], { lastDimContiguous: true })).toBeInstanceOf(Checker);
    expectThrows(
      () => check().tensor('q', t, ['*', '*', '*'], { lastDimContiguous: true }),
      'ERR_FLASHINFER_NON_CONTIGUOUS',
      'rmsnorm: q has strides [4096, 1, 128] for shape [4, 128, 32]; expected stride 1 in the last dimension; ',
      'q.contiguous()',
    );
    expectThrows(
      () => check().tensor('q', rows, ['*', '*', '*'], { contiguous: true }),
      'ERR_FLASHINFER_NON_CONTIGUOUS',
      'expected a contiguous tensor',
    );
    using column = q.slice(2, 0, 1);
    using columnFirst = column.transpose(1, 2);
    using single = columnFirst.slice(2, 0, 1);
    expect(check().tensor('q', single, ['*', '*', '*'], { lastDimContiguous: true })).toBeInstanceOf(Checker);
  });

  it('skips an optional tensor that is left out, and checks one that is not', () => {
    expect(check().optionalTensor('out', undefined, qDims)).toBeInstanceOf(Checker);
    expectThrows(() => check().optionalTensor('out', q, ['n']), 'ERR_FLASHINFER_INVALID_RANK', 'out');
  });
});

describe('Checker.bind', () => {
  it('gives dims to tensors that follow, and agrees with those before', () => {
    const c = check().bind('headDim', 64, 'plan()');
    expectThrows(
      () => c.tensor('q', q, qDims),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'q has headDim=128',
      'headDim=64 as in plan()',
    );
    const d = check().tensor('q', q, qDims).bind('headDim', 128, 'options.headDim');
    expectThrows(
      () => d.bind('numQoHeads', 8, 'options'),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'options gives numQoHeads=8',
      '32 as in q',
    );
  });
});

describe('Checker options', () => {
  it('checks numbers', () => {
    const valid = () =>
      check().number('smScale', undefined).number('smScale', 0.1).number('n', 3, { min: 3, max: 3, integer: true });
    expect(valid()).toBeInstanceOf(Checker);
    expect(check().number('x', Infinity, { finite: false })).toBeInstanceOf(Checker);
    expectThrows(
      () => check().number('smScale', Number.NaN, { code: 'ERR_FLASHINFER_INVALID_SCALE' }),
      'ERR_FLASHINFER_INVALID_SCALE',
      'rmsnorm: smScale is NaN; expected a finite number; ',
    );
    expectThrows(
      () => check().number('pageSize', 2.5, { min: 1, max: 9, integer: true }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'pageSize is 2.5; expected an integer >= 1 and <= 9; ',
    );
    expectThrows(() => check().number('n', '3' as never), 'ERR_FLASHINFER_INVALID_ARGUMENT', "n is '3'");
    expectThrows(() => check().number('n', Number.NaN, { finite: false }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'NaN');
    expectThrows(() => check().number('n', 0, { min: 1 }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'n is 0', '>= 1');
    expectThrows(() => check().number('n', null as never), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'n is null');
  });

  it('checks choices', () => {
    expect(check().oneOf('kvLayout', 'NHD', ['NHD', 'HND']).oneOf('kvLayout', undefined, ['NHD'])).toBeInstanceOf(
      Checker,
    );
    expectThrows(
      () => check().oneOf('kvLayout', 'HDN', ['NHD', 'HND'], 'ERR_FLASHINFER_INVALID_LAYOUT'),
      'ERR_FLASHINFER_INVALID_LAYOUT',
      "rmsnorm: kvLayout is 'HDN'; expected 'NHD' or 'HND'; pass one of these",
    );
  });
});

describe('Checker.flag', () => {
  it('takes booleans and nothing else', () => {
    check().flag('enablePdl', true).flag('enablePdl', false).flag('enablePdl', undefined);
    for (const value of [0, 1, null, 'true']) {
      const refused = (): unknown => check().flag('enablePdl', value as never);
      expectThrows(refused, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'rmsnorm: enablePdl is', String(value), 'true or false');
    }
  });
});

describe('Checker.options', () => {
  it('refuses names it does not know', () => {
    check().options({}, ['eps']).options({ eps: undefined }, ['eps', 'out']);
    const wrongCase = (): unknown => check().options({ EPS: 1 }, ['eps', 'out']);
    expectThrows(
      wrongCase,
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'option EPS is unknown',
      'any of eps, out',
      'did you mean eps?',
    );
    const unknown = (): unknown => check().options({ epsilon: 1 }, ['eps']);
    expectThrows(unknown, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'option epsilon is unknown', 'check its name');
  });
});
