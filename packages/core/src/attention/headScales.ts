// SPDX-License-Identifier: Apache-2.0
// Scales of float8 attention, one a head.
import type { Checker } from '../check/checker.ts';
import type { Device } from '../runtime/device.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AttentionOptions } from './options.ts';

/** float32: q `[numQoHeads]`, k and v `[numKvHeads]`; absent: a number, which is in smScale or vScale. */
export interface HeadScales {
  readonly q: Tensor | undefined;
  readonly k: Tensor | undefined;
  readonly v: Tensor | undefined;
}

const scaleNames = ['qScale', 'kScale', 'vScale'] as const;

/** The scales of a call that are tensors, checked; `allowed` says whether its queries are float8. */
export function readHeadScales(
  check: Checker,
  options: Pick<AttentionOptions, 'qScale' | 'kScale' | 'vScale'>,
  heads: { readonly numQoHeads: number; readonly numKvHeads: number },
  allowed: boolean,
  device: Device,
): HeadScales | undefined {
  const [q, k, v] = scaleNames.map((name) => {
    const scale = options[name];
    if (!(scale instanceof Tensor)) return undefined;
    if (!allowed) {
      throw check.error(
        'ERR_FLASHINFER_INVALID_SCALE',
        `${name} is a tensor; expected a number, or float8_e4m3fn q in prefill; pass a number`,
      );
    }
    const count = name === 'qScale' ? heads.numQoHeads : heads.numKvHeads;
    check.tensor(name, scale, [count], { dtypes: ['float32'], device, contiguous: true });
    return scale;
  });
  return q === undefined && k === undefined && v === undefined ? undefined : { q, k, v };
}
