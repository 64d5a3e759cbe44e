// SPDX-License-Identifier: Apache-2.0
// Finds and loads the addon, once, when first needed.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { BinaryNotFoundError } from '../errors.ts';
import { packageRoot, packageVersion } from '../packageRoot.ts';
import type { NativeBinding } from './binding.ts';
import {
  addonFix,
  currentPlatform,
  findPlatformPackage,
  type PlatformPackage,
  platformPackageName,
} from './platformPackage.ts';

export { toFlashInferError } from './nativeError.ts';

let loaded: NativeBinding | undefined;

/**
 * The native addon of this installation.
 *
 * @throws BinaryNotFoundError `ERR_FLASHINFER_ADDON_NOT_FOUND` naming everything tried and the package that is missing, or
 * `ERR_FLASHINFER_BINARY_MISMATCH` when what was found is of another version of the package.
 */
export function native(): NativeBinding {
  loaded ??= loadAddon(packageRoot(), packageVersion());
  return loaded;
}

/** Where the addon may be, best first: built in this folder, then in the package of this platform, if it is installed. */
export function addonCandidates(root: string): string[] {
  const shipped = findPlatformPackage(root);
  return shipped === undefined ? [builtAddon(root)] : [builtAddon(root), shipped.path];
}

function builtAddon(root: string): string {
  return join(root, 'build', 'Release', 'flashinfer.node');
}

/** @internal Exported for tests; use {@link native}. */
export function loadAddon(root: string, version: string): NativeBinding {
  const tried: string[] = [];
  const causes: unknown[] = [];
  const attempt = (path: string, shipped?: PlatformPackage): NativeBinding | undefined => {
    if (!existsSync(path)) {
      tried.push(`${path} (no such file)`);
      return undefined;
    }
    if (shipped !== undefined && shipped.version !== version) throw mismatch(path, shipped.version, version, shipped);
    try {
      // Not named `require`: bundlers turn import.meta.url into a call of that in CommonJS.
      const requireAddon = createRequire(import.meta.url);
      const binding = requireAddon(path) as NativeBinding;
      if (binding.version !== version) throw mismatch(path, binding.version, version, shipped);
      return binding;
    } catch (error) {
      if (error instanceof BinaryNotFoundError) throw error;
      causes.push(error);
      tried.push(`${path} (${error instanceof Error ? error.message : String(error)})`);
      return undefined;
    }
  };
  const built = attempt(builtAddon(root));
  if (built !== undefined) return built;
  const shipped = findPlatformPackage(root);
  const binding = shipped && attempt(shipped.path, shipped);
  if (binding !== undefined) return binding;
  if (shipped === undefined) tried.push(`${platformPackageName()} (not installed)`);
  const where = currentPlatform();
  throw new BinaryNotFoundError(
    'ERR_FLASHINFER_ADDON_NOT_FOUND',
    `native: no addon for ${where.platform}-${where.arch} loads; tried ${tried.join(', ')}; expected ` +
      `${platformPackageName()} ${version} or a build of this machine; ` +
      (causes.some(isForbidden) ? allowAddons : addonFix(root, version, where)),
    { cause: causes.at(-1) },
  );
}

const allowAddons =
  'start Node.js without --no-addons, and with --allow-addons where it has the permission model (--permission), which ' +
  'then needs --allow-fs-read of this package too, and --allow-child-process and --allow-fs-write of the kernel cache ' +
  'to compile';

function isForbidden(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === 'ERR_DLOPEN_DISABLED';
}

function mismatch(path: string, found: string, version: string, shipped?: PlatformPackage): BinaryNotFoundError {
  const what = shipped === undefined ? path : `${shipped.name} (${path})`;
  const fix =
    shipped === undefined
      ? 'build it again with `npx flashinfer build-addon`, or delete it'
      : `npm install ${shipped.name}@${version}`;
  return new BinaryNotFoundError(
    'ERR_FLASHINFER_BINARY_MISMATCH',
    `native: ${what} is version ${found}; expected ${version} as @flashinfer/core; ${fix}`,
  );
}
