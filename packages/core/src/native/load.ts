// SPDX-License-Identifier: Apache-2.0
// Finds and loads the addon, once, when first needed.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { BinaryNotFoundError } from '../errors.ts';
import { packageRoot, packageVersion } from '../packageRoot.ts';
import type { NativeBinding } from './binding.ts';

export { toFlashInferError } from './nativeError.ts';

let loaded: NativeBinding | undefined;

/**
 * The native addon of this installation.
 *
 * @throws BinaryNotFoundError `ERR_FLASHINFER_ADDON_NOT_FOUND` naming every path tried, or
 * `ERR_FLASHINFER_BINARY_MISMATCH` when the file was built for another version of the package.
 */
export function native(): NativeBinding {
  loaded ??= loadAddon(packageRoot(), packageVersion());
  return loaded;
}

/** Where the addon may be, best first: a local build, then the binary shipped for this platform. */
export function addonCandidates(root: string): string[] {
  return [
    join(root, 'build', 'Release', 'flashinfer.node'),
    join(root, 'prebuilds', `${process.platform}-${process.arch}`, 'flashinfer.node'),
  ];
}

/** @internal Exported for tests; use {@link native}. */
export function loadAddon(root: string, version: string): NativeBinding {
  // Not named `require`: bundlers turn import.meta.url into a call of that in CommonJS.
  const requireAddon = createRequire(import.meta.url);
  const tried: string[] = [];
  let cause: unknown;
  for (const path of addonCandidates(root)) {
    if (!existsSync(path)) {
      tried.push(`${path} (no such file)`);
      continue;
    }
    try {
      return checkVersion(requireAddon(path) as NativeBinding, version, path);
    } catch (error) {
      if (error instanceof BinaryNotFoundError) throw error;
      cause = error;
      tried.push(`${path} (${error instanceof Error ? error.message : String(error)})`);
    }
  }
  throw new BinaryNotFoundError(
    'ERR_FLASHINFER_ADDON_NOT_FOUND',
    `native: the addon for ${process.platform}-${process.arch} did not load; tried ${tried.join(', ')}; ` +
      `build it with \`npm run build:addon\` in ${root} (needs CMake 3.19 and a C++17 compiler)`,
    { cause },
  );
}

function checkVersion(binding: NativeBinding, version: string, path: string): NativeBinding {
  if (binding.version === version) return binding;
  throw new BinaryNotFoundError(
    'ERR_FLASHINFER_BINARY_MISMATCH',
    `native: ${path} is version ${binding.version}; expected ${version} as @flashinfer/core; ` +
      'rebuild it with `npm run build:addon`, or reinstall the package',
  );
}
