// SPDX-License-Identifier: Apache-2.0
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  // The examples of doc comments import the package by its name.
  resolve: {
    alias: [{ find: /^@flashinfer\/core$/, replacement: fileURLToPath(new URL('src/index.ts', import.meta.url)) }],
  },
  test: { include: ['test/**/*.test.ts'], testTimeout: 120_000, pool: 'forks' },
});
