// SPDX-License-Identifier: Apache-2.0
import { homedir } from 'node:os';
import { parse, posix, win32 } from 'node:path';

/**
 * This user's home folder. The root folder where there is none, as for a user id that a container made up: what was
 * compiled elsewhere is found without one, and an attempt to write there fails with what to do.
 */
export function homeFolder(home: () => string = homedir): string {
  try {
    // An empty HOME would make paths relative to wherever the process is.
    return home() || parse(process.cwd()).root;
  } catch {
    return parse(process.cwd()).root;
  }
}

/** Where this system keeps files that programs can make again. */
export function userCacheHome(platform: string, env: NodeJS.ProcessEnv, home: string): string {
  if (env.XDG_CACHE_HOME) return env.XDG_CACHE_HOME;
  // Not the roaming folder, which is copied between machines.
  if (platform === 'win32') return env.LOCALAPPDATA || win32.join(home, 'AppData', 'Local');
  return platform === 'darwin' ? posix.join(home, 'Library', 'Caches') : posix.join(home, '.cache');
}
