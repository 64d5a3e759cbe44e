// SPDX-License-Identifier: Apache-2.0
import { Command } from 'commander';
import { jitConfig } from '../jit/config.ts';
import { installJitCache } from '../jit/prebuilt/install.ts';
import { type JsonOption, jsonOption } from './jsonOption.ts';
import { formatBytes, formatCount, printJson } from './output.ts';

export function installJitCacheCommand(): Command {
  return new Command('install-jit-cache')
    .description('unpacks and verifies compiled kernels from a tarball of @flashinfer/jit-cache, without npm')
    .argument('<file>', 'flashinfer-jit-cache-<version>+cu<version>.tgz')
    .addOption(jsonOption('{ path, version, releases, targets, modules, bytes }'))
    .action(async (file: string, { json }: JsonOption) => {
      process.once('SIGINT', () => {
        console.error('flashinfer: install-jit-cache: interrupted; nothing was installed');
        process.exit(130);
      });
      const installed = await installJitCache(file, jitConfig());
      const { version, targets, modules, bytes, path } = installed;
      if (json) printJson(installed);
      else
        console.log(
          `Installed ${formatCount(modules, 'module')} of version ${version} for ${targets.join(', ')}, ${formatBytes(bytes)}, in ${path}`,
        );
    });
}
