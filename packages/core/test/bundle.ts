// SPDX-License-Identifier: Apache-2.0
// The package as users load it, bundled from src/: for tests in worker threads and child processes.
import { mkdirSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'tsdown';
import { packageRoot } from '../src/packageRoot.ts';

export interface Bundle {
  readonly folder: string;
  readonly esm: string;
  readonly cjs: string;
}

/**
 * Bundles src/index.ts, or other entries by name, into a new folder inside the package, where the addon is found; the
 * caller removes it.
 */
export async function buildBundle(entry: Record<string, string> = { index: 'src/index.ts' }): Promise<Bundle> {
  const parent = join(packageRoot(), 'build');
  mkdirSync(parent, { recursive: true });
  const folder = mkdtempSync(join(parent, 'test-bundle-'));
  await build({
    config: false,
    cwd: packageRoot(),
    entry,
    format: ['esm', 'cjs'],
    platform: 'node',
    fixedExtension: true,
    dts: false,
    outDir: folder,
    logLevel: 'silent',
  });
  return { folder, esm: join(folder, 'index.mjs'), cjs: join(folder, 'index.cjs') };
}
