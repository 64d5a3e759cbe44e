// SPDX-License-Identifier: Apache-2.0
// What singleDecodeWithKVCache and singlePrefillWithKVCache refuse, with which class, code and words.
import { describe, expect, it } from 'vitest';
import {
  DisposedError,
  type ErrorCode,
  FlashInferError,
  full,
  InvalidArgumentError,
  type Tensor,
  UnsupportedError,
  zeros,
} from '../../src/index.ts';
import type { DType } from '../../src/tensor/dtype.ts';
import { onCuda, testDevice } from '../device.ts';
import { type AttentionOperator, decodeOperator, poisoned, prefillOperator } from './attentionCase.ts';

interface Expected {
  readonly code: ErrorCode;
  readonly type?: new (...args: never[]) => FlashInferError;
  /** Parts of the message besides the function's name: argument, given and allowed values. */
  readonly words: readonly (string | RegExp)[];
}

interface BadCall extends Expected {
  readonly name: string;
  readonly q?: Tensor;
  readonly k?: Tensor;
  readonly v?: Tensor;
  readonly options?: Record<string, unknown>;
}

/** Needs FLASHINFER_TEST_DEVICE=cuda:0; shown as skipped, with that reason, elsewhere. */
const cudaOnly = (name: string, test: () => void): void =>
  onCuda ? it(name, test) : it.skip(`${name} (needs FLASHINFER_TEST_DEVICE=cuda:0)`, test);

const zerosOf = (shape: readonly number[], dtype: DType = 'float16', device: string = testDevice): Tensor =>
  zeros(shape, { dtype, device: device as typeof testDevice });

function expectRefused(functionName: string, call: () => unknown, { code, type, words }: Expected): void {
  let error: unknown;
  try {
    call();
  } catch (caught) {
    error = caught;
  }
  expect(error, 'an error is thrown').toBeInstanceOf(type ?? InvalidArgumentError);
  const { code: foundCode, message } = error as FlashInferError;
  expect(`${foundCode}: ${message}`).toContain(code);
  expect(message.startsWith(`${functionName}: `), message).toBe(true);
  for (const word of words) expect(message).toMatch(word instanceof RegExp ? word : new RegExp(escapePattern(word)));
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

const disposed = (shape: readonly number[]): Tensor => {
  const x = zerosOf(shape);
  x.dispose();
  return x;
};

/** Scales that are no scale. */
const badScales = [Number.NaN, Infinity, -Infinity, 0, -1];

/** The cases both operators share; q has shape `qShape`, k and v `[kvLen, numKvHeads, headDim]`. */
function commonCases(qShape: readonly number[], kvShape: readonly number[]): BadCall[] {
  const dtypes = (extra: string): RegExp => new RegExp(`float16.*bfloat16.*${extra}`);
  const scaleNames = ['smScale', 'ropeScale', 'ropeTheta', 'kScale', 'vScale'];
  return [
    { name: 'q of rank 1', q: zerosOf([64]), code: 'ERR_FLASHINFER_INVALID_RANK', words: ['q', 'headDim', /1/] },
    {
      name: 'q of rank 4',
      q: zerosOf([1, 1, 4, 64]),
      code: 'ERR_FLASHINFER_INVALID_RANK',
      words: ['q', /4/],
    },
    {
      name: 'k of rank 2',
      k: zerosOf([9, 64]),
      code: 'ERR_FLASHINFER_INVALID_RANK',
      words: ['k', 'kvLen', 'numKvHeads', /2/],
    },
    { name: 'v of rank 4', v: zerosOf([1, ...kvShape]), code: 'ERR_FLASHINFER_INVALID_RANK', words: ['v', /4/] },
    {
      name: 'v with another kvLen',
      v: zerosOf([8, 2, 64]),
      code: 'ERR_FLASHINFER_INVALID_SHAPE',
      words: ['v', 'kvLen', '8', '9'],
    },
    {
      name: 'k with another headDim',
      k: zerosOf([9, 2, 128]),
      code: 'ERR_FLASHINFER_INVALID_SHAPE',
      words: ['k', 'headDim', '128', '64'],
    },
    {
      name: 'v with other heads',
      v: zerosOf([9, 4, 64]),
      code: 'ERR_FLASHINFER_INVALID_SHAPE',
      words: ['v', 'numKvHeads', '4', '2'],
    },
    {
      name: 'heads that do not divide',
      k: zerosOf([9, 3, 64]),
      v: zerosOf([9, 3, 64]),
      code: 'ERR_FLASHINFER_HEADS_MISMATCH',
      words: ['numQoHeads', '4', 'numKvHeads', '3', 'multiple'],
    },
    {
      name: 'more key heads than query heads',
      k: zerosOf([9, 8, 64]),
      v: zerosOf([9, 8, 64]),
      code: 'ERR_FLASHINFER_HEADS_MISMATCH',
      words: ['numQoHeads', 'numKvHeads', '8'],
    },
    {
      name: 'integer q',
      q: zerosOf(qShape, 'int32'),
      code: 'ERR_FLASHINFER_INVALID_DTYPE',
      words: ['q', 'int32', dtypes('')],
    },
    {
      name: '8-bit q',
      q: zerosOf(qShape, 'float8_e5m2'),
      code: 'ERR_FLASHINFER_INVALID_DTYPE',
      words: ['q', 'float8_e5m2', dtypes('')],
    },
    {
      name: 'integer k',
      k: zerosOf(kvShape, 'int8'),
      code: 'ERR_FLASHINFER_INVALID_DTYPE',
      words: ['k', 'int8', 'float8_e4m3fn'],
    },
    {
      name: 'k of another 16-bit dtype than q',
      k: zerosOf(kvShape, 'bfloat16'),
      v: zerosOf(kvShape, 'bfloat16'),
      code: 'ERR_FLASHINFER_INVALID_DTYPE',
      words: ['k', 'bfloat16', 'float16'],
    },
    {
      name: 'v of another dtype than k',
      v: zerosOf(kvShape, 'float8_e5m2'),
      code: 'ERR_FLASHINFER_INVALID_DTYPE',
      words: ['v', 'float8_e5m2', 'float16'],
    },
    {
      name: 'q with a strided last dimension',
      q: zerosOf([...qShape.slice(0, -2), 64, 4]).transpose(-2 + qShape.length, -1 + qShape.length),
      code: 'ERR_FLASHINFER_NON_CONTIGUOUS',
      words: ['q', 'contiguous()'],
    },
    {
      name: 'k with a strided last dimension',
      k: zerosOf([9, 64, 2]).transpose(1, 2),
      code: 'ERR_FLASHINFER_NON_CONTIGUOUS',
      words: ['k', 'contiguous()'],
    },
    { name: 'disposed q', q: disposed(qShape), type: DisposedError, code: 'ERR_FLASHINFER_DISPOSED', words: ['q'] },
    { name: 'disposed v', v: disposed(kvShape), type: DisposedError, code: 'ERR_FLASHINFER_DISPOSED', words: ['v'] },
    {
      name: 'disposed out',
      options: { out: disposed(qShape) },
      type: DisposedError,
      code: 'ERR_FLASHINFER_DISPOSED',
      words: ['out'],
    },
    ...[-2, -1000].map(
      (windowLeft): BadCall => ({
        name: `windowLeft ${windowLeft}`,
        options: { windowLeft },
        code: 'ERR_FLASHINFER_INVALID_WINDOW',
        words: ['windowLeft', String(windowLeft), '-1'],
      }),
    ),
    ...[1.5, Number.NaN, Infinity, 2 ** 31].map(
      (windowLeft): BadCall => ({
        name: `windowLeft ${windowLeft}`,
        options: { windowLeft },
        code: 'ERR_FLASHINFER_INVALID_WINDOW',
        words: ['windowLeft', String(windowLeft)],
      }),
    ),
    ...scaleNames.flatMap((scale) =>
      badScales.map(
        (value): BadCall => ({
          name: `${scale} ${value}`,
          options: { [scale]: value },
          code: 'ERR_FLASHINFER_INVALID_SCALE',
          words: [scale, String(value)],
        }),
      ),
    ),
    ...[Number.NaN, Infinity, -1].map(
      (logitsSoftCap): BadCall => ({
        name: `logitsSoftCap ${logitsSoftCap}`,
        options: { logitsSoftCap },
        code: 'ERR_FLASHINFER_INVALID_SCALE',
        words: ['logitsSoftCap', String(logitsSoftCap)],
      }),
    ),
    {
      name: 'smScale of another type',
      options: { smScale: '0.1' },
      code: 'ERR_FLASHINFER_INVALID_SCALE',
      words: ['smScale', '0.1', 'number'],
    },
    {
      name: 'an unknown layout',
      options: { kvLayout: 'NDH' },
      code: 'ERR_FLASHINFER_INVALID_LAYOUT',
      words: ['kvLayout', 'NDH', 'NHD', 'HND'],
    },
    {
      name: 'an unknown position encoding',
      options: { posEncodingMode: 'ROPE' },
      code: 'ERR_FLASHINFER_INVALID_ARGUMENT',
      words: ['posEncodingMode', "'ROPE'", 'NONE', 'ROPE_LLAMA', 'ALIBI'],
    },
    {
      name: 'an unknown backend',
      options: { backend: 'triton' },
      code: 'ERR_FLASHINFER_INVALID_ARGUMENT',
      words: ['backend', 'triton', 'auto', 'fa2'],
    },
    {
      name: 'an unknown lse base',
      options: { lseBase: '10' },
      code: 'ERR_FLASHINFER_INVALID_ARGUMENT',
      words: ['lseBase', '10', '2', 'e'],
    },
    {
      name: 'a misspelt option',
      options: { smscale: 1 },
      code: 'ERR_FLASHINFER_INVALID_ARGUMENT',
      words: ['smscale', 'smScale', 'windowLeft', 'logitsSoftCap', 'returnLse'],
    },
    {
      name: 'out of another shape',
      options: { out: zerosOf([...qShape.slice(0, -1), 128]) },
      code: 'ERR_FLASHINFER_INVALID_SHAPE',
      words: ['out', '128', '64'],
    },
    {
      name: 'out of another rank',
      options: { out: zerosOf([256]) },
      code: 'ERR_FLASHINFER_INVALID_RANK',
      words: ['out'],
    },
    {
      name: 'out of another dtype',
      options: { out: zerosOf(qShape, 'float32') },
      code: 'ERR_FLASHINFER_INVALID_DTYPE',
      words: ['out', 'float32', 'float16'],
    },
    {
      name: 'out with a strided last dimension',
      options: { out: zerosOf([...qShape.slice(0, -2), 64, 4]).transpose(-2 + qShape.length, -1 + qShape.length) },
      code: 'ERR_FLASHINFER_NON_CONTIGUOUS',
      words: ['out'],
    },
    {
      name: 'k that is no tensor',
      k: new Float32Array(9 * 2 * 64) as unknown as Tensor,
      code: 'ERR_FLASHINFER_INVALID_ARGUMENT',
      words: ['k', 'tensor'],
    },
  ];
}

function runBadCalls(
  functionName: string,
  operator: AttentionOperator,
  qShape: readonly number[],
  extra: BadCall[],
): void {
  const kvShape = [9, 2, 64];
  for (const bad of [...commonCases(qShape, kvShape), ...extra]) {
    it(`refuses ${bad.name}`, () => {
      const { q = zerosOf(qShape), k = zerosOf(kvShape), v = zerosOf(kvShape), options = {} } = bad;
      expectRefused(functionName, () => operator(q, k, v, options), bad);
    });
  }

  it.each(['q', 'k', 'v'] as const)('refuses an out that overlaps %s', (name) => {
    const tensors = { q: zerosOf(qShape), k: zerosOf(kvShape), v: zerosOf(kvShape) };
    const size = qShape.reduce((a, b) => a * b, 1);
    const storage = zerosOf([4096]);
    const shape = name === 'q' ? qShape : kvShape;
    const inputSize = shape.reduce((a, b) => a * b, 1);
    tensors[name] = storage.slice(0, 0, inputSize).view(...shape);
    const out = storage.slice(0, inputSize - 64, inputSize - 64 + size).view(...qShape);
    expectRefused(functionName, () => operator(tensors.q, tensors.k, tensors.v, { out }), {
      code: 'ERR_FLASHINFER_INVALID_ARGUMENT',
      words: ['out', 'overlap', name],
    });
  });

  it('leaves out untouched when it refuses', () => {
    const out = poisoned(qShape, 'float16');
    expect(() => operator(zerosOf(qShape), zerosOf(kvShape), zerosOf([8, 2, 64]), { out })).toThrow(FlashInferError);
    expect([...out.toArraySync()].every((value) => Number.isNaN(value))).toBe(true);
  });

  it('refuses head dimensions without a kernel', () => {
    const wide = [...qShape.slice(0, -1), 80];
    expectRefused(functionName, () => operator(zerosOf(wide), zerosOf([9, 2, 80]), zerosOf([9, 2, 80])), {
      type: UnsupportedError,
      code: 'ERR_FLASHINFER_UNSUPPORTED_HEAD_DIM',
      words: ['headDim', '80', '64', '128', '256'],
    });
  });

  cudaOnly('refuses tensors of several devices', () => {
    expectRefused(functionName, () => operator(zerosOf(qShape), zerosOf(kvShape, 'float16', 'cpu'), zerosOf(kvShape)), {
      code: 'ERR_FLASHINFER_DEVICE_MISMATCH',
      words: ['k', 'cpu', testDevice],
    });
  });

  cudaOnly('refuses float32 on cuda', () => {
    expectRefused(
      functionName,
      () => operator(zerosOf(qShape, 'float32'), zerosOf(kvShape, 'float32'), zerosOf(kvShape, 'float32')),
      { code: 'ERR_FLASHINFER_INVALID_DTYPE', words: ['q', 'float32', 'float16', 'bfloat16'] },
    );
  });

  it('refuses a backend of the other device', () => {
    const backend = onCuda ? 'cpu' : 'fa2';
    expectRefused(functionName, () => operator(zerosOf(qShape), zerosOf(kvShape), zerosOf(kvShape), { backend }), {
      code: 'ERR_FLASHINFER_INVALID_ARGUMENT',
      words: ['backend', backend, onCuda ? 'cuda' : 'cpu'],
    });
  });
}

describe('singleDecodeWithKVCache refuses', () => {
  runBadCalls(
    'singleDecodeWithKVCache',
    decodeOperator,
    [4, 64],
    [
      {
        name: 'q of rank 3',
        q: zerosOf([1, 4, 64]),
        code: 'ERR_FLASHINFER_INVALID_RANK',
        words: ['q', 'numQoHeads', 'headDim', /3/],
      },
      ...badScales.map(
        (qScale): BadCall => ({
          name: `qScale ${qScale}`,
          options: { qScale },
          code: 'ERR_FLASHINFER_INVALID_SCALE',
          words: ['qScale', String(qScale)],
        }),
      ),
    ],
  );
});

describe('singlePrefillWithKVCache refuses', () => {
  const mask = (shape: readonly number[], dtype: DType = 'bool'): Tensor =>
    full(shape, 1, { dtype, device: testDevice });
  runBadCalls(
    'singlePrefillWithKVCache',
    prefillOperator,
    [5, 4, 64],
    [
      { name: 'q of rank 2', q: zerosOf([4, 64]), code: 'ERR_FLASHINFER_INVALID_RANK', words: ['q', 'qoLen', /2/] },
      {
        name: 'a mask of another shape',
        options: { customMask: mask([9, 5]) },
        code: 'ERR_FLASHINFER_INVALID_SHAPE',
        words: ['customMask', 'qoLen', '9', '5'],
      },
      {
        name: 'a mask of another rank',
        options: { customMask: mask([45]) },
        code: 'ERR_FLASHINFER_INVALID_RANK',
        words: ['customMask', 'qoLen', 'kvLen'],
      },
      {
        name: 'a mask of another dtype',
        options: { customMask: mask([5, 9], 'float16') },
        code: 'ERR_FLASHINFER_INVALID_DTYPE',
        words: ['customMask', 'float16', 'bool'],
      },
      {
        name: 'packed bits of another length',
        options: { packedCustomMask: mask([5], 'uint8') },
        code: 'ERR_FLASHINFER_INVALID_SHAPE',
        words: ['packedCustomMask', '5', '6'],
      },
      {
        name: 'packed bits of another dtype',
        options: { packedCustomMask: mask([6], 'int8') },
        code: 'ERR_FLASHINFER_INVALID_DTYPE',
        words: ['packedCustomMask', 'int8', 'uint8'],
      },
      {
        name: 'both kinds of mask',
        options: { customMask: mask([5, 9]), packedCustomMask: mask([6], 'uint8') },
        code: 'ERR_FLASHINFER_INVALID_ARGUMENT',
        words: ['customMask', 'packedCustomMask'],
      },
      {
        name: 'two masks',
        options: { customMask: mask([5, 9]), packedCustomMask: mask([6]) },
        code: 'ERR_FLASHINFER_INVALID_ARGUMENT',
        words: ['customMask', 'packedCustomMask'],
      },
      {
        name: 'a causal that is no boolean',
        options: { causal: 'yes' },
        code: 'ERR_FLASHINFER_INVALID_ARGUMENT',
        words: ['causal', 'yes'],
      },
    ],
  );
});
