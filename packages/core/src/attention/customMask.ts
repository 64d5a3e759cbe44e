// SPDX-License-Identifier: Apache-2.0
// The mask of a prefill call: causal, a bool mask packed here, or bits that the caller packed.
import type { Checker } from '../check/checker.ts';
import { InvalidArgumentError } from '../errors.ts';
import { packBits } from '../quantization/packBitsKernel.ts';
import type { Device } from '../runtime/device.ts';
import { empty } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { flag, type SinglePrefillOptions } from './options.ts';
import type { AttentionRequest } from './request.ts';

/** `temporaries` are this call's own tensors, to dispose of once the kernels that read them are launched. */
type ResolvedMask = Pick<AttentionRequest, 'maskMode' | 'customMask' | 'temporaries'>;

/** Which mask a call uses: a custom one replaces `causal`, as FlashInfer's does. */
export function resolveCustomMask(
  functionName: string,
  check: Checker,
  options: SinglePrefillOptions,
  qoLen: number,
  kvLen: number,
  device: Device,
): ResolvedMask {
  const { customMask, packedCustomMask } = options;
  const causal = flag(functionName, 'causal', options.causal);
  if (customMask === undefined && packedCustomMask === undefined) {
    return { maskMode: causal ? 'causal' : 'none', customMask: undefined, temporaries: [] };
  }
  if (customMask !== undefined && packedCustomMask !== undefined) {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${functionName}: customMask and packedCustomMask are both given; expected one of them; leave the other out`,
    );
  }
  if (packedCustomMask !== undefined) {
    const bytes = Math.ceil((qoLen * kvLen) / 8);
    check.tensor('packedCustomMask', packedCustomMask, [bytes], { dtypes: ['uint8'], device, contiguous: true });
    return { maskMode: 'custom', customMask: packedCustomMask, temporaries: [] };
  }
  check.tensor('customMask', customMask!, ['qoLen', 'kvLen'], { dtypes: ['bool'], device });
  const packed = packMask(customMask!);
  return { maskMode: 'custom', customMask: packed, temporaries: [packed] };
}

/** bool tensor → uint8 tensor of its bits in row-major order, first element in bit 0. */
function packMask(strided: Tensor): Tensor {
  using mask = strided.contiguous();
  const packed = empty([Math.ceil(mask.size / 8)], { dtype: 'uint8', device: mask.device });
  packBits(mask, packed, 'little');
  return packed;
}
