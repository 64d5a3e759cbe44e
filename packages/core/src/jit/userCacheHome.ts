// SPDX-License-Identifier: Apache-2.0
import { posix, win32 } from 'node:path';

/** Where this system keeps files that programs can make again. */
export function userCacheHome(platform: string, env: NodeJS.ProcessEnv, home: string): string {
  if (env.XDG_CACHE_HOME) return env.XDG_CACHE_HOME;
  // Not the roaming folder, which is copied between machines.
  if (platform === 'win32') return env.LOCALAPPDATA || win32.join(home, 'AppData', 'Local');
  return platform === 'darwin' ? posix.join(home, 'Library', 'Caches') : posix.join(home, '.cache');
}
