// SPDX-License-Identifier: Apache-2.0
// Which of the kernels that models launch are compiled, and where they are: a look, which compiles and downloads nothing.
import { aotKernels } from './aotKernels.ts';
import type { Target } from './jit/arch.ts';
import { jitConfig } from './jit/config.ts';
import { moduleKey } from './jit/key.ts';
import { kernelSources } from './jit/sources.ts';
import { listCachedModules } from './jit/status.ts';

export interface ModuleStatus {
  readonly target: Target;
  readonly uri: string;
  /** Where it would come from; `null` where it would have to be downloaded or compiled. */
  readonly origin: 'cache' | 'jit-cache' | 'cubin' | null;
}

/** @throws BinaryNotFoundError where an add-on package is of another version, or a folder the user named is damaged */
export function moduleStatus(targets: readonly Target[]): ModuleStatus[] {
  const config = jitConfig();
  const sources = kernelSources(config);
  const cached = new Set(
    listCachedModules().flatMap(({ state, target, uri }) => (state === 'valid' ? [`${target} ${uri}`] : [])),
  );
  return targets.flatMap((target) =>
    aotKernels({ arch: target }).map((spec) => {
      const { uri } = moduleKey(spec, config);
      const nameFor = (libraryVersion: string) => moduleKey(spec, { ...config, libraryVersion }).uri;
      const source = sources.find((each) => each.find(nameFor, target) !== undefined);
      return { target, uri, origin: cached.has(`${target} ${uri}`) ? 'cache' : (source?.name ?? null) };
    }),
  );
}

/** How many kernels models launch on an architecture, and how many of them need no compiler any more. */
export interface ModuleTotals {
  target: Target;
  total: number;
  compiled: number;
}

export function moduleTotals(target: Target): ModuleTotals {
  const modules = moduleStatus([target]);
  return { target, total: modules.length, compiled: modules.filter(({ origin }) => origin !== null).length };
}
