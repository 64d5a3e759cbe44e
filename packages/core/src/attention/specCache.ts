// SPDX-License-Identifier: Apache-2.0
// One spec object for one set of options: kernels are looked up by it.
import type { KernelSpec } from '../jit/spec.ts';
import { type KernelOptions, optionsName } from './kernelName.ts';

const specs = new Map<string, KernelSpec>();

/** `kind` names the template and its tile. */
export function cachedSpec(options: KernelOptions, kind: string, make: () => KernelSpec): KernelSpec {
  const key = `${kind}_${optionsName(options)}`;
  let spec = specs.get(key);
  if (spec === undefined) {
    spec = make();
    specs.set(key, spec);
  }
  return spec;
}
