// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import type { JitConfig } from './config.ts';
import { nvccFlags, nvrtcFlags } from './flags.ts';
import { hashHeaders } from './headers.ts';
import { generateSource } from './source.ts';
import type { KernelSpec } from './spec.ts';

/** Raised when the form of an entry or of the key changes. */
export const schemaVersion = 1;

/** A module's identity and the source it is made from. */
export interface ModuleKey {
  /** `<name>_<hash>`: names the code, whatever compiled it. Prebuilt packages and downloads use it. */
  readonly uri: string;
  readonly source: string;
}

/**
 * The hash covers generated source, contents of every header, flags, library and schema version. The architecture is
 * the folder an entry lies in; the compiler's release is part of a cache entry's name (see `entryName`), so that a
 * machine without a compiler can still name, and use, what another machine compiled.
 */
export function moduleKey(spec: KernelSpec, config: JitConfig): ModuleKey {
  const source = generateSource(spec);
  const parts = [
    schemaVersion,
    config.libraryVersion,
    nvccFlags('sm_', config.codegen),
    nvrtcFlags('sm_', config.codegen),
    hashHeaders(spec.header, config.includeRoots),
    source,
  ];
  const hash = createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
  return { uri: `${spec.name}_${hash}`, source };
}

/** Folder of a module in the cache: nvcc and NVRTC of one release share it. */
export function entryName(uri: string, release: string): string {
  return `${uri}_cu${release.replace('.', '')}`;
}
