// SPDX-License-Identifier: Apache-2.0
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';

// Through the package's own name: this is what a user gets, built, from ESM and from CommonJS.
const require = createRequire(import.meta.url);
const manifest = require('../package.json');

describe('@flashinfer/cubin', () => {
  it.each([
    ['import', () => import(manifest.name)],
    ['require', () => require(manifest.name)],
  ])('gives its folder and version through %s', async (_kind, load) => {
    const loaded = await load();
    expect(loaded.version).toBe(manifest.version);
    expect(loaded.getCubinDir()).toBe(join(dirname(require.resolve('../package.json')), 'cubins'));
  });

  it('publishes the folder it names', () => {
    expect(manifest.files).toContain('cubins');
  });
});
