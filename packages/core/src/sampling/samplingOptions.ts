// SPDX-License-Identifier: Apache-2.0
// Options of the operators that draw tokens, their checks, and the random numbers of a call.
import { Checker } from '../check/checker.ts';
import { drawSeed, toSeed } from '../runtime/seed.ts';
import { empty } from '../tensor/create.ts';
import type { DType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { refuseNan } from './refuseNan.ts';
import { checkRows, type SamplingRun } from './samplingRun.ts';

/** Of a step that draws. */
export interface DrawOptions {
  /**
   * Which row of the input each token is drawn from: int32 `[batch]`, on the input's device. Default: row i for token
   * i. A row that is not there gives token 0.
   */
  indices?: Tensor;
  /**
   * A number, a bigint, or an int64 tensor of one or `[batch]` on the input's device. With one seed for all, tokens of
   * different rows are independent; with one a row, a token depends on its own seed alone. Default: drawn anew, see
   * manualSeed(). A CUDA graph repeats a number, or a seed drawn, in every replay; a tensor's values it reads anew.
   */
  seed?: number | bigint | Tensor;
  /** Which draw of the seed: as `seed`. The steps of a generation pass 0, 1, 2 and so on. Default 0. */
  offset?: number | bigint | Tensor;
}

/** Of the operators that draw. */
export interface SamplingOptions extends DrawOptions {
  /** As FlashInfer's. The same call gives the same tokens in any case: `false` changes nothing. */
  deterministic?: boolean;
  /**
   * Throw where the input holds NaN, which else counts as no token. Reads the input once more and waits for the device,
   * so it is refused in a capture. Default false.
   */
  checkNan?: boolean;
}

/** Of operators that draw from probabilities. */
export interface ProbsSamplingOptions extends SamplingOptions {
  /**
   * Return `[tokens, valid]`: bool `[batch]`, false where nothing in the row has a positive probability, or the row is
   * not there, and the token is 0 for that. Default false.
   */
  returnValid?: boolean;
}

/** What a call with `returnValid` gives. */
export type ValidTokens = [tokens: Tensor<'int32'>, valid: Tensor<'bool'>];

export const drawNames: readonly (keyof DrawOptions)[] = ['indices', 'seed', 'offset'];
const names: readonly (keyof SamplingOptions)[] = [...drawNames, 'deterministic', 'checkNan'];
export const indicesRule = { dtypes: ['int32'] as readonly DType[], contiguous: true };
const seedRule = { dtypes: ['int64'] as readonly DType[], contiguous: true };

/** The checker of the call, which knows the dim 'batch' afterwards. */
export function checkSampling(
  caller: string,
  name: 'probs' | 'logits',
  x: Tensor,
  options: SamplingOptions,
  moreOptions: readonly string[] = [],
): Checker {
  const check = new Checker(caller);
  check.options(options, moreOptions.length === 0 ? names : [...names, ...moreOptions]);
  checkRows(check, name, x, options.indices === undefined ? 'batch' : 'rows');
  check.optionalTensor('indices', options.indices, ['batch'], indicesRule);
  checkSeed(check, 'seed', options.seed);
  checkSeed(check, 'offset', options.offset);
  return check.flag('deterministic', options.deterministic).flag('checkNan', options.checkNan);
}

export function checkSeed(check: Checker, name: string, seed: number | bigint | Tensor | undefined): void {
  if (seed instanceof Tensor) check.tensor(name, seed, [seed.size === 1 ? 1 : 'batch'], seedRule);
  else if (seed !== undefined && typeof seed !== 'bigint') {
    check.number(name, seed, { min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER, integer: true });
  }
}

/** As checkSampling. */
export function checkSamplingProbs(
  caller: string,
  probs: Tensor,
  options: ProbsSamplingOptions,
  moreOptions: readonly string[] = [],
): Checker {
  const check = checkSampling(caller, 'probs', probs, options, ['returnValid', ...moreOptions]);
  return check.flag('returnValid', options.returnValid);
}

/** Tokens of one call on probabilities, and where they are none if asked for. */
export function drawFromProbs(
  run: SamplingRun,
  check: Checker,
  probs: Tensor,
  options: ProbsSamplingOptions,
): Tensor<'int32'> | ValidTokens {
  if (options.returnValid !== true) return drawTokens(run, check, probs, options);
  const valid = empty([check.dim('batch')], { dtype: 'bool', device: probs.device });
  return [drawTokens(run.withValid(valid), check, probs, options), valid];
}

/** Tokens of one call. */
export function drawTokens(run: SamplingRun, check: Checker, x: Tensor, options: SamplingOptions): Tensor<'int32'> {
  const { indices, seed, offset, checkNan } = options;
  if (checkNan === true) refuseNan(check, run.inputName, x);
  const caller = check.functionName;
  run.withDraw(
    seed instanceof Tensor ? seed : seed === undefined ? drawSeed() : toSeed(seed, caller),
    offset instanceof Tensor ? offset : toSeed(offset ?? 0, caller),
    indices,
  );
  return run.into(empty([check.dim('batch')], { dtype: 'int32', device: x.device }));
}
