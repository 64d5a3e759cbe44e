// SPDX-License-Identifier: Apache-2.0
// The steps that a LogitsPipe is made of, and which of them may follow which.

import { Checker } from '../check/checker.ts';
import { checkOptions } from '../check/options.ts';

/** What stands in a row. */
export type PipeInput = 'logits' | 'probs';

/**
 * Divides logits by the parameter `temperature`; before a Softmax or Sample, 0 is the limit of small ones: only the largest
 * logits count.
 * @example
 * ```ts
 * import { LogitsPipe, randn, Sample, Temperature } from '@flashinfer/core';
 *
 * const out = new LogitsPipe([new Temperature(), new Sample()]).run(randn([4, 1000]), { temperature: 0.7 }); // int32 [4]
 * ```
 */
export class Temperature {
  readonly kind = 'temperature';
}

/**
 * Logits become probabilities, float32.
 * @example
 * ```ts
 * import { LogitsPipe, randn, Softmax } from '@flashinfer/core';
 *
 * const out = new LogitsPipe([new Softmax()]).run(randn([4, 1000]), {}); // [4, 1000]
 * ```
 */
export class Softmax {
  readonly kind = 'softmax';
}

export interface TopKProcessorOptions {
  /** A TopP that follows sees the whole row, not what is left of it. Default false. */
  jointTopKTopP?: boolean;
}

/**
 * Keeps the `topK` largest of a row and what equals the last one: other logits become -Infinity, other probabilities 0, and
 * those that are left are divided by their sum.
 * @example
 * ```ts
 * import { LogitsPipe, randn, Softmax, TopK } from '@flashinfer/core';
 *
 * const out = new LogitsPipe([new Softmax(), new TopK()]).run(randn([4, 1000]), { topK: 40 }); // [4, 1000]
 * ```
 */
export class TopK {
  readonly kind = 'topK';
  readonly joint: boolean;

  constructor(options: TopKProcessorOptions = {}) {
    checkOptions('TopK', options, ['jointTopKTopP']);
    new Checker('TopK').flag('jointTopKTopP', options.jointTopKTopP);
    this.joint = options.jointTopKTopP ?? false;
  }
}

/**
 * Keeps the most probable tokens that together have the probability `topP`, divided by their sum.
 * @example
 * ```ts
 * import { LogitsPipe, randn, Softmax, TopP } from '@flashinfer/core';
 *
 * const out = new LogitsPipe([new Softmax(), new TopP()]).run(randn([4, 1000]), { topP: 0.9 }); // [4, 1000]
 * ```
 */
export class TopP {
  readonly kind = 'topP';
}

/**
 * Keeps the tokens that are at least `minP` times as probable as the most probable one, divided by their sum.
 * @example
 * ```ts
 * import { LogitsPipe, MinP, randn, Sample, Softmax } from '@flashinfer/core';
 *
 * const out = new LogitsPipe([new Softmax(), new MinP(), new Sample()]).run(randn([4, 1000]), { minP: 0.1 }); // int32 [4]
 * ```
 */
export class MinP {
  readonly kind = 'minP';
}

export interface SampleProcessorOptions {
  /** As FlashInfer's. The same run gives the same tokens in any case: `false` changes nothing. */
  deterministic?: boolean;
}

/**
 * Draws a token a row; parameters `seed`, `offset` and `indices`, see DrawOptions.
 * @example
 * ```ts
 * import { LogitsPipe, randn, Sample } from '@flashinfer/core';
 *
 * const out = new LogitsPipe([new Sample()], { inputType: 'logits' }).run(randn([4, 1000]), { seed: 1 }); // int32 [4]
 * ```
 */
export class Sample {
  readonly kind = 'sample';

  constructor(options: SampleProcessorOptions = {}) {
    checkOptions('Sample', options, ['deterministic']);
    new Checker('Sample').flag('deterministic', options.deterministic);
  }
}

export type LogitsProcessor = Temperature | Softmax | TopK | TopP | MinP | Sample;

type Kind = LogitsProcessor['kind'];

/** What each step makes of logits and of probabilities; what is not here it does not take. */
interface Steps {
  readonly temperature: { readonly logits: 'logits' };
  readonly softmax: { readonly logits: 'probs' };
  readonly topK: { readonly logits: 'logits'; readonly probs: 'probs' };
  readonly topP: { readonly probs: 'probs' };
  readonly minP: { readonly probs: 'probs' };
  readonly sample: { readonly logits: 'tokens'; readonly probs: 'tokens' };
}

/** The same for programs without types. */
export const pipeSteps: Record<Kind, Partial<Record<PipeInput, PipeInput | 'tokens'>>> = {
  temperature: { logits: 'logits' },
  softmax: { logits: 'probs' },
  topK: { logits: 'logits', probs: 'probs' },
  topP: { probs: 'probs' },
  minP: { probs: 'probs' },
  sample: { logits: 'tokens', probs: 'tokens' },
} satisfies Steps;

type Then<State extends string, K extends Kind> = State extends keyof Steps[K]
  ? Steps[K][State]
  : `${K} does not take ${State}`;

/** What a pipe gives: 'logits', 'probs', 'tokens', or a sentence that says what is wrong. */
export type PipeOutput<P extends readonly LogitsProcessor[], State extends string> = P extends readonly [
  infer First extends LogitsProcessor,
  ...infer Rest extends readonly LogitsProcessor[],
]
  ? Then<State, First['kind']> extends infer Next extends string
    ? Next extends PipeInput | 'tokens'
      ? PipeOutput<Rest, Next>
      : Next
    : never
  : State;

/** What the first step says about the input: a step that takes only one thing says which. */
export type InputOf<P extends readonly LogitsProcessor[]> = P[0] extends { kind: 'temperature' | 'softmax' }
  ? 'logits'
  : P[0] extends { kind: 'topP' | 'minP' }
    ? 'probs'
    : undefined;

/** `P` itself where its steps fit together, else a sentence that nothing can be assigned to. */
export type LegalPipe<P extends readonly LogitsProcessor[], Input> = P extends readonly []
  ? 'a pipe needs a processor'
  : Input extends PipeInput
    ? PipeOutput<P, Input> extends PipeInput | 'tokens'
      ? P
      : PipeOutput<P, Input>
    : 'say what it takes: { inputType: "logits" } or { inputType: "probs" }';
