// SPDX-License-Identifier: Apache-2.0
// The checks that all norms share.
import { Checker } from '../check/checker.ts';
import { describeValue } from '../check/describeValue.ts';
import type { ErrorCode } from '../errors.ts';
import type { DependentLaunchOptions } from '../runtime/dependentLaunch.ts';
import type { DType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { maxRowLength } from './normKernel.ts';

/** Options of all norms. */
export interface NormOptions extends DependentLaunchOptions {
  /** Added to the mean square (variance). Default 1e-6. */
  eps?: number;
}

export const defaultEps = 1e-6;

const floats: readonly DType[] = ['float16', 'bfloat16', 'float32'];
const float8: readonly DType[] = ['float8_e4m3fn', 'float8_e5m2'];
const rows2: readonly string[] = ['numTokens', 'length'];
const rows3: readonly string[] = ['numTokens', 'numHeads', 'length'];
const rowsRule = { dtypes: floats, lastDimContiguous: true } as const;
const vectorDims: readonly string[] = ['length'];

/** Largest number of rows: the kernel counts them in 31 bits. */
const maxRows = 2 ** 31 - 1;

/** Checks x and the options, and binds `length`. */
export function checkRows(functionName: string, x: Tensor, options: NormOptions, allowed: readonly string[]): Checker {
  const check = new Checker(functionName);
  const dims = x instanceof Tensor && x.rank === 3 ? rows3 : rows2;
  if (x instanceof Tensor && x.rank !== dims.length && !x.disposed) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_RANK',
      `x has rank ${x.rank}, shape [${x.shape.join(', ')}]; expected rank 2, [${rows2.join(', ')}], or 3, ` +
        `[${rows3.join(', ')}]; reshape it with view()`,
    );
  }
  check.tensor('x', x, dims, rowsRule);
  const length = check.dim('length');
  if (length === 0 || length > maxRowLength) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `x has length=${length}, shape [${x.shape.join(', ')}]; expected rows of 1 to ${maxRowLength} elements; ` +
        'normalise the last dimension of a tensor',
    );
  }
  if (x.size / length > maxRows) {
    throw check.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `x has ${x.size / length} rows; expected at most ${maxRows}; call it on slices of x`,
    );
  }
  return check.options(options, allowed).number('eps', options.eps, { min: 0 }).flag('enablePdl', options.enablePdl);
}

/** A tensor of x's shape. */
export function checkLike(check: Checker, name: string, value: Tensor, x: Tensor, dtypes: readonly DType[]): void {
  check.tensor(name, value, x.rank === 3 ? rows3 : rows2, { dtypes, lastDimContiguous: true });
}

/** `[length]`, e.g. the weight. */
export function checkVector(check: Checker, name: string, value: Tensor, dtype: DType): void {
  check.tensor(name, value, vectorDims, { dtypes: [dtype], lastDimContiguous: true });
}

/** An fp8 output of x's shape. */
export function checkQuantizedOut(check: Checker, out: Tensor, x: Tensor): void {
  checkLike(check, 'out', out, x, float8);
}

/** A number above zero, or a float32 tensor with one element. */
export function checkScale(check: Checker, scale: Tensor | number): void {
  if (scale instanceof Tensor) {
    check.tensor('scale', scale, scale.rank === 0 ? [] : [1], { dtypes: ['float32'] });
    return;
  }
  if (typeof scale === 'number' && scale > 0 && scale < Infinity) return;
  const code: ErrorCode = 'ERR_FLASHINFER_INVALID_SCALE';
  throw check.error(
    code,
    `scale is ${describeValue(scale)}; expected a finite number above 0 or a float32 tensor with one element; ` +
      'pass the largest |value| divided by 448 (float8_e4m3fn) or 57344 (float8_e5m2)',
  );
}
