// SPDX-License-Identifier: Apache-2.0
// C++ types and readable names of the compile-time options that all attention kernels share.
import { dtypes } from '../tensor/dtype.ts';
import { type AttentionRequest, headDimVoOf } from './request.ts';
import type { AttentionVariant } from './variant.ts';
import { variantSource, variantType } from './variantSource.ts';

const maskCpp = { none: 'kNone', causal: 'kCausal', custom: 'kCustom' } as const;
const posEncodingCpp = { NONE: 'kNone', ROPE_LLAMA: 'kRopeLlama', ALIBI: 'kAlibi' } as const;

/** What of a request is decided when its kernel is compiled. */
export type KernelOptions = Pick<
  AttentionRequest,
  'qDtype' | 'kvDtype' | 'headDim' | 'maskMode' | 'posEncodingMode' | 'windowLeft' | 'logitsSoftCap'
> & { readonly variant?: AttentionVariant | undefined };

/** Template arguments `T, KvT, D_QK, D_VO`. */
export function typeArguments(o: KernelOptions): string {
  const cpp = (dtype: AttentionRequest['qDtype']): string => `flashinfer::${dtypes[dtype].cpp}`;
  return `${cpp(o.qDtype)}, ${cpp(o.kvDtype)}, ${o.headDim}, ${headDimVoOf(o.headDim)}`;
}

/** Template arguments `Variant, Visible, PosEncodingMode`. */
export function variantArguments(o: KernelOptions): string {
  const builtIn = `flashinfer::DefaultVariant<${o.posEncodingMode === 'ALIBI'}, ${o.logitsSoftCap > 0}>`;
  const variant = o.variant === undefined ? builtIn : variantType;
  const visible = `flashinfer::Visibility<flashinfer::MaskMode::${maskCpp[o.maskMode]}, ${o.windowLeft >= 0}>`;
  return `${variant}, ${visible}, flashinfer::PosEncodingMode::${posEncodingCpp[o.posEncodingMode]}`;
}

/** `bf16_kv_e4m3_hd128_causal_rope_swa_cap`: only what differs from the plain case is named. */
export function optionsName(o: KernelOptions): string {
  const parts: string[] = [dtypes[o.qDtype].short];
  if (o.kvDtype !== o.qDtype) parts.push('kv', dtypes[o.kvDtype].short);
  parts.push(headDimName(o.headDim));
  if (o.maskMode !== 'none') parts.push(o.maskMode);
  if (o.posEncodingMode !== 'NONE') parts.push(o.posEncodingMode === 'ALIBI' ? 'alibi' : 'rope');
  if (o.windowLeft >= 0) parts.push('swa');
  if (o.logitsSoftCap > 0) parts.push('cap');
  if (o.variant !== undefined) parts.push(o.variant.id);
  return parts.join('_');
}

/** A spec's prelude: the custom variant, then `lines`. */
export function prelude(variant: AttentionVariant | undefined, lines: readonly string[]): { prelude?: string } {
  const all = variant === undefined ? lines : [variantSource(variant), ...lines];
  return all.length === 0 ? {} : { prelude: all.join('\n') };
}

/** Template arguments of MergeConfig, and the end of a merge kernel's name. */
export function mergeArguments(o: Pick<KernelOptions, 'qDtype' | 'headDim' | 'variant'>): {
  config: string;
  name: string;
} {
  const { cpp, short } = dtypes[o.qDtype];
  const headDimVo = headDimVoOf(o.headDim);
  const plain = { config: `flashinfer::${cpp}, ${headDimVo}`, name: `${short}_hd${headDimVo}` };
  if (o.variant === undefined) return plain;
  return { config: `${plain.config}, ${variantType}`, name: `${plain.name}_${o.variant.id}` };
}

/** `hd128`, or both dimensions where they differ. */
function headDimName(headDim: number): string {
  const headDimVo = headDimVoOf(headDim);
  return headDimVo === headDim ? `hd${headDim}` : `hd${headDim}x${headDimVo}`;
}
