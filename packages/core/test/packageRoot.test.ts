// SPDX-License-Identifier: Apache-2.0
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { findPackage, packageRoot, packageVersion } from '../src/packageRoot.ts';
import { expectThrows } from './thrownBy.ts';

it('finds the package from any module in it', () => {
  const module = pathToFileURL(join(packageRoot(), 'dist', 'deep', 'module.js')).href;
  expect(findPackage(module)).toEqual({ path: packageRoot(), version: packageVersion() });
});

it('says what a bundler must do that took the package into its output', () => {
  for (const url of [pathToFileURL(join(tmpdir(), 'bundle.mjs')).href, undefined]) {
    expectThrows(() => findPackage(url), 'ERR_FLASHINFER_ADDON_NOT_FOUND', '--external:@flashinfer/core');
  }
});
