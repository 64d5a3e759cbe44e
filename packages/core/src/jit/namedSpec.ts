// SPDX-License-Identifier: Apache-2.0
import type { KernelSpec } from './spec.ts';

const specs = new Map<string, KernelSpec>();

/** The spec of this name, made the first time it is asked for: kernels are looked up by the object. */
export function namedSpec(name: string, make: () => KernelSpec): KernelSpec {
  let spec = specs.get(name);
  if (spec === undefined) {
    spec = make();
    specs.set(name, spec);
  }
  return spec;
}
