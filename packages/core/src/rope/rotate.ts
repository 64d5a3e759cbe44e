// SPDX-License-Identifier: Apache-2.0
// What the operators with angles of frequencies share: everything but where tokens stand.
import { Checker } from '../check/checker.ts';
import { checkSeparate } from '../check/overlap.ts';
import { logCall } from '../logging.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { checkQk, rotationOf } from './checkRope.ts';
import { type Llama31RopeOptions, type readLlama31Frequencies, readRotaryDim } from './ropeOptions.ts';
import { type RopePositions, runRope } from './runRope.ts';

interface RotateCall {
  readonly name: string;
  readonly q: Tensor;
  readonly k: Tensor;
  /** What says where tokens stand, by name. */
  readonly where: Readonly<Record<string, Tensor>>;
  readonly options: Llama31RopeOptions;
  readonly readAngles: typeof readLlama31Frequencies;
  readonly inPlace: boolean;
}

export function rotate(call: RotateCall, readPositions: (check: Checker) => RopePositions): [Tensor, Tensor] {
  const { name, q, k, where, options, readAngles, inPlace } = call;
  const check = new Checker(name);
  checkQk(check, q, k);
  const angles = readAngles(check, options);
  check.flag('interleave', options.interleave).flag('enablePdl', options.enablePdl);
  const headDim = check.dim('headDim');
  const rotaryDim = readRotaryDim(check, options.rotaryDim, headDim);
  const positions = readPositions(check);
  if (inPlace) checkSeparate(name, 'q', q, 'k', k);
  logCall(name, { q, k, ...where, options });
  const { interleave = false, enablePdl } = options;
  const [qHeads, kHeads] = [rotationOf(q, q.shape[1]!, inPlace), rotationOf(k, k.shape[1]!, inPlace)];
  runRope({ q: qHeads, k: kHeads, headDim, rotaryDim, interleave, positions, angles, enablePdl });
  return [qHeads.out, kHeads.out];
}
