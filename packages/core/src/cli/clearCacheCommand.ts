// SPDX-License-Identifier: Apache-2.0
import { Command } from 'commander';
import { cacheFolders, cacheInfo } from '../jit/status.ts';
import { deleteFolders } from './deleteFolders.ts';
import { type JsonOption, jsonOption } from './jsonOption.ts';
import { formatBytes, formatCount, printJson } from './output.ts';

export function clearCacheCommand(): Command {
  return new Command('clear-cache')
    .description('deletes the kernel modules that this version compiled; installed ones stay')
    .addOption(jsonOption('{ path, modules, bytes } of what was deleted'))
    .action(({ json }: JsonOption) => {
      const { path, count, bytes } = cacheInfo();
      deleteFolders('clear-cache', cacheFolders(path));
      if (json) printJson({ path, modules: count, bytes });
      else console.log(`Deleted ${formatCount(count, 'module')}, ${formatBytes(bytes)}, in ${path}`);
    });
}
