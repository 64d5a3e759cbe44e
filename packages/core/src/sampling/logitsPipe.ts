// SPDX-License-Identifier: Apache-2.0
// From logits to tokens in as few launches as the steps allow.
import { Checker } from '../check/checker.ts';
import { describeValue } from '../check/describeValue.ts';
import { checkOptions } from '../check/options.ts';
import { logCall } from '../logging.ts';
import { empty } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { type PipeLaunch, type PipePlan, planPipe } from './logitsPipePlan.ts';
import {
  type InputOf,
  type LegalPipe,
  type LogitsProcessor,
  type PipeInput,
  type PipeOutput,
  pipeSteps,
} from './logitsProcessors.ts';
import { checkSeed, type DrawOptions, drawNames, drawTokens, indicesRule } from './samplingOptions.ts';
import { checkCount, checkProbability, checkRows, checkTemperature, type PerRow, SamplingRun } from './samplingRun.ts';

export interface LogitsPipeOptions<I extends PipeInput | undefined = PipeInput | undefined> {
  /** What `run()` is given. Needed where the first step takes both logits and probabilities. */
  inputType?: I;
}

interface ParamsOf {
  temperature: { temperature: PerRow };
  topK: { topK: PerRow };
  topP: { topP: PerRow };
  minP: { minP: PerRow };
  sample: DrawOptions;
}

type Both<U> = (U extends unknown ? (u: U) => void : never) extends (both: infer B) => void ? B : never;

/** The parameters of a pipe with these steps: `{ temperature, topK, ... }`, each a number or a tensor, one a row. */
export type PipeParams<P extends readonly LogitsProcessor[]> = [P[number]['kind'] & keyof ParamsOf] extends [never]
  ? Record<string, never>
  : Both<ParamsOf[P[number]['kind'] & keyof ParamsOf]>;

type InputTypeOf<P extends readonly LogitsProcessor[], I> = I extends PipeInput ? I : InputOf<P>;

/** `Tensor<'int32'>` `[batch]` of a pipe that samples, else rows. */
export type PipeResult<P extends readonly LogitsProcessor[], I> =
  PipeOutput<P, InputTypeOf<P, I> & string> extends 'tokens' ? Tensor<'int32'> : Tensor;

type AnyParams = DrawOptions & { temperature?: PerRow; topK?: PerRow; topP?: PerRow; minP?: PerRow };

/**
 * Steps over rows of logits or probabilities, launched in as few kernels as do them in their order: everything up to a
 * Sample is one. A pipe has no state; its parameters come with `run()`. TypeScript refuses steps that do not fit together.
 * @see FlashInfer `flashinfer.logits_processor.LogitsPipe`
 * @example
 * ```ts
 * import { LogitsPipe, randn, Sample, Softmax, Temperature, TopK, TopP } from '@flashinfer/core';
 *
 * const pipe = new LogitsPipe([new Temperature(), new TopK(), new Softmax(), new TopP(), new Sample()]);
 * const tokens = pipe.run(randn([4, 32000]), { temperature: 0.8, topK: 40, topP: 0.9, seed: 1 }); // int32 [4]
 * console.log(pipe.launches); // ['sampleLogits']
 * ```
 */
export class LogitsPipe<const P extends readonly LogitsProcessor[], const I extends PipeInput | undefined = undefined> {
  readonly inputType: PipeInput;
  readonly outputType: PipeInput | 'tokens';
  private readonly plan: PipePlan;
  private readonly paramNames: readonly string[];

  /**
   * @param processors `Temperature`, `Softmax`, `TopK`, `TopP`, `MinP` and `Sample`; a kind may come more than once, and
   *   then reads the same parameter
   * @param options see {@link LogitsPipeOptions}
   * @throws {InvalidArgumentError} where a step does not take what the one before gives, or the input is not known
   */
  constructor(processors: P & LegalPipe<P, InputTypeOf<P, NoInfer<I>>>, options: LogitsPipeOptions<I> = {}) {
    const check = new Checker('LogitsPipe');
    check.options(options, ['inputType']);
    const inputType: PipeInput | undefined = options.inputType;
    check.oneOf('inputType', inputType, ['logits', 'probs']);
    const steps = requireProcessors(check, processors);
    this.inputType = inputType ?? inputOf(check, steps[0]!);
    const plan = planPipe(steps, this.inputType);
    if ('mistake' in plan) {
      const { index, given } = plan.mistake;
      const { kind } = steps[index]!;
      const taken = Object.keys(pipeSteps[kind]).join(' or ');
      throw check.error(
        'ERR_FLASHINFER_INVALID_ARGUMENT',
        `processor ${index} is ${kind}, given ${given}; expected ${taken} before it; ` +
          (given === 'tokens'
            ? 'let Sample be the last'
            : given === 'logits'
              ? 'put a Softmax before it'
              : 'move it up'),
      );
    }
    this.plan = plan;
    this.outputType = plan.output;
    const kinds = new Set<string>(steps.map(({ kind }) => kind));
    this.paramNames = [
      ...['temperature', 'topK', 'topP', 'minP'].filter((name) => kinds.has(name)),
      ...(kinds.has('sample') ? drawNames : []),
    ];
  }

  /** The kernels of a `run()`, in order. */
  get launches(): readonly string[] {
    return this.plan.launches.map(({ kind }) => kind);
  }

  /**
   * @param x `[batch, vocab]` float32 | float16 | bfloat16, last dimension contiguous: logits or probabilities as
   *   `inputType` says
   * @param params of every step: `temperature`, `topP`, `minP` a number or float32 `[batch]`, `topK` an integer or int32
   *   `[batch]`; for Sample also `seed`, `offset` and `indices`, see {@link DrawOptions}
   * @returns tokens int32 `[batch]`; rows of probabilities (float32 after a Softmax, else as x) or of logits as x
   * @throws {InvalidArgumentError} on a wrong shape, dtype, stride or value, and on a parameter that is missing or not used
   */
  run(x: Tensor, params: PipeParams<P>): PipeResult<P, I> {
    const name = 'LogitsPipe.run';
    const given = params as AnyParams;
    checkOptions(name, given, this.paramNames);
    const check = new Checker(name);
    checkRows(check, this.inputType, x, given.indices === undefined ? 'batch' : 'rows');
    this.checkParams(check, given);
    logCall(name, { x, params: given });
    let rows = x;
    for (const launch of this.plan.launches) {
      const out = start(launch, rows, given, check);
      if (rows !== x) rows.dispose();
      rows = out;
    }
    return rows as PipeResult<P, I>;
  }

  private checkParams(check: Checker, params: AnyParams): void {
    check.optionalTensor('indices', params.indices, ['batch'], indicesRule);
    for (const name of this.paramNames) {
      if (name === 'temperature') checkTemperature(check, this.required(check, name, params.temperature));
      else if (name === 'topK') checkCount(check, name, this.required(check, name, params.topK));
      else if (name === 'topP' || name === 'minP')
        checkProbability(check, name, this.required(check, name, params[name]));
    }
    checkSeed(check, 'seed', params.seed);
    checkSeed(check, 'offset', params.offset);
    if (params.indices !== undefined) this.checkRowsOfTokens(check, params);
  }

  /** Values of tokens, not of rows, are of no use to launches before the draw. */
  private checkRowsOfTokens(check: Checker, params: AnyParams): void {
    for (const launch of this.plan.launches.slice(0, -1)) {
      for (const name of ['temperature', 'topK', 'topP', 'minP'] as const) {
        if (!launch[name] || typeof params[name] === 'number') continue;
        throw check.error(
          'ERR_FLASHINFER_INVALID_ARGUMENT',
          `${name} is a Tensor, one value a token, and indices are given, but ${launch.kind} comes before the draw and ` +
            `works on rows; expected a number; pass one, or order the steps so that ${name} is in the last launch`,
        );
      }
    }
  }

  private required(check: Checker, name: string, value: PerRow | undefined): PerRow {
    if (value !== undefined) return value;
    throw check.error(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${name} is undefined; expected a number or a Tensor; pass { ${name}: ... }`,
    );
  }
}

function start(launch: PipeLaunch, rows: Tensor, params: AnyParams, check: Checker): Tensor {
  const run = new SamplingRun(launch.kind, rows);
  if (launch.temperature) run.withTemperature(params.temperature);
  if (launch.topK) run.withTopK(params.topK!);
  if (launch.topP) run.withTopP(params.topP!);
  if (launch.minP) run.withMinP(params.minP!);
  if (launch.joint) run.jointly();
  if (launch.kind === 'sampleLogits' || launch.kind === 'sampleProbs') return drawTokens(run, check, rows, params);
  const dtype = launch.kind === 'softmax' ? 'float32' : rows.dtype;
  return run.into(empty(rows.shape, { dtype, device: rows.device }));
}

function requireProcessors(check: Checker, processors: unknown): readonly LogitsProcessor[] {
  const isProcessor = (value: unknown): boolean =>
    typeof value === 'object' && value !== null && 'kind' in value && Object.hasOwn(pipeSteps, String(value.kind));
  if (Array.isArray(processors) && processors.length > 0 && processors.every(isProcessor)) return [...processors];
  throw check.error(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `processors is ${describeValue(processors)}; expected a list of Temperature, Softmax, TopK, TopP, MinP and Sample objects; ` +
      'pass e.g. [new Temperature(), new Sample()]',
  );
}

function inputOf(check: Checker, { kind }: LogitsProcessor): PipeInput {
  const taken = Object.keys(pipeSteps[kind]) as PipeInput[];
  if (taken.length === 1) return taken[0]!;
  throw check.error(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `inputType is undefined and ${kind}, the first processor, takes ${taken.join(' and ')}; expected to be told; ` +
      "pass { inputType: 'logits' } or { inputType: 'probs' }",
  );
}
