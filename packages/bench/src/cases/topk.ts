// SPDX-License-Identifier: Apache-2.0
// The largest logits of a vocabulary, bound by one read of them.
import { randn, topK } from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

const length = 128_256;

function topKCase(batch: number, k: number, sorted: boolean): DeviceCase {
  return {
    kind: 'device',
    name: `topk/${sorted ? 'sorted_' : ''}k${k}_${batch}x${length}_f32`,
    params: { batch, length, k, sorted, dtype: 'float32' },
    devices: ['cpu', 'cuda'],
    ...(k === 2048 && !sorted ? { anchor: `topk_2048_B${batch}_V${length}` } : {}),
    bytes: batch * length * 4 + batch * k * 8,
    flops: 0,
    setup({ device }, rotations) {
      const logits = Array.from({ length: rotations }, (_, seed) => randn([batch, length], { device, seed }));
      return {
        run(rotation) {
          for (const tensor of topK(logits[rotation]!, k, { sorted })) tensor.dispose();
        },
        dispose() {
          for (const tensor of logits) tensor.dispose();
        },
      };
    },
  };
}

export const topKCases: DeviceCase[] = [1, 16, 128, 512].flatMap((batch) => [
  topKCase(batch, 2048, false),
  topKCase(batch, 2048, true),
  topKCase(batch, 40, false),
]);
