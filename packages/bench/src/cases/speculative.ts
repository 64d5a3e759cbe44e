// SPDX-License-Identifier: Apache-2.0
// Verifying the tokens of a draft model, bound by a read of the two rows of each request from which the next token is drawn.
import { chainSpeculativeSampling, randn, samplingFromProbs, softmax, type Tensor } from '@flashinfer/core';
import type { BenchContext, DeviceCase } from './benchCase.ts';

const vocab = 128_256;
const draw = { seed: 1 };

function randomProbs(device: BenchContext['device'], batch: number, rows: number, seed: number): Tensor {
  const logits = randn([batch * rows, vocab], { device, seed });
  const probs = softmax(logits);
  logits.dispose();
  return probs;
}

/** Draft and target are independent: of their tokens about half stand, so that nearly every request draws from both rows. */
function chainCase(batch: number, drafted: number): DeviceCase {
  return {
    kind: 'device',
    name: `sampling/chain_speculative_${batch}x${drafted}x${vocab}_f32`,
    params: { batch, drafted, vocab, dtype: 'float32' },
    devices: ['cpu', 'cuda'],
    bytes: batch * 2 * vocab * 4,
    flops: 0,
    setup({ device }, rotations) {
      const sets = Array.from({ length: rotations }, (_, n) => {
        const draftRows = randomProbs(device, batch, drafted, 2 * n);
        const targetRows = randomProbs(device, batch, drafted + 1, 2 * n + 1);
        const drawn = samplingFromProbs(draftRows, draw);
        const draft = draftRows.view(batch, drafted, vocab);
        const ids = drawn.view(batch, drafted);
        const target = targetRows.view(batch, drafted + 1, vocab);
        return { draft, ids, target, draftRows, drawn, targetRows };
      });
      return {
        run(rotation) {
          const { draft, ids, target } = sets[rotation]!;
          for (const each of chainSpeculativeSampling(draft, ids, target, draw)) each.dispose();
        },
        dispose() {
          for (const each of sets.flatMap((set) => Object.values(set))) each.dispose();
        },
      };
    },
  };
}

export const speculativeCases: DeviceCase[] = [1, 16, 64].map((batch) => chainCase(batch, 4));
