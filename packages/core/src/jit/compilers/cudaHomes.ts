// SPDX-License-Identifier: Apache-2.0
// Where CUDA toolkits are installed.
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { env } from '../../envVars.ts';

export const cudaHomes = {
  /** CUDA_HOME, CUDA_PATH and CUDA_ROOT, in this order. */
  fromEnvironment(): string[] {
    return [env.cudaHome, env.cudaPath, env.cudaRoot].filter((home) => home !== undefined);
  },

  /** The installers' default places, newest first. */
  usual(): string[] {
    if (process.platform !== 'win32') return ['/usr/local/cuda', '/opt/cuda'];
    const base = join(process.env.ProgramFiles ?? 'C:\\Program Files', 'NVIDIA GPU Computing Toolkit', 'CUDA');
    return listFolder(base)
      .sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))
      .map((version) => join(base, version));
  },
};

/** False also where this user may not look: PATH often has folders of others. */
export function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

export function listFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
