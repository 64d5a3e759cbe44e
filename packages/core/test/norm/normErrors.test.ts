// SPDX-License-Identifier: Apache-2.0
// What the norms refuse, with which code and words.
import { describe, expect, it } from 'vitest';
import {
  fusedAddRmsnorm,
  fusedAddRmsnormQuant,
  gemmaFusedAddRmsnorm,
  gemmaRmsnorm,
  layernorm,
  layernormQuant,
  rmsnorm,
  rmsnormQuant,
  type Tensor,
  zeros,
} from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { onCuda, testDevice } from '../device.ts';
import { poisonedRows } from '../rows.ts';
import { expectThrows } from '../thrownBy.ts';

const make = (shape: readonly number[], dtype: DType = 'float16', device: string = testDevice): Tensor =>
  zeros(shape, { dtype, device: device as typeof testDevice });

interface Arguments {
  x: Tensor;
  residual: Tensor;
  weight: Tensor;
  beta: Tensor;
  /** Of the fp8 operators. */
  out: Tensor;
  scale: Tensor | number;
  options: Record<string, unknown>;
}

type Call = (a: Arguments) => unknown;

const calls: Record<string, { call: Call; weightDtype: DType; takesOut: boolean }> = {
  rmsnorm: { call: (a) => rmsnorm(a.x, a.weight, a.options), weightDtype: 'float16', takesOut: true },
  gemmaRmsnorm: { call: (a) => gemmaRmsnorm(a.x, a.weight, a.options), weightDtype: 'float16', takesOut: true },
  layernorm: { call: (a) => layernorm(a.x, a.weight, a.beta, a.options), weightDtype: 'float32', takesOut: true },
  fusedAddRmsnorm: {
    call: (a) => fusedAddRmsnorm(a.x, a.residual, a.weight, a.options),
    weightDtype: 'float16',
    takesOut: false,
  },
  gemmaFusedAddRmsnorm: {
    call: (a) => gemmaFusedAddRmsnorm(a.x, a.residual, a.weight, a.options),
    weightDtype: 'float16',
    takesOut: false,
  },
  rmsnormQuant: {
    call: (a) => rmsnormQuant(a.out, a.x, a.weight, a.scale, a.options),
    weightDtype: 'float16',
    takesOut: false,
  },
  layernormQuant: {
    call: (a) => layernormQuant(a.out, a.x, a.weight, a.beta, a.scale, a.options),
    weightDtype: 'float32',
    takesOut: false,
  },
  fusedAddRmsnormQuant: {
    call: (a) => fusedAddRmsnormQuant(a.out, a.x, a.residual, a.weight, a.scale, a.options),
    weightDtype: 'float16',
    takesOut: false,
  },
};

function argumentsOf(weightDtype: DType): Arguments {
  return {
    x: make([3, 64]),
    residual: make([3, 64]),
    weight: make([64], weightDtype),
    beta: make([64], 'float32'),
    out: make([3, 64], 'float8_e4m3fn'),
    scale: 1,
    options: {},
  };
}

function disposed(shape: readonly number[], dtype: DType = 'float16'): Tensor {
  const x = make(shape, dtype);
  x.dispose();
  return x;
}

/** Stride 2 along the last dimension. */
const strided = (shape: readonly number[]): Tensor =>
  make([...shape.slice(0, -1), 2, shape.at(-1)!].toSpliced(-2, 2, shape.at(-1)!, 2)).select(-1, 0);

describe.each(Object.entries(calls))('%s refuses', (name, { call, weightDtype, takesOut }) => {
  const refuses = (change: Partial<Arguments>, code: Parameters<typeof expectThrows>[1], ...words: string[]): void =>
    expectThrows(() => call({ ...argumentsOf(weightDtype), ...change }), code, `${name}: `, ...words);
  const fused = name.startsWith('fused') || name.startsWith('gemmaFused');
  const quantizes = name.endsWith('Quant');
  const layer = name.startsWith('layernorm');
  const weightName = layer ? 'gamma' : 'weight';

  it('a wrong rank', () => {
    const words = ['x has rank', 'expected rank 2, [numTokens, length], or 3, [numTokens, numHeads, length]', 'view()'];
    refuses({ x: make([64]) }, 'ERR_FLASHINFER_INVALID_RANK', '1', ...words);
    refuses({ x: make([1, 3, 1, 64]) }, 'ERR_FLASHINFER_INVALID_RANK', '4', ...words);
    refuses({ weight: make([1, 64], weightDtype) }, 'ERR_FLASHINFER_INVALID_RANK', weightName, '[length]');
    if (fused) refuses({ residual: make([3, 1, 64]) }, 'ERR_FLASHINFER_INVALID_RANK', 'residual');
    if (quantizes) refuses({ out: make([192], 'float8_e4m3fn') }, 'ERR_FLASHINFER_INVALID_RANK', 'out');
  });

  it('wrong shapes', () => {
    refuses(
      { weight: make([63], weightDtype) },
      'ERR_FLASHINFER_INVALID_SHAPE',
      `${weightName} has length=63`,
      'length=64 as in x',
    );
    refuses({ x: make([3, 0]) }, 'ERR_FLASHINFER_INVALID_SHAPE', 'x has length=0', '1 to 32768');
    refuses({ x: make([1, 32769]) }, 'ERR_FLASHINFER_INVALID_SHAPE', 'x has length=32769', '1 to 32768');
    if (fused)
      refuses({ residual: make([2, 64]) }, 'ERR_FLASHINFER_INVALID_SHAPE', 'residual has numTokens=2', 'numTokens=3');
    if (quantizes)
      refuses({ out: make([3, 32], 'float8_e4m3fn') }, 'ERR_FLASHINFER_INVALID_SHAPE', 'out has length=32');
    if (layer) refuses({ beta: make([32], 'float32') }, 'ERR_FLASHINFER_INVALID_SHAPE', 'beta has length=32');
  });

  it('wrong dtypes', () => {
    refuses(
      { x: make([3, 64], 'int32') },
      'ERR_FLASHINFER_INVALID_DTYPE',
      'x has dtype int32',
      'float16 or bfloat16 or float32',
    );
    refuses({ x: make([3, 64], 'float8_e4m3fn') }, 'ERR_FLASHINFER_INVALID_DTYPE', 'x has dtype float8_e4m3fn');
    refuses(
      { weight: make([64], 'bfloat16') },
      'ERR_FLASHINFER_INVALID_DTYPE',
      `${weightName} has dtype bfloat16`,
      `expected ${weightDtype}`,
    );
    if (fused)
      refuses(
        { residual: make([3, 64], 'float32') },
        'ERR_FLASHINFER_INVALID_DTYPE',
        'residual has dtype float32',
        'float16',
      );
    if (quantizes)
      refuses(
        { out: make([3, 64], 'float16') },
        'ERR_FLASHINFER_INVALID_DTYPE',
        'out has dtype float16',
        'float8_e4m3fn or float8_e5m2',
      );
    if (layer)
      refuses({ beta: make([64], 'float16') }, 'ERR_FLASHINFER_INVALID_DTYPE', 'beta has dtype float16', 'float32');
  });

  it('strided rows', () => {
    refuses({ x: strided([3, 64]) }, 'ERR_FLASHINFER_NON_CONTIGUOUS', 'x has strides', 'x.contiguous()');
    if (fused) refuses({ residual: strided([3, 64]) }, 'ERR_FLASHINFER_NON_CONTIGUOUS', 'residual has strides');
  });

  it('disposed tensors', () => {
    refuses({ x: disposed([3, 64]) }, 'ERR_FLASHINFER_DISPOSED', 'x (float16[3, 64]');
    refuses({ x: disposed([64]) }, 'ERR_FLASHINFER_DISPOSED', 'x (float16[64]');
    refuses({ weight: disposed([64], weightDtype) }, 'ERR_FLASHINFER_DISPOSED', `${weightName} (`);
    if (fused) refuses({ residual: disposed([3, 64]) }, 'ERR_FLASHINFER_DISPOSED', 'residual (');
  });

  it('what is no tensor', () => {
    refuses({ x: undefined as never }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'x is undefined', 'expected a Tensor');
    refuses({ weight: [1] as never }, 'ERR_FLASHINFER_INVALID_ARGUMENT', `${weightName} is [1]`);
  });

  it.each([Number.NaN, -1, Infinity, '1e-6'])('eps %s', (eps) => {
    refuses({ options: { eps } }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'eps is', String(eps), 'a finite number >= 0');
  });

  it('wrong options', () => {
    refuses({ options: { enablePdl: 1 } }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'enablePdl is 1', 'true or false');
    refuses({ options: { EPS: 1 } }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'option EPS is unknown', 'did you mean eps?');
    if (!takesOut)
      refuses({ options: { out: make([3, 64]) } }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'option out is unknown');
  });

  if (takesOut)
    it('an out that does not fit', () => {
      refuses({ options: { out: make([3, 32]) } }, 'ERR_FLASHINFER_INVALID_SHAPE', 'out has length=32');
      refuses({ options: { out: make([3, 64], 'float32') } }, 'ERR_FLASHINFER_INVALID_DTYPE', 'out has dtype float32');
      refuses({ options: { out: strided([3, 64]) } }, 'ERR_FLASHINFER_NON_CONTIGUOUS', 'out has strides');
      const buffer = make([5, 64]);
      const overlapping = { x: buffer.slice(0, 0, 3), options: { out: buffer.slice(0, 2, 5) } };
      refuses(overlapping, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'out and x overlap', 'x itself or separate');
    });

  if (fused)
    it('x and residual in the same memory', () => {
      const x = make([3, 64]);
      refuses({ x, residual: x }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'x and residual overlap');
    });

  if (quantizes)
    it('a wrong scale', () => {
      for (const scale of [0, -1, Number.NaN, Infinity, '1' as never]) {
        refuses({ scale }, 'ERR_FLASHINFER_INVALID_SCALE', 'scale is', String(scale), 'finite number above 0', '448');
      }
      refuses({ scale: make([1], 'float16') }, 'ERR_FLASHINFER_INVALID_DTYPE', 'scale has dtype float16', 'float32');
      refuses({ scale: make([2], 'float32') }, 'ERR_FLASHINFER_INVALID_SHAPE', 'scale has 2');
    });

  it.runIf(onCuda)('tensors of several devices (needs FLASHINFER_TEST_DEVICE=cuda:0)', () => {
    const weight = make([64], weightDtype, 'cpu');
    refuses({ weight }, 'ERR_FLASHINFER_DEVICE_MISMATCH', `${weightName} is on cpu`, testDevice);
  });

  if (takesOut)
    it('and leaves out untouched', () => {
      const { tensor: out } = poisonedRows([3, 64], 'float16', 0);
      refuses({ weight: make([1], weightDtype), options: { out } }, 'ERR_FLASHINFER_INVALID_SHAPE');
      expect([...out.toArraySync()].every((value) => Number.isNaN(Number(value)))).toBe(true);
    });
});
