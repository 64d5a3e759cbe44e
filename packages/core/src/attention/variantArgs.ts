// SPDX-License-Identifier: Apache-2.0
// The values of a variant's params in one call: checked, and under the names of the params struct.
import type { Checker } from '../check/checker.ts';
import { describeValue } from '../check/describeValue.ts';
import type { InvalidArgumentError } from '../errors.ts';
import type { Device } from '../runtime/device.ts';
import type { DType } from '../tensor/dtype.ts';
import { Tensor } from '../tensor/tensor.ts';
import type { AttentionVariant, VariantParamType } from './variant.ts';
import { variantField } from './variantSource.ts';

/**
 * Values of a variant's params, by name: a number, bigint or boolean for a scalar, a tensor for `dtype[]`. Tensors named
 * `maybe…`, as in FlashInfer, may be left out.
 */
export type VariantParams = Readonly<Record<string, number | bigint | boolean | Tensor>>;

export type VariantArgs = Readonly<Record<string, number | bigint>>;

const none: VariantArgs = Object.freeze({});

/** Every param must be there with a value of its type, and nothing else. */
export function readVariantArgs(
  check: Checker,
  variant: AttentionVariant | undefined,
  values: VariantParams | undefined,
  device: Device,
): VariantArgs {
  if (variant === undefined) {
    if (values === undefined) return none;
    throw wrong(check, 'variantParams are given without a variant; expected both; pass the variant, or leave them out');
  }
  const given = values ?? none;
  for (const name in given) {
    if (Object.hasOwn(variant.params, name)) continue;
    const expected = Object.keys(variant.params).join(', ') || 'none: it has no params';
    throw wrong(check, `variantParams.${name} is no param of variant ${variant.name}; expected ${expected}`);
  }
  const args: Record<string, number | bigint> = {};
  for (const [name, type] of Object.entries(variant.params)) {
    args[variantField(name)] = readValue(check, variant, name, type, given[name], device);
  }
  return args;
}

function readValue(
  check: Checker,
  variant: AttentionVariant,
  name: string,
  type: VariantParamType,
  value: number | bigint | boolean | Tensor | undefined,
  device: Device,
): number | bigint {
  const label = `variantParams.${name}`;
  if (value === undefined) {
    if (isOptional(name, type)) return 0;
    throw wrong(check, `${label} is missing; expected a value of type ${type} for variant ${variant.name}`);
  }
  if (type.endsWith('[]')) {
    const dims = value instanceof Tensor ? value.shape.map(() => '*') : ['*'];
    const rule = { dtypes: [type.slice(0, -2) as DType], device, contiguous: true };
    check.tensor(label, value as Tensor, dims, rule);
    if ((value as Tensor).size > 0) return (value as Tensor).ptr;
    throw wrong(check, `${label} is an empty tensor; expected at least one element, since hooks get its address`);
  }
  if (type === 'bool' && typeof value === 'boolean') return Number(value);
  if (fitsNumber(type, value)) return value as number | bigint;
  throw wrong(
    check,
    `${label} is ${describeValue(value)}; expected ${expectedValue[type as keyof typeof expectedValue]}`,
  );
}

/** What a variant can do without: it sees a null pointer. */
function isOptional(name: string, type: VariantParamType): boolean {
  return type.endsWith('[]') && name.startsWith('maybe');
}

const expectedValue = {
  float32: 'a number; declare it with [] to pass a tensor',
  float64: 'a number; declare it with [] to pass a tensor',
  int32: 'an integer from -2^31 to 2^31 - 1',
  uint32: 'an integer from 0 to 2^32 - 1',
  int64: 'an integer up to 2^53 - 1, or a bigint of 64 bits',
  bool: 'true or false',
} as const;

function fitsNumber(type: VariantParamType, value: unknown): boolean {
  if (typeof value === 'bigint') return type === 'int64' && BigInt.asIntN(64, value) === value;
  if (typeof value !== 'number') return false;
  switch (type) {
    case 'int32':
      return (value | 0) === value;
    case 'uint32':
      return value >>> 0 === value;
    case 'int64':
      return Number.isSafeInteger(value);
    default:
      return type !== 'bool';
  }
}

function wrong(check: Checker, problem: string): InvalidArgumentError {
  return check.error('ERR_FLASHINFER_INVALID_ARGUMENT', problem);
}
