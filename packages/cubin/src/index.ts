// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** Folder of the kernels: `<sm architecture>/<module URI>.cubin.br` and `<sm architecture>/manifest.json`. Absent until they were built. */
export function getCubinDir(): string {
  return fileURLToPath(new URL('../cubins', import.meta.url));
}

/** Version of this package; `@flashinfer/core` uses its kernels only when both versions are the same. */
export const version: string = readVersion();

function readVersion(): string {
  return JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version;
}
