// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from 'tsdown';

const index = 'src/index.ts';

export default defineConfig({
  entry: { index },
  // The command is ESM only.
  format: { esm: { entry: { index, cli: 'src/cli/main.ts' } }, cjs: {} },
  dts: true,
  platform: 'node',
  fixedExtension: false,
});
