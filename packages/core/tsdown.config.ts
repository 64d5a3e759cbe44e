// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from 'tsdown';

const entry = { index: 'src/index.ts', internal: 'src/internal.ts' };

export default defineConfig({
  entry,
  // The command, and what scripts/compile-kernels.mjs needs, are ESM only and not exported.
  format: { esm: { entry: { ...entry, cli: 'src/cli/main.ts', aot: 'src/aot.ts' } }, cjs: {} },
  // Members marked @internal are for the other modules of this package.
  dts: { compilerOptions: { stripInternal: true } },
  platform: 'node',
  fixedExtension: false,
});
