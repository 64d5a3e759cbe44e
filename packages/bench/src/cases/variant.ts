// SPDX-License-Identifier: Apache-2.0
// Custom variants beside the built-in options that do the same.
import {
  defineAttentionVariant,
  rand,
  type SinglePrefillOptions,
  singleDecodeWithKVCache,
  singlePrefillWithKVCache,
  type Tensor,
} from '@flashinfer/core';
import {
  type AttentionParams,
  attentionBuffers,
  attentionBytes,
  attentionFlops,
  disposeBuffers,
} from './attentionCase.ts';
import type { BenchContext, DeviceCase, DeviceKind } from './benchCase.ts';

const softCap = defineAttentionVariant({
  name: 'soft_cap',
  params: { cap: 'float32' },
  logitsTransform: 'cap * tanh_precise(logits * (1.0f / cap))',
});
const alibi = defineAttentionVariant({
  name: 'alibi',
  params: { slopes: 'float32[]' },
  logitsTransform: 'logits + slopes[qoHeadIdx] * (kvIdx - qoIdx)',
});
const sigmoid = defineAttentionVariant({
  name: 'flash_sigmoid',
  params: { bias: 'float32' },
  logitsTransform: 'reciprocal_approx(1.0f + exp2_approx(-kLog2e * (logits + bias)))',
  useSoftmax: false,
});

/** Options of one call, and a tensor to give back when there is one. */
interface VariantOptions {
  readonly options: Pick<SinglePrefillOptions, 'variant' | 'variantParams' | 'logitsSoftCap' | 'posEncodingMode'>;
  readonly tensor?: Tensor;
}

const variants: readonly [string, (context: BenchContext, numQoHeads: number) => VariantOptions][] = [
  ['none', () => ({ options: {} })],
  ['built_in_soft_cap', () => ({ options: { logitsSoftCap: 30 } })],
  ['soft_cap', () => ({ options: { variant: softCap, variantParams: { cap: 30 } } })],
  ['built_in_alibi', () => ({ options: { posEncodingMode: 'ALIBI' } })],
  [
    'alibi',
    ({ device }, numQoHeads) => {
      const slopes = rand([numQoHeads], { dtype: 'float32', device, seed: 9 });
      return { options: { variant: alibi, variantParams: { slopes } }, tensor: slopes };
    },
  ],
  ['sigmoid', () => ({ options: { variant: sigmoid, variantParams: { bias: -8 } } })],
];

function variantCases(params: AttentionParams, devices: DeviceKind[]): DeviceCase[] {
  const { qoLen, kvLen, numQoHeads, headDim, causal, dtype } = params;
  const decodes = qoLen === 1;
  return variants.map(([name, make]) => ({
    name: `variant/${decodes ? 'decode' : 'prefill'}_${name}_kv${kvLen}_d${headDim}`,
    params: { ...params, variant: name },
    devices,
    kind: 'device',
    bytes: attentionBytes(params),
    flops: decodes ? 0 : attentionFlops(params),
    dtype,
    setup(context, rotations) {
      const { options, tensor } = make(context, numQoHeads);
      const shape = decodes ? [numQoHeads, headDim] : [qoLen, numQoHeads, headDim];
      const buffers = attentionBuffers(context, rotations, shape, params);
      return {
        run(rotation) {
          const { q, k, v, out } = buffers[rotation]!;
          if (decodes) singleDecodeWithKVCache(q, k, v, { ...options, out });
          else singlePrefillWithKVCache(q, k, v, { ...options, causal, out });
        },
        dispose() {
          disposeBuffers(buffers);
          tensor?.dispose();
        },
      };
    },
  }));
}

const shape = { numQoHeads: 32, numKvHeads: 8, headDim: 128, dtype: 'bfloat16' } as const;

export const variantBenchCases: DeviceCase[] = [
  ...variantCases({ ...shape, qoLen: 8192, kvLen: 8192, causal: true }, ['cuda']),
  ...variantCases({ ...shape, qoLen: 1, kvLen: 65536, causal: false }, ['cuda']),
  ...variantCases({ ...shape, qoLen: 1024, kvLen: 1024, causal: true }, ['cpu']),
  ...variantCases({ ...shape, qoLen: 1, kvLen: 16384, causal: false }, ['cpu']),
];
