// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from 'vitest/config';

const core = new URL('../core/src/', import.meta.url).pathname;

export default defineConfig({
  resolve: {
    alias: [
      { find: /^@flashinfer\/core$/, replacement: `${core}index.ts` },
      { find: /^@flashinfer\/core\/internal$/, replacement: `${core}internal.ts` },
    ],
  },
  test: { include: ['test/**/*.test.ts'], testTimeout: 120_000, pool: 'forks' },
});
