// SPDX-License-Identifier: Apache-2.0
// Packing custom masks into bits, bound by bandwidth.
import { type Device, packbits, rand, segmentPackbits, type Tensor } from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

function randomMask(device: Device, size: number, seed: number): Tensor {
  const values = rand([size], { dtype: 'float16', device, seed });
  const mask = values.to('bool');
  values.dispose();
  return mask;
}

/** The mask of `qoLen` queries by as many keys. */
function packCase(qoLen: number): DeviceCase {
  const size = qoLen * qoLen;
  return {
    kind: 'device',
    name: `quantization/packbits_${qoLen}x${qoLen}`,
    params: { qoLen, kvLen: qoLen, bitorder: 'little' },
    devices: ['cpu', 'cuda'],
    bytes: size + Math.ceil(size / 8),
    flops: 0,
    setup({ device }, rotations) {
      const masks = Array.from({ length: rotations }, (_, seed) => randomMask(device, size, seed));
      return {
        run(rotation) {
          packbits(masks[rotation]!, { bitorder: 'little' }).dispose();
        },
        dispose() {
          for (const mask of masks) mask.dispose();
        },
      };
    },
  };
}

/** The masks of a batch, each of which starts on a byte of its own; most of their sizes are no multiples of eight. */
function segmentCase(batch: number, qoLen: number): DeviceCase {
  const indptr = [0];
  for (let r = 0; r < batch; ++r) indptr.push(indptr[r]! + (qoLen + r) * (qoLen + r));
  const size = indptr[batch]!;
  return {
    kind: 'device',
    name: `quantization/segment_packbits_b${batch}_${qoLen}x${qoLen}`,
    params: { batch, qoLen, kvLen: qoLen, bitorder: 'little' },
    devices: ['cpu', 'cuda'],
    bytes: size + Math.ceil(size / 8),
    flops: 0,
    capturable: false,
    setup({ device }, rotations) {
      const masks = Array.from({ length: rotations }, (_, seed) => randomMask(device, size, seed));
      return {
        run: (rotation) => segmentPackbits(masks[rotation]!, indptr, { bitorder: 'little' })[0].dispose(),
        dispose() {
          for (const mask of masks) mask.dispose();
        },
      };
    },
  };
}

export const packbitsCases: DeviceCase[] = [...[1024, 8192].map(packCase), segmentCase(16, 255), segmentCase(16, 1021)];
