// SPDX-License-Identifier: Apache-2.0
// The add-on packages: where they are installed, and whether their version is the core's.
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { BinaryNotFoundError } from '../errors.ts';
import { packageRoot } from '../packageRoot.ts';
import { knownTargets, type Target } from './arch.ts';
import type { JitConfig } from './config.ts';

export interface AddOn {
  readonly name: string;
  /** Folder of the package. */
  readonly root: string;
  readonly version: string;
}

/** The package with the cubins of one architecture, e.g. `@flashinfer/cubin-sm90a`. */
export function archPackage(target: Target): string {
  return `@flashinfer/cubin-${target.replace('_', '')}`;
}

/** Looked up from the core, then from the application. */
export function findAddOn(name: string): AddOn | undefined {
  for (const from of [packageRoot, process.cwd]) {
    try {
      // The working directory may be deleted, and then has no name.
      const manifest = createRequire(join(from(), 'package.json')).resolve(`${name}/package.json`);
      const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
      return { name, root: dirname(manifest), version };
    } catch {
      // Not installed there.
    }
  }
  return undefined;
}

/** The packages of single architectures that are installed. */
export function installedArchPackages(): AddOn[] {
  return knownTargets()
    .map((target) => findAddOn(archPackage(target)))
    .filter((addOn) => addOn !== undefined);
}

/** `1.2.0+cu130` is built for `1.2.0`: what follows the plus says which CUDA version compiled it. */
export function isSameVersion(addOn: string, core: string): boolean {
  return addOn.replace(/\+.*$/, '') === core;
}

/** Data folder of an add-on, or undefined where it is not installed or empty. @throws BinaryNotFoundError on another version */
export function addOnFolder(
  name: string,
  folder: string,
  config: JitConfig,
): { path: string; version: string } | undefined {
  const addOn = findAddOn(name);
  if (addOn === undefined) return undefined;
  checkVersion(
    `${name} ${addOn.version} is installed`,
    addOn.version,
    config,
    `npm install ${name}@${config.libraryVersion}`,
  );
  const path = join(addOn.root, folder);
  return existsSync(path) ? { path, version: addOn.version.replace(/\+.*$/, '') } : undefined;
}

/** @throws BinaryNotFoundError `ERR_FLASHINFER_VERSION_MISMATCH` unless FLASHINFER_DISABLE_VERSION_CHECK is set */
export function checkVersion(what: string, version: string, config: JitConfig, fix: string): void {
  if (config.disableVersionCheck || isSameVersion(version, config.libraryVersion)) return;
  throw new BinaryNotFoundError(
    'ERR_FLASHINFER_VERSION_MISMATCH',
    `getKernel: ${what} and @flashinfer/core is ${config.libraryVersion}; expected the same version; ${fix}, or set ` +
      'FLASHINFER_DISABLE_VERSION_CHECK=1 to use those of its kernels that did not change',
  );
}
