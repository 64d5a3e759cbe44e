// SPDX-License-Identifier: Apache-2.0
import { checkOptions } from './check/options.ts';
import { InvalidArgumentError } from './errors.ts';
import { type ModelDType, type ModelFamily, modelFamilies, modelShapes, sharedPerBlock } from './jit/aotRequest.ts';
import { formatTarget, namedTarget, parseTarget, type Target, targetFor } from './jit/arch.ts';
import type { KernelSpec } from './jit/spec.ts';
import { kernelFamilies } from './kernelFamilies.ts';
import { defaultDevice, deviceIndex, smArch } from './runtime/device.ts';

export interface AotKernelOptions {
  /** Architecture such as `'9.0a'`. Default: that of the default device; on a machine without a GPU it must be named. */
  readonly arch?: string;
  /** Default: all. */
  readonly families?: readonly ModelFamily[];
  /** Types the models are served in. Default: both. */
  readonly dtypes?: readonly ModelDType[];
}

/**
 * The kernels worth having before the first call: a sample of every template, and the instantiations that the models of
 * `families` (llama3, qwen2.5, qwen3, gemma2, gemma3, mistral, deepseek, gpt-oss) launch on an architecture: norms,
 * rotations, quantisation, attention with keys of 16 bits and of float8_e4m3fn (single requests without windows), over
 * shared prefixes and blocks, under the masks of draft trees (keys of 16 bits), and sampling. Of deepseek's attention it is
 * prefill with keys of 192 and values of 128; gpt-oss comes without its activation. The add-on packages hold exactly these.
 * Pass them to `warmup`.
 * @throws InvalidArgumentError on an unknown family or dtype, and without `arch` where there is no GPU
 * @example
 * ```ts
 * import { aotKernels, warmup } from '@flashinfer/core';
 *
 * const kernels = aotKernels({ families: ['llama3'], dtypes: ['bfloat16'], arch: '9.0a' });
 * console.log(kernels.length, kernels[0]?.name);
 * // At the start of a server: await warmup(...aotKernels({ families: ['llama3'] }));
 * await warmup();
 * ```
 */
export function aotKernels(options: AotKernelOptions = {}): KernelSpec[] {
  checkOptions('aotKernels', options, ['arch', 'families', 'dtypes']);
  const { arch, families = modelFamilies, dtypes = ['bfloat16', 'float16'] } = options;
  expectAll('families', families, modelFamilies);
  expectAll('dtypes', dtypes, ['bfloat16', 'float16']);
  const target = arch === undefined ? ownTarget() : namedTarget(arch);
  const request = {
    target,
    models: modelShapes.filter((model) => families.includes(model.family)),
    dtypes,
    sharedPerBlock: sharedPerBlock(target),
  };
  const specs = kernelFamilies.flatMap(({ samples, forModels }) => [...samples(), ...(forModels?.(request) ?? [])]);
  return [...new Map(specs.filter((spec) => compilesFor(spec, target)).map((spec) => [spec.name, spec])).values()];
}

/** Whether the kernel exists for the target. */
export function compilesFor(spec: KernelSpec, target: Target): boolean {
  try {
    return targetFor(parseTarget(target).sm, spec, [target]) === target;
  } catch {
    return false;
  }
}

/** The architecture of the default device. @throws InvalidArgumentError where that is the cpu */
function ownTarget(): Target {
  const index = deviceIndex(defaultDevice());
  if (index < 0) {
    throw new InvalidArgumentError(
      'ERR_FLASHINFER_INVALID_ARGUMENT',
      "aotKernels: arch is undefined and the default device is cpu; expected an architecture; pass { arch: '9.0a' }",
    );
  }
  const sm = smArch(index);
  return formatTarget({ sm, suffix: sm >= 90 ? 'a' : '' });
}

function expectAll<T extends string>(name: string, given: readonly T[], allowed: readonly T[]): void {
  const unknown = given.find((item) => !allowed.includes(item));
  if (unknown === undefined) return;
  throw new InvalidArgumentError(
    'ERR_FLASHINFER_INVALID_ARGUMENT',
    `aotKernels: ${name} has '${unknown}'; expected some of ${allowed.join(', ')}; leave it out for all`,
  );
}
