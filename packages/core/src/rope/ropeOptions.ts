// SPDX-License-Identifier: Apache-2.0
// Options of rotary embeddings, their defaults and checks.
import type { Checker } from '../check/checker.ts';
import { describeValue } from '../check/describeValue.ts';
import type { DependentLaunchOptions } from '../runtime/dependentLaunch.ts';
import { maxRotaryDim } from './ropeKernel.ts';
import type { RopeFrequencies } from './runRope.ts';

/** Options of `applyRope`, `applyRopePosIds` and their in-place forms. */
export interface RopeOptions extends DependentLaunchOptions {
  /** Elements of a head that are rotated, from its start; even, up to 1024. Default: headDim. */
  rotaryDim?: number;
  /** Pairs neighbouring elements, 2d with 2d + 1, instead of halves, d with d + rotaryDim / 2. Default false. */
  interleave?: boolean;
  /** Divides frequencies. Default 1, of the Llama 3.1 forms 8. */
  ropeScale?: number;
  /** Base of the frequencies. Default 10000, of the Llama 3.1 forms 500000. */
  ropeTheta?: number;
}

/** Options of `applyLlama31Rope`, `applyLlama31RopePosIds` and their in-place forms. */
export interface Llama31RopeOptions extends RopeOptions {
  /** Wavelengths above oldContextLen / lowFreqFactor are scaled fully. Default 1. */
  lowFreqFactor?: number;
  /** Wavelengths below oldContextLen / highFreqFactor are not scaled; above lowFreqFactor. Default 4. */
  highFreqFactor?: number;
  /** Context length the model was trained with at first, tokens. Default 8192. */
  oldContextLen?: number;
}

const names: readonly (keyof RopeOptions)[] = ['rotaryDim', 'interleave', 'ropeScale', 'ropeTheta', 'enablePdl'];
const llama31Names: readonly (keyof Llama31RopeOptions)[] = [
  ...names,
  'lowFreqFactor',
  'highFreqFactor',
  'oldContextLen',
];

export function readFrequencies(check: Checker, options: RopeOptions): RopeFrequencies {
  check.options(options, names);
  const ropeScale = positive(check, 'ropeScale', options.ropeScale, 1);
  const theta = positive(check, 'ropeTheta', options.ropeTheta, 1e4);
  return { rcpScale: 1 / ropeScale, theta, smoothA: 0, smoothB: 0 };
}

/** The share of a frequency that is kept grows linearly between the two wavelengths (Llama 3.1's `rope_scaling`). */
export function readLlama31Frequencies(check: Checker, options: Llama31RopeOptions): RopeFrequencies {
  check.options(options, llama31Names);
  const ropeScale = positive(check, 'ropeScale', options.ropeScale, 8);
  const theta = positive(check, 'ropeTheta', options.ropeTheta, 5e5);
  const low = positive(check, 'lowFreqFactor', options.lowFreqFactor, 1);
  const high = positive(check, 'highFreqFactor', options.highFreqFactor, 4);
  const oldContextLen = positive(check, 'oldContextLen', options.oldContextLen, 8192);
  if (high <= low) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `highFreqFactor is ${high}; expected more than lowFreqFactor=${low}; leave both out for 4 and 1`,
    );
  }
  const smoothA = oldContextLen / (2 * Math.PI * (high - low));
  return { rcpScale: 1 / ropeScale, theta, smoothA, smoothB: -low / (high - low) };
}

export function readRotaryDim(check: Checker, rotaryDim: number | undefined, headDim: number): number {
  const value = rotaryDim === undefined ? headDim : rotaryDim;
  const most = Math.min(headDim, maxRotaryDim);
  if (Number.isInteger(value) && value >= 2 && value % 2 === 0 && value <= most) return value;
  const given = rotaryDim === undefined ? `headDim=${headDim}, since it was left out` : describeValue(rotaryDim);
  throw check.error(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `rotaryDim is ${given}; expected an even number from 2 to ${most}, at most headDim=${headDim}; ` +
      'it counts elements, not pairs',
  );
}

function positive(check: Checker, name: string, value: number | undefined, fallback: number): number {
  if (value === undefined) return fallback;
  if (typeof value === 'number' && value > 0 && value < Infinity) return value;
  throw check.error(
    'ERR_FLASHINFER_INVALID_SCALE',
    `${name} is ${describeValue(value)}; expected a finite number above 0; leave it out for ${fallback}`,
  );
}
