// SPDX-License-Identifier: Apache-2.0
import { rmSync } from 'node:fs';
import { Command } from 'commander';
import { cacheInfo } from '../jit/status.ts';
import { formatBytes } from './output.ts';

export function clearCacheCommand(): Command {
  return new Command('clear-cache').description('deletes the compiled kernel modules of this version').action(() => {
    const { path, count, bytes } = cacheInfo();
    rmSync(path, { recursive: true, force: true });
    console.log(`Deleted ${count} module${count === 1 ? '' : 's'}, ${formatBytes(bytes)}, in ${path}`);
  });
}
