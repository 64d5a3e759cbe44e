// SPDX-License-Identifier: Apache-2.0
// Installs the dependencies, builds @flashinfer/core and runs the first example.
import { pnpm } from './pnpm.mjs';

pnpm('install', '--frozen-lockfile');
pnpm('exec', 'turbo', 'run', 'build', 'build:addon', '--filter=@flashinfer/core', '--output-logs=errors-only');
pnpm('exec', 'node', 'examples/quickstart.mjs', ...process.argv.slice(2));
