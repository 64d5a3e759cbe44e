// SPDX-License-Identifier: Apache-2.0
import { rmSync } from 'node:fs';
import { Command } from 'commander';
import { cacheFolders, cacheInfo } from '../jit/status.ts';
import { formatBytes } from './output.ts';

export function clearCacheCommand(): Command {
  return new Command('clear-cache')
    .description('deletes the kernel modules that this version compiled; installed ones stay')
    .action(() => {
      const { path, count, bytes } = cacheInfo();
      for (const folder of cacheFolders(path)) rmSync(folder, { recursive: true, force: true });
      console.log(`Deleted ${count} module${count === 1 ? '' : 's'}, ${formatBytes(bytes)}, in ${path}`);
    });
}
