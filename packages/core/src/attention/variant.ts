// SPDX-License-Identifier: Apache-2.0
// Custom attention variants: what a definition may hold, and its checks.
import { createHash } from 'node:crypto';
import { describeValue } from '../check/describeValue.ts';
import { isRecord } from '../check/options.ts';
import { InvalidArgumentError } from '../errors.ts';
import { type DType, dtypes } from '../tensor/dtype.ts';

/** A parameter of a variant: a number, or, with `[]`, the elements of a contiguous tensor of that dtype. */
export type VariantParamType = VariantScalarType | `${DType}[]`;
export type VariantScalarType = 'float32' | 'float64' | 'int32' | 'uint32' | 'int64' | 'bool';

/** A custom attention variant, as {@link defineAttentionVariant} takes it. */
export interface AttentionVariantDefinition {
  /** A C++ identifier of up to 32 characters; part of the names of its kernels. With `decl`, the struct's name. */
  name: string;
  /** What the hooks read besides their variables, by name. */
  params?: Readonly<Record<string, VariantParamType>>;
  /** C++ expression: the new value of the query element `q`; rounded to q's dtype, after the rotary embedding. */
  queryTransform?: string;
  /** C++ expression: the logit (without softmax: the weight) made from `logits` = smScale · q·k. */
  logitsTransform?: string;
  /** C++ expression: whether a key is visible. Asked only of keys that `causal`, window and masks leave visible. */
  logitsMask?: string;
  /** C++ expression: the new value of the normalised `output` element. */
  outputTransform?: string;
  /** False: transformed logits weigh V as they are; no maximum, no normalisation, no lse. Default true. */
  useSoftmax?: boolean;
  /** Instead of the four hooks: a C++ struct as FlashInfer takes it. */
  decl?: string;
}

/** Variables of the hooks besides the params; docs/attention-variants.md describes them. */
const positionVariables = ['batchIdx', 'qoIdx', 'qoHeadIdx', 'kvHeadIdx', 'qoLen', 'kvLen'] as const;
const requestVariables = ['numQoHeads', 'numKvHeads', 'smScale'] as const;
const shared = [...positionVariables, ...requestVariables] as const;
export const hookVariables = {
  queryTransform: ['q', 'dimIdx', ...shared],
  logitsTransform: ['logits', 'kvIdx', ...shared],
  logitsMask: ['kvIdx', ...shared],
  outputTransform: ['output', 'lse', 'dimIdx', ...shared],
} as const;
export type VariantHook = keyof typeof hookVariables;
export const variantHooks = Object.keys(hookVariables) as readonly VariantHook[];

const scalarTypes: readonly VariantScalarType[] = ['float32', 'float64', 'int32', 'uint32', 'int64', 'bool'];
const definitionKeys: readonly string[] = ['name', 'params', ...variantHooks, 'useSoftmax', 'decl'];
const identifier = /^[A-Za-z][A-Za-z0-9_]*$/;
const longestName = 32;

/** Words that a C++ parameter cannot have as its name. */
const keywords: ReadonlySet<string> = new Set(
  (
    'alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t class compl const ' +
    'const_cast constexpr continue decltype default delete do double dynamic_cast else enum explicit export extern false ' +
    'float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private ' +
    'protected public register reinterpret_cast return short signed sizeof static static_assert static_cast struct switch ' +
    'template this thread_local throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t ' +
    'while xor xor_eq'
  ).split(' '),
);
const reservedNames: ReadonlySet<string> = new Set<string>(variantHooks.flatMap((hook) => hookVariables[hook]));

/** A checked variant; made by {@link defineAttentionVariant}, passed as the option `variant`. */
export class AttentionVariant {
  readonly name: string;
  readonly params: Readonly<Record<string, VariantParamType>>;
  readonly useSoftmax: boolean;
  /** @internal */
  readonly hooks: Readonly<Partial<Record<VariantHook, string>>>;
  /** @internal */
  readonly decl: string | undefined;
  /** @internal `<name>_<hash>` of the whole content, in the letters of a kernel's name. */
  readonly id: string;

  /** @internal */
  constructor(definition: AttentionVariantDefinition) {
    const { name, params = {}, useSoftmax = true, decl } = definition;
    this.name = name;
    this.params = Object.freeze({ ...params });
    this.useSoftmax = useSoftmax;
    this.decl = decl;
    const given = variantHooks.filter((hook) => definition[hook] !== undefined);
    this.hooks = Object.freeze(Object.fromEntries(given.map((hook) => [hook, definition[hook]])));
    const content = JSON.stringify([name, Object.entries(this.params), this.hooks, useSoftmax, decl ?? null]);
    const hash = createHash('sha256').update(content).digest('hex').slice(0, 8);
    this.id = `${name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toLowerCase()}_${hash}`;
    Object.freeze(this);
  }

  /** @internal Whether kernels hand their output to it element by element: a struct has an OutputTransform of its own. */
  get transformsOutput(): boolean {
    return this.decl !== undefined || this.hooks.outputTransform !== undefined;
  }
}

/**
 * Defines an attention variant: hooks, each a C++ expression over documented variables and the variant's own params, that
 * are compiled into the attention kernels, with NVRTC or nvcc for a GPU and with a C++ compiler for the cpu. Pass the
 * result as option `variant`, and values for its params as `variantParams`. docs/attention-variants.md has the variables.
 * @throws {InvalidArgumentError} on a name, param, type or hook that is not allowed; a mistake inside an expression is a
 *   {@link CompileError} of the call that first uses the variant, with the compiler's message about the expression
 * @remarks A variant is compiled once for each kernel that uses it and cached by its content.
 * @see FlashInfer's `jit_args` and `gen_customize_*_module`; arXiv:2501.01005, section 3.2
 * @example
 * ```ts
 * import { defineAttentionVariant, randn, singlePrefillWithKVCache } from '@flashinfer/core';
 *
 * const sigmoid = defineAttentionVariant({
 *   name: 'FlashSigmoid',
 *   params: { bias: 'float32' },
 *   logitsTransform: '1.0f / (1.0f + expf(-(logits + bias)))',
 *   useSoftmax: false,
 * });
 * const q = randn([128, 8, 64], { dtype: 'float16' });
 * const k = randn([128, 8, 64], { dtype: 'float16' });
 * const v = randn([128, 8, 64], { dtype: 'float16' });
 * const o = singlePrefillWithKVCache(q, k, v, { variant: sigmoid, variantParams: { bias: -4 } }); // [128, 8, 64]
 * ```
 */
export function defineAttentionVariant(definition: AttentionVariantDefinition): AttentionVariant {
  if (typeof definition !== 'object' || definition === null) {
    throw invalid(`definition is ${describeValue(definition)}; expected an object with a name and hooks`);
  }
  for (const key in definition) {
    if (!definitionKeys.includes(key)) {
      throw invalid(`${key} is no part of a definition; expected any of ${definitionKeys.join(', ')}`);
    }
  }
  checkName(definition.name);
  checkParams(definition);
  checkHooks(definition);
  const { useSoftmax } = definition;
  if (useSoftmax !== undefined && typeof useSoftmax !== 'boolean') {
    throw invalid(`useSoftmax is ${describeValue(useSoftmax)}; expected true or false; leave it out for true`);
  }
  return new AttentionVariant(definition);
}

function checkName(name: string): void {
  const valid = typeof name === 'string' && identifier.test(name) && name.length <= longestName && !name.includes('__');
  if (valid && !keywords.has(name)) return;
  throw invalid(
    `name is ${describeValue(name)}; expected a C++ identifier of letters, digits and single underscores that starts with a ` +
      `letter, at most ${longestName} long`,
  );
}

function checkParams({ params, decl }: AttentionVariantDefinition): void {
  if (params === undefined) return;
  if (!isRecord(params)) {
    throw invalid(
      `params is ${describeValue(params)}; expected an object of types by name, e.g. { slopes: 'float32[]' }`,
    );
  }
  for (const [name, type] of Object.entries(params)) {
    if (!identifier.test(name) || keywords.has(name) || name.includes('__') || name.startsWith('flashinfer')) {
      throw invalid(
        `param ${describeValue(name)} cannot be used; expected a C++ identifier that starts with a letter, is no keyword, has no ` +
          'double underscore and does not start with flashinfer',
      );
    }
    if (decl === undefined && reservedNames.has(name)) {
      throw invalid(
        `param ${describeValue(name)} is the name of a variable that hooks have already; expected another name than ` +
          [...reservedNames].join(', '),
      );
    }
    if (!isParamType(type)) {
      throw invalid(
        `param ${name} has type ${describeValue(type)}; expected one of ${scalarTypes.join(', ')}, or a dtype with [] for a ` +
          `tensor: ${Object.keys(dtypes)
            .map((dtype) => `${dtype}[]`)
            .join(', ')}`,
      );
    }
  }
}

function isParamType(type: unknown): type is VariantParamType {
  if (typeof type !== 'string') return false;
  return type.endsWith('[]') ? Object.hasOwn(dtypes, type.slice(0, -2)) : scalarTypes.some((scalar) => scalar === type);
}

function checkHooks(definition: AttentionVariantDefinition): void {
  const { name, decl } = definition;
  const given = variantHooks.filter((hook) => definition[hook] !== undefined);
  for (const key of decl === undefined ? given : [...given, 'decl' as const]) {
    const text = definition[key];
    if (typeof text === 'string' && text.trim() !== '') continue;
    throw invalid(`${key} is ${describeValue(text)}; expected C++ source; leave it out for the default`);
  }
  if (decl !== undefined && given.length > 0) {
    throw invalid(
      `decl and ${given.join(', ')} are given; expected one form; write the hooks as methods of the struct`,
    );
  }
  if (decl !== undefined && !new RegExp(`\\bstruct\\s+${name}\\b`).test(decl)) {
    throw invalid(`decl declares no 'struct ${name}'; expected the struct to have the variant's name`);
  }
  if (decl === undefined && given.length === 0) {
    throw invalid(`no hook is given; expected at least one of ${variantHooks.join(', ')}, or decl`);
  }
}

function invalid(problem: string): InvalidArgumentError {
  return new InvalidArgumentError('ERR_FLASHINFER_INVALID_ARGUMENT', `defineAttentionVariant: ${problem}`);
}
