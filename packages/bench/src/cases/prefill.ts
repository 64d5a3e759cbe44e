// SPDX-License-Identifier: Apache-2.0
import { singlePrefillWithKVCache } from '@flashinfer/core';
import {
  type AttentionParams,
  attentionBuffers,
  attentionBytes,
  attentionFlops,
  describe,
  disposeBuffers,
} from './attentionCase.ts';
import type { DeviceCase, DeviceKind } from './benchCase.ts';

type Shape = Omit<AttentionParams, 'qoLen' | 'kvLen'> & { readonly length: number };

/** Square self-attention, the shape of a prompt. */
function prefillCase({ length, ...shape }: Shape, devices: DeviceKind[]): DeviceCase {
  const params: AttentionParams = { ...shape, qoLen: length, kvLen: length };
  const { numQoHeads, numKvHeads, headDim, dtype, causal } = params;
  const heads = numQoHeads === numKvHeads ? `H${numQoHeads}` : `H${numQoHeads}k${numKvHeads}`;
  return {
    ...describe('prefill', params, devices),
    ...(dtype === 'bfloat16' && { anchor: `prefill_B1_L${length}_${heads}_D${headDim}_${causal ? 'causal' : 'full'}` }),
    kind: 'device',
    bytes: attentionBytes(params),
    flops: attentionFlops(params),
    dtype,
    setup(context, rotations) {
      const buffers = attentionBuffers(context, rotations, [length, numQoHeads, headDim], params);
      return {
        run(rotation) {
          const { q, k, v, out } = buffers[rotation]!;
          singlePrefillWithKVCache(q, k, v, { causal, out });
        },
        dispose: () => disposeBuffers(buffers),
      };
    },
  };
}

const lengths = [2048, 8192, 16384];
const masks = [true, false];

export const prefillCases: DeviceCase[] = [
  ...(
    [
      [64, 32, 32],
      [128, 32, 32],
      [256, 16, 16],
    ] as const
  ).flatMap(([headDim, numQoHeads, numKvHeads]) =>
    lengths.flatMap((length) =>
      masks.map((causal) =>
        prefillCase({ length, numQoHeads, numKvHeads, headDim, dtype: 'bfloat16', causal }, ['cuda']),
      ),
    ),
  ),
  ...lengths.map((length) =>
    prefillCase({ length, numQoHeads: 32, numKvHeads: 8, headDim: 128, dtype: 'bfloat16', causal: true }, ['cuda']),
  ),
  ...(['float32', 'bfloat16', 'float16'] as const).flatMap((dtype) =>
    [512, 2048].map((length) =>
      prefillCase({ length, numQoHeads: 32, numKvHeads: 32, headDim: 128, dtype, causal: true }, ['cpu']),
    ),
  ),
];
