// SPDX-License-Identifier: Apache-2.0
import { Command } from 'commander';
import { jitConfig } from '../jit/config.ts';
import { installJitCache } from '../jit/prebuilt/install.ts';
import { formatBytes } from './output.ts';

export function installJitCacheCommand(): Command {
  return new Command('install-jit-cache')
    .description('unpacks and verifies compiled kernels from a tarball of @flashinfer/jit-cache, without npm')
    .argument('<file>', 'flashinfer-jit-cache-<version>+cu<version>.tgz')
    .option('--json', 'print the result as JSON')
    .action(async (file: string, { json }: { json?: boolean }) => {
      const installed = await installJitCache(file, jitConfig());
      const { version, targets, modules, bytes, path } = installed;
      if (json) console.log(JSON.stringify(installed, null, 2));
      else
        console.log(
          `Installed ${modules} modules of version ${version} for ${targets.join(', ')}, ${formatBytes(bytes)}, in ${path}`,
        );
    });
}
