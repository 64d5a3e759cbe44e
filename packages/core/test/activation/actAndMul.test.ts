// SPDX-License-Identifier: Apache-2.0
// Gated activations against the float64 reference, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import { geluAndMul, geluTanhAndMul, siluAndMul, type Tensor, tensor, zeros } from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { onCuda, testDevice } from '../device.ts';
import { describeOnEachIsa } from '../isas.ts';
import { actAndMulReference, type activationReferences } from '../reference/activation.ts';
import { gridCases } from '../reference/pairwise.ts';
import { expectRounded } from '../reference/rounding.ts';
import { expectPaddingKept, expectSameValues, held, poisonedRows, randomRows } from '../rows.ts';
import { expectThrows } from '../thrownBy.ts';

const operators = { silu: siluAndMul, gelu: geluAndMul, geluTanh: geluTanhAndMul };
type Name = keyof typeof activationReferences;

/** float32 exponents of e^-x err by 2^-24 |x|, which counts where the result is tiny. */
function expectActivation(out: Tensor, name: Name, x: ArrayLike<number>, label: string): void {
  const reference = actAndMulReference(name, x, out.shape.at(-1)!);
  expectRounded(held(out), reference, out.dtype, { relative: 2e-5, absolute: () => 1e-30 }, label);
}

describeOnEachIsa('gated activations', () => {
  const grid = gridCases({
    name: ['silu', 'gelu', 'geluTanh'] as const,
    shape: [[1, 2], [3, 128], [5, 222], [2, 3, 1000], [34_000], [2, 2, 2, 24], [7, 4100], [700, 16]],
    dtype: ['float16', 'bfloat16', 'float32'] as const,
    padding: [0, 1, 4, 8],
    outPadding: [0, 3, 8],
    scale: [1, 6],
  });
  for (const { name, shape, dtype, padding, outPadding, scale } of grid) {
    it(JSON.stringify({ name, shape, dtype, padding, outPadding, scale }), () => {
      const x = randomRows(shape, dtype, 0, { padding, scale });
      const out = poisonedRows(shape.with(-1, shape.at(-1)! / 2), dtype, outPadding);
      expect(operators[name](x.tensor, { out: out.tensor })).toBe(out.tensor);
      expectActivation(out.tensor, name, held(x.tensor), name);
      expectPaddingKept(out);
    });
  }

  it.each(Object.entries(operators))('%s keeps its shape from one end of the range to the other', (name, operator) => {
    const gates = Float32Array.from({ length: 4096 }, (_, i) => (i - 2048) / 64);
    const x = tensor([...gates, ...gates.map(() => 1)], { shape: [1, 8192], dtype: 'float32', device: testDevice });
    expectActivation(operator(x), name as Name, held(x), name);
  });

  it.each(Object.entries(operators))('%s of what is not finite', (_, operator) => {
    const x = tensor([Infinity, -1e30, Number.NaN, 1e30, 1, 1, 1, 1], {
      shape: [1, 8],
      dtype: 'float32',
      device: testDevice,
    });
    const [infinite, negative, nan, large] = held(operator(x));
    expect([infinite, Math.abs(negative!), nan, large]).toEqual([Infinity, 0, Number.NaN, Math.fround(1e30)]);
  });

  it('makes an output, and overwrites either half of x', () => {
    for (const half of [0, 1]) {
      const { tensor: x } = randomRows([5, 96], 'bfloat16', 1, { padding: 4 });
      const values = held(x);
      const out = siluAndMul(x);
      expect([out.dtype, out.device, [...out.shape], out.isContiguous]).toEqual([
        'bfloat16',
        testDevice,
        [5, 48],
        true,
      ]);
      expectActivation(out, 'silu', values, 'silu');
      expectSameValues(x, values);
      siluAndMul(x, { out: x.slice(1, half * 48, half * 48 + 48) });
      expectSameValues(x.slice(1, half * 48, half * 48 + 48), held(out));
      const kept = values.filter((_, i) => Math.floor((i % 96) / 48) !== half);
      expectSameValues(x.slice(1, 48 - half * 48, 96 - half * 48), kept);
    }
  });

  it('gives the same bits with and without dependent launches', () => {
    const { tensor: x } = randomRows([64, 2048], 'float16', 1);
    const first = held(geluAndMul(x));
    for (const enablePdl of [true, false]) expectSameValues(geluAndMul(x, { enablePdl }), first);
  });

  it('does nothing for no rows or columns', () => {
    for (const shape of [
      [0, 64],
      [3, 0],
      [2, 0, 64],
    ]) {
      expect(siluAndMul(zeros(shape, { device: testDevice })).shape).toEqual(shape.with(-1, shape.at(-1)! / 2));
    }
  });
});

describe.each(Object.entries({ siluAndMul, geluAndMul, geluTanhAndMul }))('%s refuses', (name, operator) => {
  const make = (shape: readonly number[], dtype: DType = 'float16'): Tensor =>
    zeros(shape, { dtype, device: testDevice });
  const refuses = (
    x: Tensor,
    options: Record<string, unknown>,
    code: Parameters<typeof expectThrows>[1],
    ...words: string[]
  ): void => expectThrows(() => operator(x, options), code, `${name}: `, ...words);

  it('what is no tensor, or disposed', () => {
    refuses(undefined as never, {}, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'x is undefined', 'expected a Tensor');
    const x = make([2, 8]);
    x.dispose();
    refuses(x, {}, 'ERR_FLASHINFER_DISPOSED', 'x (float16[2, 8]');
    refuses(make([2, 8]), { out: x }, 'ERR_FLASHINFER_DISPOSED', 'out (float16[2, 8]');
  });

  it('wrong shapes and dtypes', () => {
    refuses(make([]), {}, 'ERR_FLASHINFER_INVALID_RANK', 'x has rank 0');
    refuses(make([2, 7]), {}, 'ERR_FLASHINFER_INVALID_SHAPE', 'x has shape [2, 7]', '[..., 2d]', 'even');
    refuses(
      make([2, 8], 'int32'),
      {},
      'ERR_FLASHINFER_INVALID_DTYPE',
      'x has dtype int32',
      'float16 or bfloat16 or float32',
    );
    refuses(make([2, 8]), { out: make([2, 8]) }, 'ERR_FLASHINFER_INVALID_SHAPE', 'out has 8', 'expected 4');
    refuses(make([2, 8]), { out: make([8]) }, 'ERR_FLASHINFER_INVALID_RANK', 'out has rank 1');
    refuses(
      make([2, 8]),
      { out: make([2, 4], 'float32') },
      'ERR_FLASHINFER_INVALID_DTYPE',
      'out has dtype float32',
      'float16',
    );
  });

  it('strides without one distance between rows', () => {
    refuses(make([8, 2]).transpose(0, 1), {}, 'ERR_FLASHINFER_NON_CONTIGUOUS', 'x has strides', 'x.contiguous()');
    refuses(
      make([4, 3, 8]).slice(1, 0, 2),
      {},
      'ERR_FLASHINFER_NON_CONTIGUOUS',
      'x has strides [24, 8, 1]',
      'one distance',
    );
    const out = make([4, 3, 4]).slice(1, 0, 2);
    refuses(
      make([4, 2, 8]),
      { out },
      'ERR_FLASHINFER_NON_CONTIGUOUS',
      'out has strides [12, 4, 1]',
      'out.contiguous()',
    );
  });

  it('an out that is partly x', () => {
    const x = make([3, 8]);
    refuses(x, { out: x.slice(1, 2, 6) }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'out and a half of x overlap');
  });

  it('wrong options', () => {
    refuses(
      make([2, 8]),
      { enablePdl: 'yes' },
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      "enablePdl is 'yes'",
      'true or false',
    );
    refuses(make([2, 8]), { outs: 1 }, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'option outs is unknown', 'out, enablePdl');
  });

  it.runIf(onCuda)('tensors of several devices (needs FLASHINFER_TEST_DEVICE=cuda:0)', () => {
    const out = zeros([2, 4], { dtype: 'float16', device: 'cpu' });
    refuses(make([2, 8]), { out }, 'ERR_FLASHINFER_DEVICE_MISMATCH', 'out is on cpu', testDevice);
  });
});
