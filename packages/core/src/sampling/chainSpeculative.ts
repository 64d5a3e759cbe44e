// SPDX-License-Identifier: Apache-2.0
import { Checker } from '../check/checker.ts';
import { checkSeparate } from '../check/overlap.ts';
import type { KernelArgs } from '../jit/kernel.ts';
import { getKernel } from '../jit/kernel.ts';
import { logCall } from '../logging.ts';
import { native } from '../native/load.ts';
import { deviceProperties } from '../runtime/device.ts';
import { drawSeed, toSeed } from '../runtime/seed.ts';
import { currentStream } from '../runtime/stream.ts';
import { empty, zeros } from '../tensor/create.ts';
import { type DType, dtypes } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { vectorWidth } from '../tensor/vectorWidth.ts';
import { chainSpec, maxVocab, planSampling } from './samplingKernel.ts';
import { checkSeed, type SamplingOptions } from './samplingOptions.ts';

export interface ChainSpeculativeOptions extends Pick<SamplingOptions, 'seed' | 'offset' | 'deterministic'> {
  /** int32 `[batch]` to which the numbers of accepted tokens are added. Default: zeros. */
  accepted?: Tensor;
  /** int32 `[batch]` to which the numbers of emitted drafted tokens are added. Default: zeros. */
  emitted?: Tensor;
}

const optionNames: readonly (keyof ChainSpeculativeOptions)[] = [
  'seed',
  'offset',
  'deterministic',
  'accepted',
  'emitted',
];
const probsRule = { dtypes: ['float32', 'float16', 'bfloat16'] as readonly DType[], contiguous: true };
const intRule = { dtypes: ['int32'] as readonly DType[], contiguous: true };

/**
 * Verifies the tokens that a draft model proposed: each stands with probability min(1, target / draft). The tokens before
 * the first that does not are emitted, and one more: drawn from what the target has more than the draft there, or from
 * the target's last row where all stand. The tokens emitted are distributed as the target model's own.
 * @param draftProbs `[batch, drafted, vocab]` float32 | float16 | bfloat16, contiguous; vocab up to 2^21
 * @param draftTokenIds int32 `[batch, drafted]`, contiguous; ids that are not in the vocabulary do not stand
 * @param targetProbs `[batch, drafted + 1, vocab]`, dtype of draftProbs, contiguous
 * @param options see {@link ChainSpeculativeOptions}
 * @returns `[tokens, accepted, emitted]`, int32: tokens `[batch, drafted + 1]`, -1 behind the last; accepted `[batch]`, how
 *   many stand, each judged by itself; emitted `[batch]`, how many come before the first that does not
 * @throws {InvalidArgumentError} on a wrong shape, dtype, layout or option
 * @remarks Asynchronous on the current stream; the same at any batch size. A graph repeats a seed and an offset that are
 *   numbers, or were drawn, in every replay: pass an offset tensor and write the step to it. Replays add to the
 *   `accepted` and `emitted` that were passed; those that the call makes begin at 0.
 * @see FlashInfer `chain_speculative_sampling`
 * @example
 * ```ts
 * import { chainSpeculativeSampling, samplingFromProbs, tensor } from '@flashinfer/core';
 *
 * const draft = tensor([0.5, 0.5, 0, 0.1, 0.1, 0.8], { shape: [1, 2, 3] });
 * const ids = samplingFromProbs(draft.view(2, 3)).view(1, 2);
 * const target = tensor([0.4, 0.6, 0, 0, 0.2, 0.8, 1, 0, 0], { shape: [1, 3, 3] });
 * const [tokens, accepted, emitted] = chainSpeculativeSampling(draft, ids, target, { seed: 1 });
 * ```
 */
export function chainSpeculativeSampling(
  draftProbs: Tensor,
  draftTokenIds: Tensor,
  targetProbs: Tensor,
  options: ChainSpeculativeOptions = {},
): [tokens: Tensor<'int32'>, accepted: Tensor, emitted: Tensor] {
  const check = new Checker('chainSpeculativeSampling');
  check.tensor('draftProbs', draftProbs, ['batch', 'drafted', 'vocab'], probsRule);
  const [batch, drafted, vocab] = draftProbs.shape as [number, number, number];
  check.tensor('draftTokenIds', draftTokenIds, ['batch', 'drafted'], intRule);
  check.tensor('targetProbs', targetProbs, ['batch', drafted + 1, 'vocab'], {
    ...probsRule,
    dtypes: [draftProbs.dtype],
  });
  check.options(options, optionNames);
  checkSeed(check, 'seed', options.seed);
  checkSeed(check, 'offset', options.offset);
  check.flag('deterministic', options.deterministic);
  check.optionalTensor('accepted', options.accepted, ['batch'], intRule);
  check.optionalTensor('emitted', options.emitted, ['batch'], intRule);
  checkCounters(draftTokenIds, options);
  if (vocab < 1 || vocab > maxVocab || batch > 2 ** 24 || drafted > 2 ** 16) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `draftProbs has shape [${batch}, ${drafted}, ${vocab}]; expected 1 to ${maxVocab} columns, at most ${2 ** 24} ` +
        `requests of ${2 ** 16} tokens; pass slices`,
    );
  }
  logCall('chainSpeculativeSampling', { draftProbs, draftTokenIds, targetProbs, options });
  const { device } = draftProbs;
  const tokens = empty([batch, drafted + 1], { dtype: 'int32', device });
  const accepted = options.accepted ?? zeros([batch], { dtype: 'int32', device });
  const emitted = options.emitted ?? zeros([batch], { dtype: 'int32', device });
  if (batch > 0) {
    const args = {
      draft: draftProbs.ptr,
      target: targetProbs.ptr,
      ids: draftTokenIds.ptr,
      out: tokens.ptr,
      accepted: accepted.ptr,
      emitted: emitted.ptr,
      ...randomArgs(options),
      drafted,
      vocab,
    };
    if (draftProbs.deviceIndex < 0)
      native().cpu.chainSpeculative({ dtype: dtypes[draftProbs.dtype].code, ...args, requests: batch });
    else launch(args, draftProbs, vectorWidth(vocab, [targetProbs, draftProbs]) >= 4 ? 4 : 1, batch);
  }
  return [tokens, accepted, emitted];
}

function checkCounters(ids: Tensor, { accepted, emitted }: ChainSpeculativeOptions): void {
  const name = 'chainSpeculativeSampling';
  if (accepted !== undefined) checkSeparate(name, 'accepted', accepted, 'draftTokenIds', ids);
  if (emitted !== undefined) checkSeparate(name, 'emitted', emitted, 'draftTokenIds', ids);
  if (accepted !== undefined && emitted !== undefined) checkSeparate(name, 'accepted', accepted, 'emitted', emitted);
}

function randomArgs({ seed, offset }: ChainSpeculativeOptions) {
  const one = seed instanceof Tensor ? 0n : seed === undefined ? drawSeed() : toSeed(seed, 'chainSpeculativeSampling');
  return {
    seed: seed instanceof Tensor ? seed.ptr : 0,
    offset: offset instanceof Tensor ? offset.ptr : 0,
    seed_value: one,
    offset_value: offset instanceof Tensor ? 0n : toSeed(offset ?? 0, 'chainSpeculativeSampling'),
    seed_per_row: seed instanceof Tensor && seed.size > 1 ? 1 : 0,
    offset_per_row: offset instanceof Tensor && offset.size > 1 ? 1 : 0,
  };
}

function launch(args: KernelArgs & { readonly vocab: number }, draft: Tensor, vec: number, batch: number): void {
  const { deviceIndex } = draft;
  const device = deviceProperties(deviceIndex);
  const plan = planSampling(args.vocab, batch, false, {
    clusters: device.major >= 9,
    sharedPerBlock: device.sharedMemPerBlockOptin,
    sharedPerSm: device.sharedMemPerMultiprocessor,
    numSms: device.multiProcessorCount,
  });
  const { cluster, segment, sharedBytes } = plan;
  const kernel = getKernel(chainSpec(draft.dtype, vec, plan), deviceIndex);
  const options = { stream: currentStream(deviceIndex), sharedBytes, cluster: cluster > 1 ? cluster : 0 };
  kernel.launch([batch * cluster, 1, 1], { ...args, segment }, options);
}
