// SPDX-License-Identifier: Apache-2.0
// What the plans of the block sparse wrappers share.
import { describeValue } from '../check/describeValue.ts';
import { checkOptions } from '../check/options.ts';
import { InvalidArgumentError } from '../errors.ts';
import type { BatchMaskOptions } from './batchMask.ts';
import type { BatchPlanOptions } from './batchOptions.ts';
import type { SparsePlanOptions } from './sparseOptions.ts';

export const sparsePlanNames: readonly (keyof SparsePlanOptions)[] = [
  'causal',
  'numQoHeads',
  'numKvHeads',
  'headDimQk',
  'headDim',
  'posEncodingMode',
  'logitsSoftCap',
  'smScale',
  'ropeScale',
  'ropeTheta',
  'qDtype',
  'kvDtype',
  'fixedSplitSize',
  'disableSplitKv',
];

export function invalidSparse(caller: string, problem: string): InvalidArgumentError {
  return new InvalidArgumentError('ERR_FLASHINFER_INVALID_ARGUMENT', `${caller}: ${problem}`);
}

export function requireSparseOptions(caller: string, options: SparsePlanOptions, allowed: ReadonlySet<string>): void {
  checkOptions(caller, options, allowed);
  const { headDim, headDimQk, causal } = options;
  if (headDim !== undefined && headDimQk !== undefined && headDim !== headDimQk) {
    throw invalidSparse(
      caller,
      `headDim is ${describeValue(headDim)} and headDimQk ${describeValue(headDimQk)}; expected one of them; leave one out`,
    );
  }
  if (causal === undefined || typeof causal === 'boolean') return;
  throw invalidSparse(
    caller,
    `causal is ${describeValue(causal)}; expected true or false; leave it out for the default`,
  );
}

/** What a batch's plan takes of the options: `form` says what hides keys of a request, `bits` are those of a form of bits. */
export function batchOptions(
  options: SparsePlanOptions,
  form: 'none' | 'causal' | 'bits',
  bits: Uint8Array | undefined,
): BatchPlanOptions & BatchMaskOptions & { causal: boolean } {
  return {
    numQoHeads: options.numQoHeads,
    numKvHeads: options.numKvHeads,
    headDimQk: (options.headDimQk ?? options.headDim)!,
    posEncodingMode: options.posEncodingMode,
    logitsSoftCap: options.logitsSoftCap,
    smScale: options.smScale,
    ropeScale: options.ropeScale,
    ropeTheta: options.ropeTheta,
    qDtype: options.qDtype,
    kvDtype: options.kvDtype,
    fixedSplitSize: options.fixedSplitSize,
    disableSplitKv: options.disableSplitKv,
    causal: form === 'causal',
    packedCustomMask: bits,
  };
}

/** The names of what {@link batchOptions} returns. */
export const batchNames: ReadonlySet<string> = new Set<string>([...sparsePlanNames, 'packedCustomMask']);
