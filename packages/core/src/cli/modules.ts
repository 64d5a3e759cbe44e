// SPDX-License-Identifier: Apache-2.0
// Every module there is to know of: those that models launch, and what else this machine compiled.
import { aotKernels } from '../aotKernels.ts';
import type { Target } from '../jit/arch.ts';
import { jitConfig } from '../jit/config.ts';
import { moduleKey } from '../jit/key.ts';
import { type CachedModule, listCachedModules } from '../jit/status.ts';

export interface Module {
  readonly uri: string;
  /** Below `include/`; `null` where a damaged entry of the cache is all there is of it. */
  readonly header: string | null;
  /** The device function it instantiates. */
  readonly entry: string | null;
  /** Architectures on which models launch it, of those that were asked for. */
  readonly targets: string[];
  /** What this machine compiled of it. */
  readonly cached: CachedModule[];
}

export function listModules(targets: readonly Target[]): Module[] {
  const config = jitConfig();
  const modules = new Map<string, Module>();
  const uris = new Map<string, string>();
  for (const target of targets) {
    for (const spec of aotKernels({ arch: target })) {
      // A kernel is the same on every architecture, and the hash of its source not free.
      const uri = uris.get(spec.name) ?? moduleKey(spec, config).uri;
      uris.set(spec.name, uri);
      const module = modules.get(uri) ?? { uri, header: spec.header, entry: spec.entry, targets: [], cached: [] };
      module.targets.push(target);
      modules.set(uri, module);
    }
  }
  for (const cached of listCachedModules()) {
    const { uri, header = null, entry = null } = cached;
    const module = modules.get(uri) ?? { uri, header, entry, targets: [], cached: [] };
    module.cached.push(cached);
    modules.set(uri, module);
  }
  return [...modules.values()].sort((a, b) => (a.uri < b.uri ? -1 : 1));
}

/** Those of this name, with or without its hash; where there is none, those whose names contain it. */
export function modulesNamed(modules: readonly Module[], name: string): Module[] {
  const exact = modules.filter(({ uri }) => uri === name || uri.replace(/_[0-9a-f]{16}$/, '') === name);
  return exact.length > 0 ? exact : modules.filter(({ uri }) => uri.includes(name));
}
