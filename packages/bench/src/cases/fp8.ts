// SPDX-License-Identifier: Apache-2.0
// Quantisation to fp8 and back, bound by bandwidth.
import {
  dequantizeFp8,
  empty,
  quantizeFp8PerBlock,
  quantizeFp8PerTensor,
  quantizeFp8PerToken,
  randn,
  type Tensor,
} from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

type Quantize = (x: Tensor, out: Tensor) => Tensor;

/** `reads`: how often x is read; a whole tensor's scale needs all of it first. */
const schemes: Readonly<Record<string, { quantize: Quantize; reads: number }>> = {
  per_tensor: { quantize: (x, out) => quantizeFp8PerTensor(x, { out })[1], reads: 2 },
  per_token: { quantize: (x, out) => quantizeFp8PerToken(x, { out })[1], reads: 1 },
  per_block_1x128: { quantize: (x, out) => quantizeFp8PerBlock(x, { out })[1], reads: 1 },
  per_block_128x128: { quantize: (x, out) => quantizeFp8PerBlock(x, { out, blockShape: [128, 128] })[1], reads: 1 },
};

function quantizeCase(scheme: string, tokens: number, length: number): DeviceCase {
  const { quantize, reads } = schemes[scheme]!;
  return {
    kind: 'device',
    name: `quantization/fp8_${scheme}_${tokens}x${length}_bf16`,
    params: { scheme, tokens, length, dtype: 'bfloat16', outDtype: 'float8_e4m3fn' },
    devices: ['cpu', 'cuda'],
    bytes: tokens * length * (2 * reads + 1),
    flops: 0,
    setup({ device }, rotations) {
      const sets = Array.from({ length: rotations }, (_, seed) => ({
        x: randn([tokens, length], { dtype: 'bfloat16', device, seed }),
        out: empty([tokens, length], { dtype: 'float8_e4m3fn', device }),
      }));
      return {
        run(rotation) {
          const { x, out } = sets[rotation]!;
          quantize(x, out).dispose();
        },
        dispose() {
          for (const tensor of sets.flatMap(({ x, out }) => [x, out])) tensor.dispose();
        },
      };
    },
  };
}

function dequantizeCase(tokens: number, length: number): DeviceCase {
  return {
    kind: 'device',
    name: `quantization/dequantize_fp8_1x128_${tokens}x${length}_bf16`,
    params: { scheme: 'per_block_1x128', tokens, length, dtype: 'float8_e4m3fn', outDtype: 'bfloat16' },
    devices: ['cpu', 'cuda'],
    bytes: tokens * length * 3,
    flops: 0,
    setup({ device }, rotations) {
      const sets = Array.from({ length: rotations }, (_, seed) => {
        const x = randn([tokens, length], { dtype: 'bfloat16', device, seed });
        const [q, scale] = quantizeFp8PerBlock(x);
        return { q, scale, out: x };
      });
      return {
        run(rotation) {
          const { q, scale, out } = sets[rotation]!;
          dequantizeFp8(q, scale, { out });
        },
        dispose() {
          for (const tensor of sets.flatMap(({ q, scale, out }) => [q, scale, out])) tensor.dispose();
        },
      };
    },
  };
}

export const fp8Cases: DeviceCase[] = [
  ...Object.keys(schemes).flatMap((scheme) => [quantizeCase(scheme, 64, 4096), quantizeCase(scheme, 8192, 8192)]),
  dequantizeCase(8192, 8192),
];
