// SPDX-License-Identifier: Apache-2.0
// Operations on whole tensors, bound by bandwidth: conversion between dtypes and random numbers.
import { empty, randn } from '@flashinfer/core';
import { castContiguous, fillNormal } from '@flashinfer/core/internal';
import type { DeviceCase, DeviceKind } from './benchCase.ts';

const both: DeviceKind[] = ['cpu', 'cuda'];

function castCase(count: number): DeviceCase {
  return {
    kind: 'device',
    name: `elementwise/cast_f32_bf16_${count}`,
    params: { count, from: 'float32', to: 'bfloat16' },
    devices: both,
    bytes: count * (4 + 2),
    flops: 0,
    setup({ device }, rotations) {
      const pairs = Array.from({ length: rotations }, (_, seed) => ({
        src: randn([count], { dtype: 'float32', device, seed }),
        dst: empty([count], { dtype: 'bfloat16', device }),
      }));
      return {
        run(rotation) {
          const { src, dst } = pairs[rotation]!;
          castContiguous(src, dst);
        },
        dispose() {
          for (const { src, dst } of pairs) {
            src.dispose();
            dst.dispose();
          }
        },
      };
    },
  };
}

function randnCase(count: number): DeviceCase {
  return {
    kind: 'device',
    name: `elementwise/randn_bf16_${count}`,
    params: { count, dtype: 'bfloat16' },
    devices: both,
    bytes: count * 2,
    flops: 0,
    setup({ device }, rotations) {
      const tensors = Array.from({ length: rotations }, () => empty([count], { dtype: 'bfloat16', device }));
      return {
        run: (rotation) => fillNormal(tensors[rotation]!, BigInt(rotation)),
        dispose() {
          for (const x of tensors) x.dispose();
        },
      };
    },
  };
}

const counts = [1 << 20, 1 << 25];
export const elementwiseCases: DeviceCase[] = [...counts.map(castCase), ...counts.map(randnCase)];
