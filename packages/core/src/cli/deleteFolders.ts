// SPDX-License-Identifier: Apache-2.0
import { existsSync, rmSync } from 'node:fs';
import { CacheError } from '../errors.ts';

/** @throws CacheError naming the folder that cannot be deleted; those before it are gone */
export function deleteFolders(command: string, folders: readonly string[]): void {
  for (const folder of folders) {
    try {
      // Where a file is in the way of the folder there is nothing to delete, and `force` alone would throw.
      if (existsSync(folder)) rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    } catch (error) {
      throw new CacheError(
        'ERR_FLASHINFER_CACHE_UNWRITABLE',
        `${command}: ${folder} cannot be deleted (${(error as Error).message}); expected a folder that this user may write ` +
          'and that no process uses; run the command as the user who owns it, or delete it yourself',
        { cause: error },
      );
    }
  }
}
