// SPDX-License-Identifier: Apache-2.0
// Softmax, sampling and filters of the rows of a vocabulary, bound by one read of them, and one write of whole rows.
import {
  LogitsPipe,
  MinP,
  minPSamplingFromProbs,
  randn,
  Sample,
  Softmax,
  samplingFromLogits,
  samplingFromProbs,
  softmax,
  Temperature,
  type Tensor,
  TopK,
  TopP,
  topKMaskLogits,
  topKRenormProbs,
  topKSamplingFromProbs,
  topKTopPSamplingFromLogits,
  topKTopPSamplingFromProbs,
  topPRenormProbs,
  topPSamplingFromProbs,
} from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

const vocab = 128_256;
const draw = { seed: 1 };

interface Operation {
  readonly takes: 'logits' | 'probs';
  readonly writesRows: boolean;
  /** Not measured with a peer. */
  readonly unanchored?: boolean;
  readonly run: (x: Tensor) => Tensor;
}

const temperature = 0.8;
const pipe = new LogitsPipe([new Temperature(), new TopK(), new Softmax(), new TopP(), new Sample()]);
const pipeParams = { temperature, topK: 40, topP: 0.9, ...draw };

const minPPipe = new LogitsPipe([new Temperature(), new Softmax(), new MinP(), new Sample()]);

/** What the pipe does in one launch, step by step. */
function chained(logits: Tensor): Tensor {
  const all = softmax(logits, { temperature });
  const kept = topKRenormProbs(all, 40);
  const tokens = topPSamplingFromProbs(kept, 0.9, draw);
  all.dispose();
  kept.dispose();
  return tokens;
}

const operations: Record<string, Operation> = {
  softmax: { takes: 'logits', writesRows: true, run: (x) => softmax(x) },
  sampling_from_probs: { takes: 'probs', writesRows: false, run: (x) => samplingFromProbs(x, draw) },
  sampling_from_logits: { takes: 'logits', writesRows: false, run: (x) => samplingFromLogits(x, draw) },
  'top_p_0.9': { takes: 'probs', writesRows: false, run: (x) => topPSamplingFromProbs(x, 0.9, draw) },
  top_k_40: { takes: 'probs', writesRows: false, run: (x) => topKSamplingFromProbs(x, 40, draw) },
  'top_k_40_top_p_0.9': { takes: 'probs', writesRows: false, run: (x) => topKTopPSamplingFromProbs(x, 40, 0.9, draw) },
  'min_p_0.1': { takes: 'probs', writesRows: false, run: (x) => minPSamplingFromProbs(x, 0.1, draw) },
  'top_p_renorm_0.9': { takes: 'probs', writesRows: true, run: (x) => topPRenormProbs(x, 0.9) },
  top_k_renorm_40: { takes: 'probs', writesRows: true, run: (x) => topKRenormProbs(x, 40) },
  'top_k_40_top_p_0.9_from_logits': {
    takes: 'logits',
    writesRows: false,
    unanchored: true,
    run: (x) => topKTopPSamplingFromLogits(x, 40, 0.9, draw),
  },
  logits_pipe: { takes: 'logits', writesRows: false, unanchored: true, run: (x) => pipe.run(x, pipeParams) },
  logits_pipe_unfused: { takes: 'logits', writesRows: false, unanchored: true, run: chained },
  logits_pipe_min_p: {
    takes: 'logits',
    writesRows: false,
    unanchored: true,
    run: (x) => minPPipe.run(x, { temperature, minP: 0.1, ...draw }),
  },
  top_k_mask_40: { takes: 'logits', writesRows: true, run: (x) => topKMaskLogits(x, 40) },
};

function samplingCase(name: string, operation: Operation, batch: number): DeviceCase {
  return {
    kind: 'device',
    name: `sampling/${name}_${batch}x${vocab}_f32`,
    params: { batch, vocab, dtype: 'float32' },
    devices: ['cpu', 'cuda'],
    ...(!operation.unanchored && { anchor: `${name}_B${batch}_V${vocab}` }),
    bytes: batch * vocab * 4 * (operation.writesRows ? 2 : 1),
    flops: 0,
    setup({ device }, rotations) {
      const inputs = Array.from({ length: rotations }, (_, seed) => {
        const logits = randn([batch, vocab], { device, seed });
        if (operation.takes === 'logits') return logits;
        const probs = softmax(logits);
        logits.dispose();
        return probs;
      });
      return {
        run(rotation) {
          operation.run(inputs[rotation]!).dispose();
        },
        dispose() {
          for (const input of inputs) input.dispose();
        },
      };
    },
  };
}

export const samplingCases: DeviceCase[] = [1, 16, 128, 512].flatMap((batch) =>
  Object.entries(operations).map(([name, operation]) => samplingCase(name, operation, batch)),
);
