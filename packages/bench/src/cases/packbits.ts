// SPDX-License-Identifier: Apache-2.0
// Packing custom masks into bits, bound by bandwidth.
import { packbits, rand, type Tensor } from '@flashinfer/core';
import type { DeviceCase } from './benchCase.ts';

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
      const masks = Array.from({ length: rotations }, (_, seed): Tensor => {
        const values = rand([size], { dtype: 'float16', device, seed });
        const mask = values.to('bool');
        values.dispose();
        return mask;
      });
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

export const packbitsCases: DeviceCase[] = [1024, 8192].map(packCase);
