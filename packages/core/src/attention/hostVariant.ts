// SPDX-License-Identifier: Apache-2.0
// A custom variant on the cpu device: its hooks as a library, and its params as the struct they read.
import { jitEnvironment } from '../jit/environment.ts';
import { type HostModule, resolveHostModule } from '../jit/hostModule.ts';
import { structLayout } from '../jit/layout.ts';
import { ParamsPacker } from '../jit/packer.ts';
import { structSource } from '../jit/source.ts';
import type { CpuAttentionArgs, CpuIsa, Ptr } from '../native/binding.ts';
import { native, toFlashInferError } from '../native/load.ts';
import type { AttentionVariant } from './variant.ts';
import type { VariantArgs } from './variantArgs.ts';
import { variantFields, variantSource } from './variantSource.ts';

interface LoadedVariant {
  readonly table: Ptr;
  /** Absent for a variant without params. */
  readonly packer: ParamsPacker | undefined;
}

/** By instruction set and the variant's content. */
const loaded = new Map<string, LoadedVariant>();

const none = new Uint8Array(1);

/** What a call of `cpu.attention` needs for the variant. Compiles it at its first use. */
export function cpuVariantArgs(
  variant: AttentionVariant,
  args: VariantArgs,
): Pick<CpuAttentionArgs, 'variant' | 'variantParams'> {
  const { isa } = native().cpu.info();
  const key = `${isa}/${variant.id}`;
  let entry = loaded.get(key);
  if (entry === undefined) {
    entry = load(variant, isa);
    loaded.set(key, entry);
  }
  const { packer, table } = entry;
  if (packer === undefined) return { variant: table, variantParams: none };
  packer.pack(args);
  return { variant: table, variantParams: new Uint8Array(packer.buffer) };
}

function load(variant: AttentionVariant, isa: CpuIsa): LoadedVariant {
  const path = resolveHostModule(jitEnvironment(), hostVariantModule(variant), isa);
  const params = variantFields(variant);
  try {
    const table = native().cpu.loadVariant(path);
    return { table, packer: params.length === 0 ? undefined : new ParamsPacker({ name: variant.id, params }) };
  } catch (error) {
    throw toFlashInferError(error, `variant ${variant.name}`);
  }
}

/** The library that csrc/cpu/attention calls: include/flashinfer/attention/variant_table.h says what it exports. */
export function hostVariantModule(variant: AttentionVariant): HostModule {
  const params = variantFields(variant);
  const struct = params.length === 0 ? ['struct Params {};'] : structSource(structLayout(params, variant.id));
  return {
    name: `variant_${variant.id}`,
    label: `variant ${variant.name}`,
    header: 'flashinfer/attention/variant_host.h',
    source: [
      variantSource(variant),
      ...struct,
      '#ifdef _WIN32',
      '#define FLASHINFER_EXPORT __declspec(dllexport)',
      '#else',
      '#define FLASHINFER_EXPORT __attribute__((visibility("default")))',
      '#endif',
      'extern "C" FLASHINFER_EXPORT const flashinfer::VariantTable flashinfer_variant;',
      'const flashinfer::VariantTable flashinfer_variant = flashinfer::variant_table<flashinfer::VariantHooks, Params>();',
    ].join('\n'),
  };
}
