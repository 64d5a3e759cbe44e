// SPDX-License-Identifier: Apache-2.0
// Norms against the float64 reference, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import {
  fusedAddRmsnorm,
  fusedAddRmsnormQuant,
  gemmaFusedAddRmsnorm,
  gemmaRmsnorm,
  layernorm,
  layernormQuant,
  randn,
  rmsnorm,
  rmsnormQuant,
  setNumThreads,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.ts';
import { native } from '../../src/native/load.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { testDevice } from '../device.ts';
import { describeOnEachIsa } from '../isas.ts';
import { type NormReferenceOptions, normReference } from '../reference/norm.ts';
import { gridCases } from '../reference/pairwise.ts';
import { expectRounded } from '../reference/rounding.ts';
import { expectPaddingKept, expectSameValues, held, type PaddedTensor, poisonedRows, randomRows } from '../rows.ts';

const floats = ['float16', 'bfloat16', 'float32'] as const;

interface Case {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly padding: number;
  readonly eps: number | undefined;
}

const label = (c: Case & { [key: string]: unknown }): string => JSON.stringify(c);

/** 1 and odd lengths, lengths around a warp's and a block's share, and the longest. */
const cases = gridCases({
  shape: [
    [1, 1],
    [3, 4096],
    [19, 111],
    [5, 7, 64],
    [7, 500],
    [2, 8192],
    [4, 3, 96],
    [33, 1000],
    [2, 32768],
    [1, 32767],
  ],
  dtype: floats,
  padding: [0, 1, 4, 8],
  eps: [undefined, 1e-5, 0.5],
});

function weightOf(shape: readonly number[], dtype: DType, stream = 2): Tensor {
  return randomRows([shape[shape.length - 1]!], dtype, stream).tensor;
}

/** Values of very different rows: a mistake in one must not hide behind the others. */
function input({ shape, dtype, padding }: Case, stream = 0): PaddedTensor {
  return randomRows(shape, dtype, stream, { padding, scale: 3 });
}

function expectNorm(
  out: Tensor,
  x: ArrayLike<number>,
  weight: Tensor,
  options: NormReferenceOptions,
  name: string,
): void {
  const reference = normReference(x, held(weight), options);
  expectRounded(held(out), reference, out.dtype, {}, name);
}

describeOnEachIsa('rmsnorm', () => {
  for (const c of cases) {
    const { shape, dtype, padding, eps } = c;
    it.each([
      ['rmsnorm', rmsnorm, 0],
      ['gemmaRmsnorm', gemmaRmsnorm, 1],
    ] as const)(`%s ${label(c)}`, (name, operator, weightOffset) => {
      const x = input(c);
      const weight = weightOf(shape, dtype);
      const out = poisonedRows(shape, dtype, padding);
      expect(operator(x.tensor, weight, { eps, out: out.tensor })).toBe(out.tensor);
      expectNorm(out.tensor, held(x.tensor), weight, { eps: eps ?? 1e-6, weightOffset }, name);
      expectPaddingKept(out);
    });
  }

  it('makes an output, and works in place', () => {
    const x = input({ shape: [6, 520], dtype: 'float16', padding: 8, eps: undefined });
    const values = held(x.tensor);
    const weight = weightOf([520], 'float16');
    const out = rmsnorm(x.tensor, weight);
    expect([out.dtype, out.device, [...out.shape], out.isContiguous]).toEqual(['float16', testDevice, [6, 520], true]);
    expectNorm(out, values, weight, { eps: 1e-6 }, 'out');
    expectSameValues(x.tensor, values);
    expect(rmsnorm(x.tensor, weight, { out: x.tensor })).toBe(x.tensor);
    expectSameValues(x.tensor, held(out));
    expectPaddingKept(x);
  });

  it('takes column ranges of one buffer as x and out', () => {
    const both = randomRows([9, 128], 'bfloat16', 1).tensor;
    const [x, out] = [both.slice(1, 0, 64), both.slice(1, 64, 128)];
    const weight = weightOf([64], 'bfloat16');
    const values = held(x);
    rmsnorm(x, weight, { out });
    expectNorm(out, values, weight, { eps: 1e-6 }, 'out');
    expectSameValues(x, values);
  });

  it.each([
    [4, 6, 64],
    [3, 2, 4096],
    [3, 60, 2048],
  ])('takes heads in any order: %i, %i of %i', (numHeads, numTokens, length) => {
    const x = randomRows([numHeads, numTokens, length], 'bfloat16', 1).tensor.transpose(0, 1);
    const weight = weightOf([length], 'bfloat16');
    expectNorm(rmsnorm(x, weight), held(x), weight, { eps: 1e-6 }, 'out');
  });

  it('normalises more rows than run at once', () => {
    const x = randomRows([40_000, 16], 'float16', 1).tensor;
    const weight = weightOf([16], 'float16');
    expectNorm(rmsnorm(x, weight), held(x), weight, { eps: 1e-6 }, 'out');
  });

  it('gives eps its effect on rows of zeros and tiny values', () => {
    const x = tensor([0, 0, 1e-4, -1e-4], { shape: [2, 2], dtype: 'float32', device: testDevice });
    const weight = tensor([1, 2], { dtype: 'float32', device: testDevice });
    const out = rmsnorm(x, weight, { eps: 1e-8 });
    expectNorm(out, held(x), weight, { eps: 1e-8 }, 'out');
    expect([...held(rmsnorm(x, weight, { eps: 0 }))].map(Number.isNaN)).toEqual([true, true, false, false]);
  });

  it('keeps NaN in its row', () => {
    const x = randomRows([3, 40], 'float16', 1).tensor;
    x.slice(0, 1, 2)
      .slice(1, 7, 8)
      .copy_(tensor([Number.NaN], { shape: [1, 1], dtype: 'float16', device: testDevice }));
    const rows = held(rmsnorm(x, weightOf([40], 'float16')));
    expect([...rows].map(Number.isNaN)).toEqual(Array.from(rows, (_, i) => i >= 40 && i < 80));
  });

  it('does nothing for no rows', () => {
    const out = rmsnorm(zeros([0, 64], { device: testDevice }), zeros([64], { device: testDevice }));
    expect(out.shape).toEqual([0, 64]);
  });

  it('gives the same bits with and without dependent launches, and on every call', () => {
    const x = randomRows([64, 4096], 'bfloat16', 1).tensor;
    const weight = weightOf([4096], 'bfloat16');
    const first = held(rmsnorm(x, weight));
    for (const enablePdl of [true, false]) expectSameValues(rmsnorm(x, weight, { enablePdl }), first);
  });
});

describeOnEachIsa('fusedAddRmsnorm', () => {
  for (const c of cases) {
    const { shape, dtype, eps } = c;
    it.each([
      ['fusedAddRmsnorm', fusedAddRmsnorm, 0],
      ['gemmaFusedAddRmsnorm', gemmaFusedAddRmsnorm, 1],
    ] as const)(`%s ${label(c)}`, (_, operator, weightOffset) => {
      const [x, residual] = [input(c, 0), input(c, 1)];
      const weight = weightOf(shape, dtype);
      const added = held(residual.tensor);
      const sum = held(x.tensor).map((value, i) => value + added[i]!);
      expect(operator(x.tensor, residual.tensor, weight, { eps })).toBeUndefined();
      // Addends that nearly cancel leave the error of the float32 addition only.
      expectRounded(held(residual.tensor), sum, dtype, { relative: 2 ** -23 }, 'residual');
      expectNorm(x.tensor, sum, weight, { eps: eps ?? 1e-6, weightOffset }, 'x');
      expectPaddingKept(x);
      expectPaddingKept(residual);
    });
  }
});

// More rows than multiprocessors are spread over threads in another way.
describeOnEachIsa('many rows', () => {
  it.each([
    [150, 4096],
    [150, 5000],
    [150, 8192],
    [60, 3, 8192],
  ])('of %i, %i, %i', (...shape) => {
    const c: Case = { shape, dtype: 'bfloat16', padding: 8, eps: undefined };
    const [x, residual] = [input(c, 0), input(c, 1)];
    const weight = weightOf(shape, 'bfloat16');
    expectNorm(rmsnorm(x.tensor, weight), held(x.tensor), weight, { eps: 1e-6 }, 'rmsnorm');
    const added = held(residual.tensor);
    const sum = held(x.tensor).map((value, i) => value + added[i]!);
    fusedAddRmsnorm(x.tensor, residual.tensor, weight);
    expectRounded(held(residual.tensor), sum, 'bfloat16', { relative: 2 ** -23 }, 'residual');
    expectNorm(x.tensor, sum, weight, { eps: 1e-6 }, 'x');
    expectPaddingKept(x);
    expectPaddingKept(residual);
  });
});

// With more rows than run at once, blocks ask for later ones; calls for parts of them do the same work without.
describe('more rows than run at once', () => {
  it.each([
    [[529, 8192], 'bfloat16', 0],
    [[1000, 8192], 'float16', 8],
    [[533, 8192], 'bfloat16', 4],
    [[1100, 5000], 'bfloat16', 8],
    [[2200, 2056], 'bfloat16', 0],
    [[700, 3000], 'float32', 4],
    [[300, 2, 8192], 'bfloat16', 8],
  ] as const)('have the bits of parts: %s %s, padding %i', (shape, dtype, padding) => {
    const [tokens, length] = [shape[0], shape[shape.length - 1]!];
    const padded = [...shape.slice(0, -1), length + padding];
    const draw = (seed: number): Tensor => randn(padded, { dtype, device: testDevice, seed }).slice(-1, 0, length);
    const weight = weightOf(shape, dtype);
    const gamma = weightOf(shape, 'float32');
    // Of more rows than multiprocessors, so that they are spread over threads in the same way.
    const parts = Math.floor(tokens / 150);
    const norms = {
      rmsnorm: (x: Tensor) => rmsnorm(x, weight, { out: x }),
      layernorm: (x: Tensor) => layernorm(x, gamma, gamma, { out: x }),
      fusedAddRmsnorm: (x: Tensor, residual: Tensor) => fusedAddRmsnorm(x, residual, weight),
    };
    for (const norm of Object.values(norms)) {
      const [x, residual, partsOfX, partsOfResidual] = [draw(1), draw(2), draw(1), draw(2)];
      norm(x, residual);
      for (let part = 0; part < parts; part++) {
        const [start, end] = [part, part + 1].map((n) => Math.floor((tokens * n) / parts)) as [number, number];
        norm(partsOfX.slice(0, start, end), partsOfResidual.slice(0, start, end));
      }
      expectSameValues(partsOfX, held(x));
      expectSameValues(partsOfResidual, held(residual));
    }
  });
});

describeOnEachIsa('layernorm', () => {
  for (const c of cases) {
    const { shape, dtype, padding, eps } = c;
    it(label(c), () => {
      const x = input(c);
      const [gamma, beta] = [weightOf(shape, 'float32', 2), weightOf(shape, 'float32', 3)];
      const out = poisonedRows(shape, dtype, padding);
      expect(layernorm(x.tensor, gamma, beta, { eps, out: out.tensor })).toBe(out.tensor);
      const bias = held(beta);
      const reference = normReference(held(x.tensor), held(gamma), { eps: eps ?? 1e-6, centered: true, bias });
      // x - mean is off by the rounding of float32 values near 10, and may cancel with the bias.
      expectRounded(held(out.tensor), reference, dtype, { absolute: () => 2e-5 }, 'out');
      expectPaddingKept(out);
    });
  }

  it('stays accurate under a large mean', () => {
    const { tensor: x } = randomRows([4, 2048], 'float32', 1);
    const shifted = tensor(held(x).map((value) => value + 1000) as unknown as number[], {
      shape: [4, 2048],
      dtype: 'float32',
      device: testDevice,
    });
    const [gamma, beta] = [weightOf([2048], 'float32', 2), weightOf([2048], 'float32', 3)];
    const reference = normReference(held(shifted), held(gamma), { eps: 1e-6, centered: true, bias: held(beta) });
    expectRounded(held(layernorm(shifted, gamma, beta)), reference, 'float32', { absolute: () => 1e-3 });
  });
});

describeOnEachIsa('norms to fp8', () => {
  const grid = gridCases({
    shape: [
      [3, 4096],
      [19, 111],
      [5, 7, 64],
      [1, 1],
    ],
    dtype: floats,
    outDtype: ['float8_e4m3fn', 'float8_e5m2'] as const,
    padding: [0, 1, 8],
    scale: [0.01, 1, 10],
    scaleIsTensor: [false, true],
    add: [false, true],
  });
  for (const c of grid) {
    const { shape, dtype, outDtype, padding, scale, scaleIsTensor, add } = c;
    it(JSON.stringify(c), () => {
      const [x, residual] = [0, 1].map((stream) => randomRows(shape, dtype, stream, { padding }).tensor) as [
        Tensor,
        Tensor,
      ];
      const weight = weightOf(shape, dtype);
      const out = poisonedRows(shape, outDtype, padding);
      const given = scaleIsTensor ? tensor([scale], { dtype: 'float32', device: testDevice }) : scale;
      const values = held(x);
      const added = held(residual);
      const sum = values.map((value, i) => value + (add ? added[i]! : 0));
      const result = add
        ? fusedAddRmsnormQuant(out.tensor, x, residual, weight, given)
        : rmsnormQuant(out.tensor, x, weight, given);
      expect(result).toBe(out.tensor);
      const max = outDtype === 'float8_e4m3fn' ? 448 : 57344;
      const reference = normReference(sum, held(weight), { eps: 1e-6 }).map((value) =>
        Math.max(-max, Math.min(max, value / scale)),
      );
      expectRounded(held(out.tensor), reference, outDtype);
      expectSameValues(x, values);
      if (add) expectRounded(held(residual), sum, dtype, { relative: 2 ** -23 }, 'residual');
      expectPaddingKept(out);
    });
  }

  const layerGrid = gridCases({
    shape: [
      [3, 4096],
      [19, 111],
      [5, 7, 64],
      [2, 32767],
    ],
    dtype: floats,
    outDtype: ['float8_e4m3fn', 'float8_e5m2'] as const,
    padding: [0, 1, 8],
    scale: [0.01, 1, 10],
    scaleIsTensor: [false, true],
    eps: [undefined, 0.5],
  });
  for (const c of layerGrid) {
    const { shape, dtype, outDtype, padding, scale, scaleIsTensor, eps } = c;
    it(`layernormQuant ${JSON.stringify(c)}`, () => {
      const { tensor: x } = randomRows(shape, dtype, 0, { padding, scale: 3 });
      const [gamma, beta] = [weightOf(shape, 'float32', 2), weightOf(shape, 'float32', 3)];
      const out = poisonedRows(shape, outDtype, padding);
      const given = scaleIsTensor ? tensor([scale], { dtype: 'float32', device: testDevice }) : scale;
      const values = held(x);
      expect(layernormQuant(out.tensor, x, gamma, beta, given, { eps })).toBe(out.tensor);
      const max = outDtype === 'float8_e4m3fn' ? 448 : 57344;
      const options = { eps: eps ?? 1e-6, centered: true, bias: held(beta) };
      const reference = normReference(values, held(gamma), options).map((value) =>
        Math.max(-max, Math.min(max, value / scale)),
      );
      // As of layernorm's float32 values, which the scale divides.
      expectRounded(held(out.tensor), reference, outDtype, { absolute: () => 2e-5 / scale });
      expectSameValues(x, values);
      expectPaddingKept(out);
    });
  }

  it('saturates layernorm, keeps NaN in its row, and does nothing for no rows', () => {
    const x = tensor([1, -1, 1, Number.NaN, 2, 2], { shape: [3, 2], dtype: 'float32', device: testDevice });
    const [gamma, beta] = [
      [1, 1],
      [0, -1],
    ].map((values) => tensor(values, { dtype: 'float32', device: testDevice }));
    for (const [dtype, max] of [
      ['float8_e4m3fn', 448],
      ['float8_e5m2', 57344],
    ] as const) {
      const out = zeros([3, 2], { dtype, device: testDevice });
      layernormQuant(out, x, gamma!, beta!, 1e-9);
      expect([...held(out)]).toEqual([max, -max, Number.NaN, Number.NaN, 0, -max]);
      const none = out.slice(0, 0, 0);
      expect(layernormQuant(none, x.slice(0, 0, 0), gamma!, beta!, 1)).toBe(none);
    }
  });

  it('saturates, and keeps NaN', () => {
    const x = tensor([1, -1, 1, Number.NaN], { shape: [2, 2], dtype: 'float32', device: testDevice });
    const weight = tensor([1, 1], { dtype: 'float32', device: testDevice });
    for (const [dtype, max] of [
      ['float8_e4m3fn', 448],
      ['float8_e5m2', 57344],
    ] as const) {
      const out = zeros([2, 2], { dtype, device: testDevice });
      rmsnormQuant(out, x, weight, 1e-9);
      expect([...held(out)]).toEqual([max, -max, Number.NaN, Number.NaN]);
    }
  });
});

it.runIf(testDevice === 'cpu')('gives the same bits whatever threads there are', () => {
  const x = randomRows([300, 1000], 'bfloat16', 1).tensor;
  const weight = weightOf([1000], 'bfloat16');
  const { numThreads } = native().cpu.info();
  const many = held(rmsnorm(x, weight));
  setNumThreads(1);
  expectSameValues(rmsnorm(x, weight), many);
  setNumThreads(numThreads);
});
