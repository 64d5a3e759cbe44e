// SPDX-License-Identifier: Apache-2.0
import { singleDecodeWithKVCache } from '@flashinfer/core';
import { type AttentionParams, attentionBuffers, attentionBytes, describe, disposeBuffers } from './attentionCase.ts';
import type { DeviceCase, DeviceKind } from './benchCase.ts';

type Shape = Pick<AttentionParams, 'kvLen' | 'numQoHeads' | 'numKvHeads' | 'headDim' | 'dtype'>;

function decodeCase(shape: Shape, devices: DeviceKind[]): DeviceCase {
  const params: AttentionParams = { ...shape, qoLen: 1, causal: false };
  const { kvLen, numQoHeads, numKvHeads, headDim, dtype } = params;
  const anchored = headDim === 128 && dtype === 'bfloat16';
  return {
    ...describe('decode', params, devices),
    ...(anchored && { anchor: `decode_B1_L${kvLen}_H${numQoHeads}k${numKvHeads}_D128_ps16` }),
    kind: 'device',
    bytes: attentionBytes(params),
    flops: 0, // bound by bandwidth: even with eight query heads a key, arithmetic is far below the peak
    setup(context, rotations) {
      const buffers = attentionBuffers(context, rotations, [numQoHeads, headDim], params);
      return {
        run(rotation) {
          const { q, k, v, out } = buffers[rotation]!;
          singleDecodeWithKVCache(q, k, v, { out });
        },
        dispose: () => disposeBuffers(buffers),
      };
    },
  };
}

const cudaShapes = [1024, 8192, 65536].flatMap((kvLen) =>
  (
    [
      [32, 8],
      [32, 32],
      [64, 8],
    ] as const
  ).map(([numQoHeads, numKvHeads]) => ({ kvLen, numQoHeads, numKvHeads })),
);

export const decodeCases: DeviceCase[] = [
  ...cudaShapes.map((shape) => decodeCase({ ...shape, headDim: 128, dtype: 'bfloat16' }, ['cuda'])),
  ...([64, 256] as const).map((headDim) =>
    decodeCase({ kvLen: 65536, numQoHeads: 32, numKvHeads: 8, headDim, dtype: 'bfloat16' }, ['cuda']),
  ),
  ...(['float32', 'bfloat16', 'float16'] as const).flatMap((dtype) =>
    (
      [
        [2048, 32],
        [32768, 8],
      ] as const
    ).map(([kvLen, numKvHeads]) => decodeCase({ kvLen, numQoHeads: 32, numKvHeads, headDim: 128, dtype }, ['cpu'])),
  ),
];
