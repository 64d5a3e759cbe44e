// SPDX-License-Identifier: Apache-2.0
// The C++ of a custom variant: the struct that CustomVariant (include/flashinfer/attention/variant.cuh) and the host's
// row functions call. The same text for every compiler.
import type { ParamField, ParamType } from '../jit/spec.ts';
import { dtypes } from '../tensor/dtype.ts';
import type { AttentionVariant, VariantHook, VariantParamType, VariantScalarType } from './variant.ts';

/** How a scalar travels in a params struct, and the C++ type hooks see. */
const scalars: Record<VariantScalarType, { readonly field: ParamType; readonly cpp: string }> = {
  float32: { field: 'f32', cpp: 'float' },
  float64: { field: 'f64', cpp: 'double' },
  int32: { field: 'i32', cpp: 'int32_t' },
  uint32: { field: 'u32', cpp: 'uint32_t' },
  int64: { field: 'i64', cpp: 'int64_t' },
  bool: { field: 'u8', cpp: 'bool' },
};

/** Name of a param's field in a params struct: kept apart from the kernels' own. */
export function variantField(param: string): string {
  return `variant_${param}`;
}

/** What a variant adds to the params struct of a kernel. */
export function variantFields({ params }: AttentionVariant): ParamField[] {
  return Object.entries(params).map(([name, type]) => ({
    name: variantField(name),
    type: type.endsWith('[]') ? 'ptr' : scalars[type as VariantScalarType].field,
  }));
}

/** `CustomVariant`'s argument: what a kernel's template is given. */
export const variantType = 'flashinfer::CustomVariant<flashinfer::VariantHooks>';

const signatures: Record<VariantHook, { readonly name: string; readonly result: string; readonly position: string }> = {
  queryTransform: { name: 'transform_query', result: 'float', position: 'ElementPosition' },
  logitsTransform: { name: 'transform_logits', result: 'float', position: 'LogitPosition' },
  logitsMask: { name: 'mask_logits', result: 'bool', position: 'LogitPosition' },
  outputTransform: { name: 'transform_output', result: 'float', position: 'ElementPosition' },
};
/** Arguments after the position. */
const values: Record<VariantHook, readonly string[]> = {
  queryTransform: ['q'],
  logitsTransform: ['flashinfer_qk'],
  logitsMask: [],
  outputTransform: ['output', 'lse'],
};

/** `VariantHooks` of a variant, in namespace flashinfer. */
export function variantSource(variant: AttentionVariant): string {
  const lines = variant.decl === undefined ? expressionHooks(variant) : structHooks(variant, variant.decl);
  return ['namespace flashinfer {', ...lines, '}  // namespace flashinfer'].join('\n');
}

function expressionHooks(variant: AttentionVariant): string[] {
  const { hooks, useSoftmax } = variant;
  const has = (hook: VariantHook): boolean => hooks[hook] !== undefined;
  return [
    'struct VariantHooks {',
    `static constexpr bool kUsesSoftmax = ${useSoftmax};`,
    `static constexpr bool kTransformsQuery = ${has('queryTransform')};`,
    `static constexpr bool kTransformsLogits = ${has('logitsTransform')};`,
    `static constexpr bool kMasksLogits = ${has('logitsMask')};`,
    `static constexpr bool kTransformsOutput = ${has('outputTransform')};`,
    ...(Object.keys(hooks) as VariantHook[]).flatMap((hook) => hookFunction(variant, hook, hooks[hook] as string)),
    '};',
  ];
}

function hookFunction(variant: AttentionVariant, hook: VariantHook, expression: string): string[] {
  const { name, result, position } = signatures[hook];
  const request = 'const VariantRequest& flashinfer_request';
  const inputs = [`const ${position}& flashinfer_at`, ...values[hook].map((value) => `float ${value}`)].join(', ');
  return [
    'template <class FlashInferFields>',
    `static FLASHINFER_HOOK ${result} ${name}(const FlashInferFields& flashinfer_fields, ${request}, ${inputs}) {`,
    ...localVariables(hook),
    ...Object.entries(variant.params).map(
      ([param, type]) => `[[maybe_unused]] ${constant(type)} ${param} = ${fieldValue(param, type)};`,
    ),
    `return`,
    `#line 1 "<variant ${variant.name}: ${hook}>"`,
    expression,
    `#line 1 "<variant ${variant.name}>"`,
    ';',
    '}',
  ];
}

function localVariables(hook: VariantHook): string[] {
  const variables: [type: string, name: string, value: string][] = [
    ['int', 'batchIdx', 'request.batch_idx'],
    ['int', 'qoLen', 'request.qo_len'],
    ['int', 'kvLen', 'request.kv_len'],
    ['int', 'numQoHeads', 'request.num_qo_heads'],
    ['int', 'numKvHeads', 'request.num_kv_heads'],
    ['float', 'smScale', 'request.sm_scale'],
    ['int', 'qoIdx', 'at.qo_idx'],
    ['int', 'qoHeadIdx', 'at.qo_head'],
    ['int', 'kvHeadIdx', 'at.kv_head'],
    signatures[hook].position === 'LogitPosition' ? ['int', 'kvIdx', 'at.kv_idx'] : ['int', 'dimIdx', 'at.dim'],
  ];
  const lines = variables.map(([type, name, value]) => `[[maybe_unused]] const ${type} ${name} = flashinfer_${value};`);
  return hook === 'logitsTransform' ? [...lines, 'const float logits = flashinfer_qk * smScale;'] : lines;
}

/** The params as FlashInfer's structs read them, `params.slopes`, and the struct's hooks. */
function structHooks({ name, params, useSoftmax }: AttentionVariant, decl: string): string[] {
  const builtIn: [type: string, name: string, value: string][] = [
    ['float', 'sm_scale', 'request.sm_scale'],
    ['uint32_t', 'num_qo_heads', 'request.num_qo_heads'],
    ['uint32_t', 'num_kv_heads', 'request.num_kv_heads'],
    ['int32_t', 'window_left', 'request.window_left'],
  ];
  const fields = [
    ...Object.entries(params).map(([param, type]) => [cppType(type), param, fieldValue(param, type)] as const),
    ...builtIn
      .filter(([, field]) => !Object.hasOwn(params, field))
      .map(([type, field, value]) => [type, field, `flashinfer_${value}`] as const),
  ];
  return [
    'struct VariantParams {',
    ...fields.map(([type, field]) => `${type} ${field};`),
    'int flashinfer_qo_len, flashinfer_kv_len;',
    'template <class FlashInferFields>',
    'FLASHINFER_HOOK VariantParams(const FlashInferFields& flashinfer_fields, const VariantRequest& flashinfer_request)',
    `    : ${fields.map(([, field, value]) => `${field}(${value})`).join(', ')},`,
    '      flashinfer_qo_len(flashinfer_request.qo_len), flashinfer_kv_len(flashinfer_request.kv_len) {}',
    'FLASHINFER_HOST_DEVICE uint32_t get_qo_len(uint32_t) const { return flashinfer_qo_len; }',
    'FLASHINFER_HOST_DEVICE uint32_t get_kv_len(uint32_t) const { return flashinfer_kv_len; }',
    '};',
    `#line 1 "<variant ${name}: decl>"`,
    decl,
    `#line 1 "<variant ${name}>"`,
    `using VariantHooks = StructHooks<${name}, VariantParams, ${useSoftmax}>;`,
  ];
}

function fieldValue(param: string, type: VariantParamType): string {
  const field = `flashinfer_fields.${variantField(param)}`;
  if (type.endsWith('[]')) return `static_cast<${cppType(type)}>(${field})`;
  return type === 'bool' ? `${field} != 0` : `${field}`;
}

/** Tensors may be written to: a variant can dump what it sees. */
function cppType(type: VariantParamType): string {
  if (type.endsWith('[]')) return `${dtypes[type.slice(0, -2) as keyof typeof dtypes].cpp}*`;
  return scalars[type as VariantScalarType].cpp;
}

function constant(type: VariantParamType): string {
  return type.endsWith('[]') ? `${cppType(type)} const` : `const ${cppType(type)}`;
}
