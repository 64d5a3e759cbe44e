// SPDX-License-Identifier: Apache-2.0
// Which launches a LogitsPipe takes: as many steps as one kernel does in their order, then the next.
import type { PipeInput } from './logitsProcessors.ts';
import { type LogitsProcessor, pipeSteps } from './logitsProcessors.ts';
import type { SamplingKind } from './samplingKernel.ts';

/** One launch, and the parameters it reads. */
export interface PipeLaunch {
  readonly kind: SamplingKind;
  readonly temperature: boolean;
  readonly topK: boolean;
  readonly topP: boolean;
  readonly minP: boolean;
  /** Top-p sees the whole row. */
  readonly joint: boolean;
}

export interface PipePlan {
  readonly launches: readonly PipeLaunch[];
  readonly output: PipeInput | 'tokens';
}

/** The first step that does not take what the one before gives. */
export interface PipeMistake {
  readonly index: number;
  readonly given: PipeInput | 'tokens';
}

type Filter = 'topK' | 'topP' | 'minP';

/** Steps that wait for a launch. */
interface Pending {
  /** What stands in memory before them. */
  readonly from: PipeInput;
  temperature: boolean;
  softmax: boolean;
  readonly filters: Filter[];
  joint: boolean;
}

export function planPipe(
  processors: readonly LogitsProcessor[],
  input: PipeInput,
): PipePlan | { mistake: PipeMistake } {
  const launches: PipeLaunch[] = [];
  let state: PipeInput | 'tokens' = input;
  let pending = nothing(input);
  for (const [index, processor] of processors.entries()) {
    const next: PipeInput | 'tokens' | undefined = state === 'tokens' ? undefined : pipeSteps[processor.kind][state];
    if (next === undefined) return { mistake: { index, given: state } };
    if (!joins(pending, processor)) {
      launches.push(...withoutDraw(pending));
      pending = nothing(state as PipeInput);
    }
    add(pending, processor);
    state = next;
    if (state === 'tokens') launches.push(launch(pending.from === 'logits' ? 'sampleLogits' : 'sampleProbs', pending));
  }
  if (state !== 'tokens') launches.push(...withoutDraw(pending));
  return { launches, output: state };
}

function nothing(from: PipeInput): Pending {
  return { from, temperature: false, softmax: false, filters: [], joint: false };
}

/**
 * Whether a kernel that does the pending steps does this one after them. Each filter once; min-p before top-p, for the
 * kernels' top-p sees what min-p left. Top-k and min-p go either way round: both keep the same whatever the other does.
 */
function joins(pending: Pending, { kind }: LogitsProcessor): boolean {
  if (kind === 'temperature') return !pending.temperature;
  if (kind === 'softmax' || kind === 'sample') return true;
  return !pending.filters.includes(kind) && !(kind === 'minP' && pending.filters.includes('topP'));
}

function add(pending: Pending, processor: LogitsProcessor): void {
  if (processor.kind === 'temperature') pending.temperature = true;
  else if (processor.kind === 'softmax') pending.softmax = true;
  else if (processor.kind !== 'sample') {
    // Top-k of what top-p left is top-k of all of it within the nucleus: both look at the whole row.
    if (processor.kind === 'topK') pending.joint = processor.joint || pending.filters.includes('topP');
    pending.filters.push(processor.kind);
  }
}

/** The pending steps as whole rows. */
function withoutDraw(pending: Pending): PipeLaunch[] {
  const { from, softmax, temperature, filters } = pending;
  if (from === 'logits' && !softmax) return temperature || filters.length > 0 ? [launch('maskLogits', pending)] : [];
  const launches: PipeLaunch[] = [];
  if (softmax) launches.push(launch('softmax', { ...nothing('logits'), temperature }));
  // The k largest logits are the k largest probabilities.
  if (filters.length > 0) launches.push(launch('renormProbs', { ...pending, temperature: false }));
  return launches;
}

function launch(kind: SamplingKind, { temperature, filters, joint }: Pending): PipeLaunch {
  const has = (filter: Filter): boolean => filters.includes(filter);
  return { kind, temperature, topK: has('topK'), topP: has('topP'), minP: has('minP'), joint };
}
