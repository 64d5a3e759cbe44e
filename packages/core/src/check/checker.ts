// SPDX-License-Identifier: Apache-2.0
// Argument checks of operators: one place for what messages look like. On every operator's hot path, so the checks
// that pass allocate nothing but the Checker.
import { DisposedError, type ErrorCode, InvalidArgumentError } from '../errors.ts';
import type { Device } from '../runtime/device.ts';
import type { DType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import { describeNonTensor, describeValue } from './describeValue.ts';
import { checkOptions } from './options.ts';

/** A name binds its extent at first sight and must agree after; a number is the extent; `'*'` is any. */
export type Dim = string | number;

export interface TensorRule {
  /** Allowed dtypes; absent: all. */
  readonly dtypes?: readonly DType[];
  /** Default: that of the first tensor checked. */
  readonly device?: Device;
  /** Stride 1 within the last dimension: what vector loads need. */
  readonly lastDimContiguous?: boolean;
  readonly contiguous?: boolean;
}

export interface NumberRule {
  readonly min?: number;
  readonly max?: number;
  readonly integer?: boolean;
  /** Default true. */
  readonly finite?: boolean;
  /** Default `ERR_FLASHINFER_INVALID_ARGUMENT`. */
  readonly code?: ErrorCode;
}

/**
 * Checks the arguments of one call: `new Checker('rmsnorm').tensor('x', x, ['numTokens', 'hiddenSize']).tensor(...)`.
 * Names of dims are shared by the tensors of the call, and so is the device.
 */
export class Checker {
  readonly functionName: string;
  private readonly names: string[] = [];
  private readonly extents: number[] = [];
  /** Which argument bound the dim of the same position in `names`. */
  private readonly origins: string[] = [];
  private device: Device | undefined;
  private deviceOrigin = '';

  constructor(functionName: string) {
    this.functionName = functionName;
  }

  /** A tensor with the given dims; binds the names among them. */
  tensor(name: string, value: Tensor, dims: readonly Dim[], rule?: TensorRule): this {
    if (!(value instanceof Tensor)) throw this.notTensor(name, value, dims);
    if (value.disposed) throw this.disposed(name, value);
    const { shape } = value;
    if (shape.length !== dims.length) throw this.wrongRank(name, value, dims);
    if (rule?.dtypes !== undefined && !rule.dtypes.includes(value.dtype))
      throw this.wrongDType(name, value, rule.dtypes);
    this.checkDevice(name, value, rule?.device);
    for (let d = 0; d < dims.length; d++) this.checkDim(name, value, dims, d);
    if (rule !== undefined) this.checkLayout(name, value, rule);
    return this;
  }

  /** As `tensor`, for an argument that may be left out. */
  optionalTensor(name: string, value: Tensor | undefined, dims: readonly Dim[], rule?: TensorRule): this {
    return value === undefined ? this : this.tensor(name, value, dims, rule);
  }

  /** Gives a dim its extent, as when an option does; must agree with a tensor that bound it before. */
  bind(dim: string, extent: number, origin: string): this {
    const i = this.names.indexOf(dim);
    if (i < 0) this.define(dim, extent, origin);
    else if (this.extents[i] !== extent) {
      throw new InvalidArgumentError(
        'ERR_FLASHINFER_INVALID_SHAPE',
        `${this.functionName}: ${origin} gives ${dim}=${extent}; expected ${dim}=${this.extents[i]} as in ` +
          `${this.origins[i]}; pass values that agree`,
      );
    }
    return this;
  }

  /** Extent of a bound dim. */
  dim(name: string): number {
    const i = this.names.indexOf(name);
    if (i < 0) throw new Error(`Checker: dim '${name}' of ${this.functionName} is not bound; please report this`);
    return this.extents[i]!;
  }

  /** A numeric option; `undefined`, which means the default, passes. */
  number(name: string, value: number | undefined, rule: NumberRule = {}): this {
    if (value === undefined) return this;
    const { min = -Infinity, max = Infinity, integer = false, finite = true } = rule;
    const valid =
      typeof value === 'number' &&
      value >= min &&
      value <= max &&
      (!finite || Number.isFinite(value)) &&
      (!integer || Number.isInteger(value));
    if (!valid) throw this.wrongNumber(name, value, rule);
    return this;
  }

  /** An option with few values; `undefined`, which means the default, passes. */
  oneOf<T>(
    name: string,
    value: T | undefined,
    allowed: readonly T[],
    code: ErrorCode = 'ERR_FLASHINFER_INVALID_ARGUMENT',
  ): this {
    if (value === undefined || allowed.includes(value)) return this;
    throw new InvalidArgumentError(
      code,
      `${this.functionName}: ${name} is ${describeValue(value)}; expected ${allowed.map(describeValue).join(' or ')}; pass one of these`,
    );
  }

  /** An option that is true, false or left out. */
  flag(name: string, value: boolean | undefined): this {
    if (value === undefined || typeof value === 'boolean') return this;
    throw this.error(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${name} is ${describeValue(value)}; expected true or false; leave it out for the default`,
    );
  }

  /** As {@link checkOptions}. */
  options(options: object, allowed: readonly string[]): this {
    checkOptions(this.functionName, options, allowed);
    return this;
  }

  /** An error of this call, for conditions between arguments: `<argument> <what was given>; expected …; <fix>`. */
  error(code: ErrorCode, problem: string): InvalidArgumentError {
    return new InvalidArgumentError(code, `${this.functionName}: ${problem}`);
  }

  private checkDim(name: string, value: Tensor, dims: readonly Dim[], d: number): void {
    const dim = dims[d]!;
    const extent = value.shape[d]!;
    if (typeof dim === 'number') {
      if (dim !== extent) throw this.wrongExtent(name, value, dims, d);
      return;
    }
    if (dim === '*') return;
    const i = this.names.indexOf(dim);
    if (i < 0) this.define(dim, extent, name);
    else if (this.extents[i] !== extent) throw this.wrongDim(name, value, dims, i, extent);
  }

  private define(dim: string, extent: number, origin: string): void {
    this.names.push(dim);
    this.extents.push(extent);
    this.origins.push(origin);
  }

  private checkDevice(name: string, value: Tensor, required: Device | undefined): void {
    if (required !== undefined && value.device !== required) throw this.wrongDevice(name, value, required, 'this call');
    if (this.device === undefined) {
      this.device = value.device;
      this.deviceOrigin = name;
    } else if (this.device !== value.device) {
      throw this.wrongDevice(name, value, this.device, this.deviceOrigin);
    }
  }

  private checkLayout(name: string, value: Tensor, rule: TensorRule): void {
    if (rule.contiguous && !value.isContiguous) throw this.notContiguous(name, value, 'a contiguous tensor');
    if (!rule.lastDimContiguous || value.size === 0) return;
    const last = value.shape.length - 1;
    if (value.shape[last]! > 1 && value.strides[last] !== 1) {
      throw this.notContiguous(name, value, 'stride 1 in the last dimension');
    }
  }

  private notTensor(name: string, value: unknown, dims: readonly Dim[]): InvalidArgumentError {
    const { given, fix } = describeNonTensor(value);
    return this.error(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      `${name} is ${given}; expected a Tensor of shape ${formatDims(dims)}; ${fix}`,
    );
  }

  private disposed(name: string, value: Tensor): DisposedError {
    return new DisposedError(
      `${this.functionName}: ${name} (${value.describe()}) was disposed; expected a live tensor; keep a view, or dispose later`,
    );
  }

  private wrongRank(name: string, value: Tensor, dims: readonly Dim[]): InvalidArgumentError {
    return this.error(
      'ERR_FLASHINFER_INVALID_RANK',
      `${name} has rank ${value.shape.length}, shape ${formatShape(value)}; expected rank ${dims.length}, ` +
        `${formatDims(dims)}; reshape it with view()`,
    );
  }

  private wrongDType(name: string, value: Tensor, allowed: readonly DType[]): InvalidArgumentError {
    return this.error(
      'ERR_FLASHINFER_INVALID_DTYPE',
      `${name} has dtype ${value.dtype}; expected ${allowed.join(' or ')}; cast with ${name}.to('${allowed[0]}')`,
    );
  }

  private wrongDevice(name: string, value: Tensor, expected: Device, origin: string): InvalidArgumentError {
    return this.error(
      'ERR_FLASHINFER_DEVICE_MISMATCH',
      `${name} is on ${value.device}; expected ${expected} as ${origin}; move it with ${name}.to('${expected}')`,
    );
  }

  private wrongExtent(name: string, value: Tensor, dims: readonly Dim[], d: number): InvalidArgumentError {
    return this.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `${name} has ${value.shape[d]} in dimension ${d}, shape ${formatShape(value)}; expected ${dims[d]}, ` +
        `${formatDims(dims)}; check the order of its dimensions`,
    );
  }

  private wrongDim(
    name: string,
    value: Tensor,
    dims: readonly Dim[],
    bound: number,
    extent: number,
  ): InvalidArgumentError {
    const dim = this.names[bound]!;
    return this.error(
      'ERR_FLASHINFER_INVALID_SHAPE',
      `${name} has ${dim}=${extent}, shape ${formatShape(value)}; expected ${dim}=${this.extents[bound]} as in ` +
        `${this.origins[bound]}, ${formatDims(dims)}; pass tensors that agree`,
    );
  }

  private notContiguous(name: string, value: Tensor, expected: string): InvalidArgumentError {
    return this.error(
      'ERR_FLASHINFER_NON_CONTIGUOUS',
      `${name} has strides [${value.strides.join(', ')}] for shape ${formatShape(value)}; expected ${expected}; ` +
        `copy it with ${name}.contiguous()`,
    );
  }

  private wrongNumber(name: string, value: unknown, rule: NumberRule): InvalidArgumentError {
    const { min, max, integer, code = 'ERR_FLASHINFER_INVALID_ARGUMENT' } = rule;
    const kind = integer ? 'an integer' : rule.finite === false ? 'a number' : 'a finite number';
    const bounds = [min === undefined ? '' : `>= ${min}`, max === undefined ? '' : `<= ${max}`].filter((b) => b !== '');
    const expected = [kind, bounds.join(' and ')].filter((part) => part !== '').join(' ');
    return this.error(code, `${name} is ${describeValue(value)}; expected ${expected}; leave it out for the default`);
  }
}

function formatShape(value: Tensor): string {
  return `[${value.shape.join(', ')}]`;
}

function formatDims(dims: readonly Dim[]): string {
  return `[${dims.join(', ')}]`;
}
