// SPDX-License-Identifier: Apache-2.0
// The mask of a prefill call: causal, a bool mask packed here, or bits that the caller packed.
import type { Checker } from '../check/checker.ts';
import { InvalidArgumentError } from '../errors.ts';
import { getKernel } from '../jit/kernel.ts';
import type { KernelSpec } from '../jit/spec.ts';
import { native } from '../native/load.ts';
import type { Device } from '../runtime/device.ts';
import { currentStream } from '../runtime/stream.ts';
import { empty } from '../tensor/create.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { flag, type SinglePrefillOptions } from './options.ts';
import type { AttentionRequest } from './request.ts';

/** `temporaries` are this call's own tensors, to dispose of once the kernels that read them are launched. */
type ResolvedMask = Pick<AttentionRequest, 'maskMode' | 'customMask' | 'temporaries'>;

/** Which mask a call uses; `customMask` replaces `causal`, so giving both is refused rather than guessed at. */
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
  if (causal || (customMask !== undefined && packedCustomMask !== undefined)) {
    const given = [causal && 'causal', customMask && 'customMask', packedCustomMask && 'packedCustomMask'];
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${functionName}: ${given.filter(Boolean).join(' and ')} are given; expected one mask; ` +
        'leave out all but one (a custom mask can contain the causal one)',
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

const threads = 256;

const packSpec: KernelSpec = {
  name: 'pack_bits_little',
  header: 'flashinfer/pack_bits.cuh',
  entry: 'flashinfer::pack_bits_little',
  params: [
    { name: 'src', type: 'ptr' },
    { name: 'dst', type: 'ptr' },
    { name: 'count', type: 'i64' },
  ],
  threads,
};

/** Kernels the mask needs besides the attention kernel itself. */
export function customMaskSpecs(): KernelSpec[] {
  return [packSpec];
}

/** bool tensor → uint8 tensor of its bits in row-major order, first element in bit 0. */
function packMask(strided: Tensor): Tensor {
  const mask = strided.contiguous();
  const packed = empty([Math.ceil(mask.size / 8)], { dtype: 'uint8', device: mask.device });
  if (mask.size === 0) return packed;
  if (mask.device === 'cpu') {
    native().cpu.packBitsLittle(mask.ptr, packed.ptr, mask.size);
  } else {
    const grid = [Math.ceil(packed.size / threads), 1, 1] as const;
    const args = { src: mask.ptr, dst: packed.ptr, count: mask.size };
    getKernel(packSpec, mask.deviceIndex).launch(grid, args, { stream: currentStream(mask.deviceIndex) });
  }
  if (mask !== strided) mask.dispose();
  return packed;
}
