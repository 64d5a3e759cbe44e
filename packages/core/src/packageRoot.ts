// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BinaryNotFoundError } from './errors.ts';

let found: { readonly path: string; readonly version: string } | undefined;

/**
 * Folder of the installed `@flashinfer/core`: the addon, the headers and the add-on packages are looked up from there.
 * Found by walking up from this file, so it is the same from `src/` and from a bundle in `dist/`.
 */
export function packageRoot(): string {
  found ??= findPackage(import.meta.url);
  return found.path;
}

/** Version in the package.json of `@flashinfer/core`. */
export function packageVersion(): string {
  found ??= findPackage(import.meta.url);
  return found.version;
}

/** @internal From the module of this URL; esbuild's CommonJS bundles have none. */
export function findPackage(url: string | undefined): { path: string; version: string } {
  if (url === undefined) throw bundled('a bundle of modules that have no URL');
  const start = dirname(fileURLToPath(url));
  for (let folder = start; ; folder = dirname(folder)) {
    const manifest = readManifest(join(folder, 'package.json'));
    if (manifest?.name === '@flashinfer/core') return { path: folder, version: manifest.version };
    if (folder === dirname(folder)) break;
  }
  throw bundled(start);
}

function bundled(where: string): BinaryNotFoundError {
  return new BinaryNotFoundError(
    'ERR_FLASHINFER_ADDON_NOT_FOUND',
    `packageRoot: no package.json of @flashinfer/core above ${where}; expected this module inside the installed ` +
      'package; a bundler must leave @flashinfer/core external (esbuild: --external:@flashinfer/core)',
  );
}

function readManifest(path: string): { name: string; version: string } | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}
