// SPDX-License-Identifier: Apache-2.0
// Pipes against their steps one by one in float64, on the device named by FLASHINFER_TEST_DEVICE.
import { describe, expect, it } from 'vitest';
import {
  cuda,
  LogitsPipe,
  type LogitsProcessor,
  MinP,
  type PipeInput,
  Sample,
  Softmax,
  Temperature,
  type Tensor,
  TopK,
  TopP,
  tensor,
} from '../../src/index.ts';
import { planPipe } from '../../src/sampling/logitsPipePlan.ts';
import { onCuda, testDevice } from '../device.ts';
import { normalArray } from '../reference/random.ts';
import { renormReference, softmaxReference, topKThreshold, topPThreshold } from '../reference/sampling.ts';
import { held } from '../rows.ts';
import { expectThrows } from '../thrownBy.ts';

const device = testDevice;
const temperature = new Temperature();
const softmax = new Softmax();
const topK = new TopK();
const joint = new TopK({ jointTopKTopP: true });
const topP = new TopP();
const minP = new MinP();
const sample = new Sample();

const values = { temperature: 0.7, topK: 12, topP: 0.8, minP: 0.05 };

/** A row after each step in turn; with `joint`, top-p as if top-k had not been. */
function reference(row: Float64Array, steps: readonly LogitsProcessor[]): Float64Array {
  let now = row;
  let before: Float64Array | undefined;
  for (const { kind, ...step } of steps) {
    if (kind === 'temperature') now = now.map((x) => x / values.temperature);
    else if (kind === 'softmax') {
      now = softmaxReference(now);
      before &&= softmaxReference(before);
    } else if (kind === 'topK') {
      const threshold = topKThreshold(now, values.topK);
      if ('joint' in step && step.joint) before = now;
      const isLogits = now.some((x) => x < 0);
      now = isLogits ? now.map((x) => (x >= threshold ? x : -Infinity)) : renormReference(now, threshold);
    } else if (kind === 'topP') {
      const nucleus = topPThreshold(before ?? now, values.topP);
      const kept = (before ?? now).map((x, i) => (x >= nucleus ? now[i]! : 0));
      now = renormReference(kept, Number.MIN_VALUE);
      before = undefined;
    } else if (kind === 'minP') now = renormReference(now, values.minP * Math.max(...now));
  }
  return now;
}

function paramsOf(steps: readonly LogitsProcessor[]): Partial<typeof values> {
  const kinds = new Set<string>(steps.map(({ kind }) => kind));
  return Object.fromEntries(Object.entries(values).filter(([name]) => kinds.has(name)));
}

/** Any pipe, for tables of them. */
function makePipe(steps: readonly LogitsProcessor[], inputType: PipeInput) {
  return new LogitsPipe(steps as [Softmax], { inputType } as never) as unknown as {
    run(x: Tensor, params: object): Tensor;
    readonly launches: readonly string[];
  };
}

const pipes: [steps: LogitsProcessor[], launches: string[]][] = [
  [[temperature], ['maskLogits']],
  [[temperature, topK], ['maskLogits']],
  [[topK, temperature], ['maskLogits']],
  [[softmax], ['softmax']],
  [[temperature, softmax], ['softmax']],
  [
    [temperature, topK, softmax],
    ['softmax', 'renormProbs'],
  ],
  [
    [temperature, softmax, topK, topP],
    ['softmax', 'renormProbs'],
  ],
  [
    [temperature, softmax, joint, topP],
    ['softmax', 'renormProbs'],
  ],
  [
    [softmax, topP, topK],
    ['softmax', 'renormProbs'],
  ],
  [
    [softmax, minP],
    ['softmax', 'renormProbs'],
  ],
  [
    [softmax, minP, topP],
    ['softmax', 'renormProbs'],
  ],
  [
    [softmax, topP, minP],
    ['softmax', 'renormProbs', 'renormProbs'],
  ],
  [
    [topK, softmax, minP, topP],
    ['softmax', 'renormProbs'],
  ],
  [
    [softmax, topK, topP, topK],
    ['softmax', 'renormProbs', 'renormProbs'],
  ],
  [
    [temperature, temperature, softmax],
    ['maskLogits', 'softmax'],
  ],
  [[sample], ['sampleLogits']],
  [[temperature, sample], ['sampleLogits']],
  [[temperature, topK, softmax, topP, sample], ['sampleLogits']],
  [[temperature, softmax, joint, topP, sample], ['sampleLogits']],
  [[temperature, softmax, minP, topK, topP, sample], ['sampleLogits']],
  [
    [temperature, softmax, topP, minP, sample],
    ['softmax', 'renormProbs', 'sampleProbs'],
  ],
];

const rows = 6;
const vocab = 97;

function randomRows(type: PipeInput): { x: Tensor; at: (r: number) => Float64Array } {
  const logits = normalArray(rows * vocab, 5);
  const data = new Float32Array(rows * vocab);
  for (let r = 0; r < rows; r++) {
    const row = logits.subarray(r * vocab, (r + 1) * vocab);
    data.set(type === 'logits' ? row : softmaxReference(row), r * vocab);
  }
  const at = (r: number): Float64Array => Float64Array.from(data.subarray(r * vocab, (r + 1) * vocab));
  return { x: tensor(data, { shape: [rows, vocab], device }), at };
}

function label(steps: readonly LogitsProcessor[]): string {
  return steps.map((step) => step.kind + ('joint' in step && step.joint ? ' (joint)' : '')).join(', ');
}

describe('pipes', () => {
  for (const [steps, launches] of pipes) {
    const type: PipeInput = 'logits';
    it(`${label(steps)} takes ${launches.length} launches and does what its steps do`, () => {
      const pipe = makePipe(steps, type);
      expect(pipe.launches).toEqual(launches);
      const { x, at } = randomRows(type);
      if (steps.at(-1) === sample) expectDraws(pipe, steps, x, at);
      else expectRows(pipe.run(x, paramsOf(steps)), steps, at);
    });
  }

  it('take probabilities', () => {
    const { x, at } = randomRows('probs');
    for (const steps of [[topK], [topP], [minP, topP], [topK, topP], [joint, topP]]) {
      const pipe = makePipe(steps, 'probs');
      expect(pipe.launches).toEqual(['renormProbs']);
      expectRows(pipe.run(x, paramsOf(steps)), steps, at);
    }
    expectDraws(makePipe([minP, sample], 'probs'), [minP, sample], x, at);
  });

  it('take half floats, values of rows, and seeds of rows', () => {
    const { x, at } = randomRows('logits');
    const pipe = new LogitsPipe([temperature, topK, softmax, topP, sample]);
    const perRow = {
      temperature: tensor(new Float32Array(rows).fill(values.temperature), { device }),
      topK: tensor(new Int32Array(rows).fill(values.topK), { device }),
      topP: tensor(new Float32Array(rows).fill(values.topP), { device }),
    };
    const { temperature: t, topK: k, topP: p } = values;
    const params = { temperature: t, topK: k, topP: p, seed: 3, offset: 4 };
    expect(tokensOf(pipe.run(x, { ...params, ...perRow }))).toEqual(tokensOf(pipe.run(x, params)));
    const seed = tensor(
      BigInt64Array.from({ length: rows }, (_, r) => BigInt(r)),
      { device },
    );
    expect(tokensOf(pipe.run(x, { ...params, seed }))).toEqual(tokensOf(pipe.run(x, { ...params, seed })));
    const half = x.to('float16');
    const kept = reference(Float64Array.from(held(half).subarray(0, vocab)), [temperature, topK, softmax, topP]);
    expect(kept[tokensOf(pipe.run(half, params))[0]!]).toBeGreaterThan(0);
    expect(at(0).length).toBe(vocab);
  });

  it('share rows by indices', () => {
    const { x } = randomRows('logits');
    const pipe = new LogitsPipe([softmax, topK, sample]);
    const indices = tensor(new Int32Array([4, 4, 0]), { device });
    const tokens = tokensOf(pipe.run(x, { topK: 1, indices, seed: 1 }));
    const best = tokensOf(pipe.run(x, { topK: 1, seed: 1 }));
    expect(tokens).toEqual([best[4], best[4], best[0]]);
  });

  it('with temperature 0 take the largest logit', () => {
    const { x, at } = randomRows('logits');
    const tokens = tokensOf(new LogitsPipe([temperature, sample]).run(x, { temperature: 0 }));
    expect(tokens).toEqual(Array.from({ length: rows }, (_, r) => at(r).indexOf(Math.max(...at(r)))));
  });

  it.skipIf(!onCuda)('are captured in graphs', () => {
    const { x, at } = randomRows('logits');
    const steps = [temperature, softmax, topP, minP] as const;
    const pipe = new LogitsPipe(steps);
    const params = { temperature: values.temperature, topP: values.topP, minP: values.minP };
    pipe.run(x, params).dispose(); // compiles
    const stream = new cuda.Stream();
    let out: Tensor | undefined;
    const graph = cuda.capture(stream, () => {
      out = pipe.run(x, params);
    });
    graph.launch(stream);
    stream.synchronizeSync();
    expectRows(out!, steps, at);
  });
});

describe('mistakes', () => {
  const refused: [steps: unknown, options: object | undefined, ...parts: string[]][] = [
    [[topP, sample], { inputType: 'logits' }, 'processor 0 is topP', 'given logits', 'expected probs', 'put a Softmax'],
    [[softmax, temperature], undefined, 'processor 1 is temperature', 'given probs', 'move it up'],
    [[softmax, softmax], undefined, 'processor 1 is softmax', 'given probs'],
    [[sample, sample], { inputType: 'probs' }, 'processor 1 is sample', 'given tokens', 'let Sample be the last'],
    [[topK, sample], undefined, 'inputType is undefined and topK', 'logits and probs'],
    [[], undefined, 'processors is []'],
    ['sample', undefined, "processors is 'sample'"],
    [[Sample], undefined, 'expected a list of Temperature'],
    [[{ kind: 'toString' }], undefined, 'expected a list'],
    [[sample], { inputType: 'tokens' }, "inputType is 'tokens'"],
    [[sample], { input: 'logits' }, 'option input is unknown'],
  ];
  it.each(refused)('%o with %o', (steps, options, ...parts) => {
    const make = (): unknown => new LogitsPipe(steps as never, options);
    expectThrows(make, 'ERR_FLASHINFER_INVALID_ARGUMENT', 'LogitsPipe: ', ...parts);
  });

  it('in parameters', () => {
    const { x } = randomRows('logits');
    const pipe = new LogitsPipe([temperature, topK, sample]);
    const run = (params: object) => () => pipe.run(x, params as never);
    const bad = 'ERR_FLASHINFER_INVALID_ARGUMENT';
    expectThrows(run({ temperature: 1 }), bad, 'LogitsPipe.run: topK is undefined', 'pass { topK: ... }');
    expectThrows(run({ temperature: 1, topK: 2, topP: 0.5 }), bad, 'option topP is unknown', 'temperature, topK');
    expectThrows(run({ temperature: -1, topK: 2 }), bad, 'temperature is -1');
    expectThrows(run({ temperature: 1, topK: 0 }), bad, 'topK is 0');
    expectThrows(run({ temperature: 1, topK: 2, seed: 0.5 }), bad, 'seed is 0.5');
    const rowsOnly = new LogitsPipe([temperature, softmax]);
    expectThrows(() => rowsOnly.run(x, { temperature: 1, seed: 1 } as never), bad, 'option seed is unknown');
    const late = new LogitsPipe([softmax, topP, minP, sample]);
    const perToken = { topP: tensor([0.5], { device }), minP: 0.1, indices: tensor([0], { dtype: 'int32', device }) };
    expectThrows(() => late.run(x, perToken), bad, 'topP is a Tensor', 'renormProbs comes before the draw');
    expectThrows(() => pipe.run(x.view(rows * vocab), { temperature: 1, topK: 2 }), 'ERR_FLASHINFER_INVALID_RANK');
    expectThrows(() => new Sample({ deterministic: 1 as never }), bad, 'Sample: deterministic is 1', 'true or false');
    const option = { temperature: 1, deterministic: true } as object as { temperature: number };
    const sampling = new LogitsPipe([temperature, new Sample({ deterministic: true })]);
    expectThrows(() => sampling.run(x, option), bad, 'option deterministic is unknown');
  });
});

describe('types', () => {
  it('refuse what does not fit together, and name the result', () => {
    const tokens = new LogitsPipe([temperature, softmax, topP, sample]);
    const { x } = randomRows('logits');
    const drawn: Tensor<'int32'> = tokens.run(x, { temperature: 1, topP: 1 });
    expect(drawn.shape).toEqual([rows]);
    const unchecked = (): void => {
      // @ts-expect-error: topP takes probabilities
      new LogitsPipe([temperature, topP, sample]);
      // @ts-expect-error: a second Softmax
      new LogitsPipe([softmax, softmax]);
      // @ts-expect-error: nothing comes after Sample
      new LogitsPipe([softmax, sample, topK]);
      // @ts-expect-error: TopK takes both
      new LogitsPipe([topK, sample]);
      // @ts-expect-error: probabilities have no temperature
      new LogitsPipe([temperature, sample], { inputType: 'probs' });
      // @ts-expect-error: a pipe without a step
      new LogitsPipe([]);
      // @ts-expect-error: rows are not tokens
      const found: Tensor<'int32'> = new LogitsPipe([softmax]).run(x, {});
      found.dispose();
      // @ts-expect-error: topP is missing
      tokens.run(x, { temperature: 1 });
      // @ts-expect-error: there is no MinP
      tokens.run(x, { temperature: 1, topP: 1, minP: 1 });
      // @ts-expect-error: rows are not drawn from
      new LogitsPipe([softmax]).run(x, { seed: 1 });
    };
    expect(unchecked).toBeTypeOf('function');
    new LogitsPipe([topK, sample], { inputType: 'logits' }).run(x, { topK: 1 }).dispose();
    new LogitsPipe([topP, sample]);
  });
});

it('plans say which step is wrong', () => {
  expect(planPipe([temperature, topP], 'logits')).toEqual({ mistake: { index: 1, given: 'logits' } });
});

function tokensOf(tokens: Tensor): number[] {
  expect(tokens.dtype).toBe('int32');
  return [...(tokens.toArraySync() as Int32Array)];
}

function expectRows(out: Tensor, steps: readonly LogitsProcessor[], at: (r: number) => Float64Array): void {
  const found = held(out);
  for (let r = 0; r < rows; r++) {
    const expected = reference(at(r), steps);
    for (let i = 0; i < vocab; i++) {
      const [a, b] = [found[r * vocab + i]!, expected[i]!];
      if (Number.isFinite(b))
        expect(Math.abs(a - b), `row ${r}, column ${i}: ${a}, ${b}`).toBeLessThan(2e-6 * (1 + Math.abs(b)));
      else expect(a).toBe(b);
    }
  }
}

/** Tokens of what the steps keep, and every one of those with at least 2 % of a row in 2000 draws. */
function expectDraws(
  pipe: { run(x: Tensor, params: object): Tensor },
  steps: readonly LogitsProcessor[],
  x: Tensor,
  at: (r: number) => Float64Array,
): void {
  const indices = tensor(new Int32Array(2000).fill(2), { device });
  const tokens = tokensOf(pipe.run(x, { ...paramsOf(steps), indices, seed: 7 }));
  const before = steps.slice(0, -1);
  const rowsBefore = reference(at(2), before);
  const isLogits = rowsBefore.some((v) => v < 0);
  const expected = isLogits ? softmaxReference(rowsBefore) : rowsBefore;
  const counts = new Float64Array(vocab);
  for (const token of tokens) counts[token]!++;
  let chiSquare = 0;
  let categories = 0;
  for (const [token, p] of expected.entries()) {
    if (p === 0) expect(counts[token], `token ${token}`).toBe(0);
    if (p * tokens.length < 5) continue;
    chiSquare += (counts[token]! - p * tokens.length) ** 2 / (p * tokens.length);
    categories++;
  }
  expect(categories).toBeGreaterThan(0);
  // The mean is `categories`, the deviation the root of its double. Inputs are new in each run: ten deviations.
  expect(chiSquare).toBeLessThan(categories + 10 * Math.sqrt(2 * categories));
}
