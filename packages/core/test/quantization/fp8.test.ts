// SPDX-License-Identifier: Apache-2.0
// Quantisation to fp8 and back against the definition, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import {
  cuda,
  dequantizeFp8,
  full,
  ones,
  quantizeFp8PerBlock,
  quantizeFp8PerTensor,
  quantizeFp8PerToken,
  randn,
  type Tensor,
  tensor,
  zeros,
} from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { onCuda, testDevice } from '../device.ts';
import { describeOnEachIsa } from '../isas.ts';
import { type Fp8Tiling, fp8Scales, tileOf } from '../reference/fp8.ts';
import { gridCases } from '../reference/pairwise.ts';
import { expectPaddingKept, expectSameValues, held, poisonedRows, randomRows } from '../rows.ts';
import { floatFormats, roundFloat } from '../tensor/elementwiseReference.ts';
import { expectThrows } from '../thrownBy.ts';

const floats = ['float16', 'bfloat16', 'float32'] as const;
const fp8Types = ['float8_e4m3fn', 'float8_e5m2'] as const;
type Fp8 = (typeof fp8Types)[number];
const largestOf = { float8_e4m3fn: 448, float8_e5m2: 57344 } as const;
const schemes = ['tensor', 'token', 'group', 'block', 'groupMN', 'blockMN'] as const;
type Scheme = (typeof schemes)[number];

function run(scheme: Scheme, x: Tensor, options: { dtype?: Fp8; scale?: Tensor; out?: Tensor }): [Tensor, Tensor] {
  if (scheme === 'tensor') return quantizeFp8PerTensor(x, options);
  if (scheme === 'token') return quantizeFp8PerToken(x, options);
  const blockShape = scheme.startsWith('group') ? ([1, 128] as const) : ([128, 128] as const);
  return quantizeFp8PerBlock(x, { ...options, blockShape, scaleMajorMode: scheme.endsWith('MN') ? 'MN' : 'K' });
}

function tilingOf(scheme: Scheme, [rows, length]: readonly [number, number]): Fp8Tiling {
  if (scheme === 'tensor') return { rows, length, tileRows: rows, tileLength: length };
  if (scheme === 'token') return { rows, length, tileRows: 1, tileLength: length };
  return { rows, length, tileRows: scheme.startsWith('group') ? 1 : 128, tileLength: 128 };
}

function scaleShape(scheme: Scheme, { rows, length, tileRows, tileLength }: Fp8Tiling): number[] {
  const shape = [Math.ceil(rows / tileRows), Math.ceil(length / tileLength)];
  if (scheme === 'tensor') return [1];
  if (scheme === 'token') return [rows];
  return scheme.endsWith('MN') ? shape.reverse() : shape;
}

/** The scales in the order of tiles, whatever the layout. */
function scalesByTile(scheme: Scheme, scale: Tensor): Float32Array {
  return (scheme.endsWith('MN') ? scale.transpose(0, 1) : scale).toArraySync() as Float32Array;
}

/** What each element must be: the operators multiply by the float32 reciprocal of the scale. */
function quantized(values: Float64Array, scales: Float32Array, tiling: Fp8Tiling, dtype: Fp8): Float64Array {
  const largest = largestOf[dtype];
  return values.map((value, i) => {
    const scale = scales[tileOf(tiling, Math.floor(i / tiling.length), i % tiling.length)]!;
    const scaled = Math.fround(value * Math.fround(1 / scale));
    return roundFloat(Math.max(-largest, Math.min(largest, scaled)), floatFormats[dtype]);
  });
}

function dequantized(q: Float64Array, scales: Float32Array, tiling: Fp8Tiling, dtype: DType): Float64Array {
  return q.map((value, i) => {
    const scale = scales[tileOf(tiling, Math.floor(i / tiling.length), i % tiling.length)]!;
    return roundFloat(Math.fround(value * scale), floatFormats[dtype as 'float16']);
  });
}

describeOnEachIsa('fp8', () => {
  const cases = gridCases({
    scheme: schemes,
    shape: [
      [1, 1],
      [3, 128],
      [130, 256],
      [5, 300],
      [7, 111],
      [257, 1024],
      [2, 4096],
      [1, 20_000],
    ] as [number, number][],
    dtype: floats,
    outDtype: fp8Types,
    padding: [0, 1, 8, 16],
    given: [false, true],
    scale: [1e-3, 1, 300],
  });
  for (const { scheme, shape, dtype, outDtype, padding, given, scale } of cases) {
    it(JSON.stringify({ scheme, shape, dtype, outDtype, padding, given, scale }), () => {
      const tiling = tilingOf(scheme, shape);
      const x = randomRows(shape, dtype, 0, { padding, scale }).tensor;
      const values = held(x);
      const out = poisonedRows(shape, outDtype, padding);
      const expectedShape = scaleShape(scheme, tiling);
      // Given scales make some values saturate.
      const givenScale = given
        ? tensor(
            Float32Array.from({ length: expectedShape.reduce((a, b) => a * b, 1) }, (_, i) => scale / (100 + i)),
            { shape: expectedShape, device: testDevice },
          )
        : undefined;
      const [q, scales] = run(scheme, x, { scale: givenScale, out: out.tensor });
      expect(q).toBe(out.tensor);
      expect([scales.dtype, scales.device, scales.shape]).toEqual(['float32', testDevice, expectedShape]);
      const used = scalesByTile(scheme, scales);
      if (givenScale !== undefined) expect(scales).toBe(givenScale);
      else expect(used).toEqual(fp8Scales(values, tiling, largestOf[outDtype]));
      expectSameValues(q, quantized(values, used, tiling, outDtype));
      expectPaddingKept(out);

      const mode = scheme.endsWith('MN') ? 'MN' : 'K';
      for (const target of floats) {
        const back = poisonedRows(shape, target, padding);
        expect(dequantizeFp8(q, scales, { out: back.tensor, scaleMajorMode: mode })).toBe(back.tensor);
        expectSameValues(back.tensor, dequantized(held(q), used, tiling, target));
        expectPaddingKept(back);
      }
    });
  }

  it('makes outputs, of any rank', () => {
    const x = randomRows([2, 3, 64], 'bfloat16', 1).tensor;
    const [q, scale] = quantizeFp8PerToken(x);
    expect([q.dtype, q.shape, scale.shape]).toEqual(['float8_e4m3fn', [2, 3, 64], [2, 3]]);
    const [flat, one] = quantizeFp8PerTensor(x.view(384), { dtype: 'float8_e5m2' });
    expect([flat.dtype, flat.shape, one.shape]).toEqual(['float8_e5m2', [384], [1]]);
    expect(dequantizeFp8(q, scale).shape).toEqual([2, 3, 64]);
    expect(dequantizeFp8(flat, one, { dtype: 'float16' }).dtype).toBe('float16');
  });

  it('reads rows longer than registers hold', () => {
    const x = randomRows([2, 150_000], 'float32', 1).tensor;
    const tiling = tilingOf('token', [2, 150_000]);
    const [q, scale] = quantizeFp8PerToken(x);
    const scales = fp8Scales(held(x), tiling, 448);
    expect(scale.toArraySync()).toEqual(scales);
    expectSameValues(q, quantized(held(x), scales, tiling, 'float8_e4m3fn'));
  });

  it('takes a number as the scale of a tensor', () => {
    const x = randomRows([4, 100], 'float16', 1).tensor;
    const [q, scale] = quantizeFp8PerTensor(x, { scale: 0.25 });
    expect(scale.toArraySync()).toEqual(Float32Array.of(0.25));
    expectSameValues(q, quantized(held(x), Float32Array.of(0.25), tilingOf('tensor', [4, 100]), 'float8_e4m3fn'));
  });

  it.each(fp8Types)('leaves infinities and NaN out of the scale of %s: they saturate and stay', (dtype) => {
    const x = tensor([1, Infinity, -Infinity, Number.NaN, -2, 0], {
      shape: [1, 6],
      dtype: 'float32',
      device: testDevice,
    });
    for (const scheme of schemes) {
      const [q, scale] = run(scheme, x, { dtype });
      const largest = largestOf[dtype];
      expect(scale.toArraySync()).toEqual(Float32Array.of(Math.fround(2 / largest)));
      expect([...held(q)]).toEqual([largest / 2, largest, -largest, Number.NaN, -largest, 0]);
    }
  });

  it('gives zeros scale 1, and tiny values a scale with a finite reciprocal', () => {
    for (const scheme of schemes) {
      const [q, scale] = run(scheme, zeros([3, 200], { device: testDevice }), {});
      expect(held(scale).every((value) => value === 1)).toBe(true);
      expect(held(q).every((value) => value === 0)).toBe(true);
      const [tiny, tinyScale] = run(scheme, full([3, 200], 1e-40, { device: testDevice }), {});
      expect(held(tinyScale).every((value) => value === 2 ** -126)).toBe(true);
      expect(held(tiny).every(Number.isFinite)).toBe(true);
    }
  });

  it('does nothing for no elements', () => {
    for (const scheme of schemes) {
      for (const shape of [
        [0, 256],
        [3, 0],
      ] as const) {
        const x = zeros(shape, { dtype: 'bfloat16', device: testDevice });
        const [q, scale] = run(scheme, x, {});
        expect([q.shape, scale.shape.length]).toEqual([shape, scheme === 'tensor' || scheme === 'token' ? 1 : 2]);
        if (scheme === 'tensor') expect(scale.toArraySync()).toEqual(Float32Array.of(1));
        expect(dequantizeFp8(q, scale, { scaleMajorMode: scheme.endsWith('MN') ? 'MN' : 'K' }).shape).toEqual(shape);
      }
    }
  });

  it.runIf(onCuda)('can be captured (needs FLASHINFER_TEST_DEVICE=cuda:0)', () => {
    const x = randn([64, 512], { dtype: 'bfloat16', device: testDevice, seed: 1 });
    for (const scheme of schemes) run(scheme, x, {});
    const results: Tensor[] = [];
    const stream = new cuda.Stream();
    const graph = cuda.capture(stream, () => {
      for (const scheme of schemes) results.push(...run(scheme, x, {}));
    });
    x.copy_(randn([64, 512], { dtype: 'bfloat16', device: testDevice, seed: 2 }));
    cuda.synchronizeSync();
    graph.launch(stream);
    stream.synchronizeSync();
    const expected = schemes.flatMap((scheme) => run(scheme, x, {}));
    for (const [i, result] of results.entries()) expectSameValues(result, held(expected[i]!));
  });
});

describe('fp8 operators refuse', () => {
  const device = testDevice;
  const x = zeros([4, 256], { device });
  const q = zeros([4, 256], { dtype: 'float8_e4m3fn', device });

  it('wrong tensors', () => {
    expectThrows(() => quantizeFp8PerTensor(undefined as never), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'x is undefined');
    expectThrows(() => quantizeFp8PerToken(zeros([], { device })), 'ERR_FLASHINFER_INVALID_RANK', 'x has rank 0');
    expectThrows(() => quantizeFp8PerToken(q), 'ERR_FLASHINFER_INVALID_DTYPE', 'x has dtype float8_e4m3fn', 'float16');
    expectThrows(() => quantizeFp8PerToken(x.transpose(0, 1)), 'ERR_FLASHINFER_NON_CONTIGUOUS', 'x');
    const gaps = zeros([4, 3, 8], { device }).slice(1, 0, 2);
    expectThrows(() => quantizeFp8PerToken(gaps), 'ERR_FLASHINFER_NON_CONTIGUOUS', 'x has strides [24, 8, 1]');
    expectThrows(() => quantizeFp8PerBlock(zeros([8], { device })), 'ERR_FLASHINFER_INVALID_RANK', 'x has rank 1');
    expectThrows(() => dequantizeFp8(x, ones([1], { device })), 'ERR_FLASHINFER_INVALID_DTYPE', 'q has dtype float32');
  });

  it('wrong scales', () => {
    for (const scale of [0, -1, Number.NaN, Infinity]) {
      expectThrows(() => quantizeFp8PerTensor(x, { scale }), 'ERR_FLASHINFER_INVALID_SCALE', `scale is ${scale}`);
    }
    const wrong = (shape: number[]) => () => quantizeFp8PerToken(x, { scale: ones(shape, { device }) });
    expectThrows(wrong([3]), 'ERR_FLASHINFER_INVALID_SHAPE', 'quantizeFp8PerToken: scale', 'expected 4');
    expectThrows(wrong([4, 1]), 'ERR_FLASHINFER_INVALID_RANK', 'scale has rank 2');
    const half = ones([1], { dtype: 'float16', device });
    expectThrows(
      () => quantizeFp8PerTensor(x, { scale: half }),
      'ERR_FLASHINFER_INVALID_DTYPE',
      'scale has dtype float16',
    );
    expectThrows(
      () => dequantizeFp8(q, ones([2, 4], { device })),
      'ERR_FLASHINFER_INVALID_SHAPE',
      'dequantizeFp8: scale has shape [2, 4]',
      '[1] or [4] or [4, 2] or [1, 2]',
      'scaleMajorMode',
    );
  });

  it('wrong outputs and options', () => {
    const out = (shape: number[], dtype: DType) => zeros(shape, { dtype, device });
    const into = (tensor: Tensor) => () => quantizeFp8PerTensor(x, { out: tensor });
    expectThrows(into(out([4, 255], 'float8_e4m3fn')), 'ERR_FLASHINFER_INVALID_SHAPE', 'out has 255');
    expectThrows(into(out([4, 256], 'float16')), 'ERR_FLASHINFER_INVALID_DTYPE', 'out has dtype float16');
    expectThrows(
      () => quantizeFp8PerTensor(x, { out: q, dtype: 'float8_e5m2' }),
      'ERR_FLASHINFER_INVALID_DTYPE',
      'out has dtype float8_e4m3fn',
      'float8_e5m2',
    );
    const wrong = (options: object) => () => quantizeFp8PerBlock(x, options);
    expectThrows(wrong({ dtype: 'int8' }), 'ERR_FLASHINFER_INVALID_DTYPE', "dtype is 'int8'", "'float8_e4m3fn'");
    expectThrows(
      wrong({ blockShape: [1, 64] }),
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      'blockShape is [1, 64]',
      '[1, 128]',
    );
    expectThrows(wrong({ scaleMajorMode: 'M' }), 'ERR_FLASHINFER_INVALID_ARGUMENT', "'M'", "'K' or 'MN'");
    expectThrows(wrong({ scales: 1 }), 'ERR_FLASHINFER_INVALID_ARGUMENT', 'option scales is unknown');
    expectThrows(
      () => dequantizeFp8(q, ones([1], { device }), { dtype: 'int32' as never }),
      'ERR_FLASHINFER_INVALID_DTYPE',
      "dtype is 'int32'",
    );
  });
});
