// SPDX-License-Identifier: Apache-2.0
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../packageRoot.ts';
import type { Target } from '../arch.ts';

/** One manifest of a repository: its size and checksum, and how many modules it lists. */
interface PinnedManifest {
  readonly bytes: number;
  readonly sha256: string;
  readonly modules: number;
}

/** `cubins.json` of a released core: the manifest of each architecture. */
export type PinnedManifests = Readonly<Partial<Record<Target, PinnedManifest>>>;

/** Empty in a checkout, whose kernels no repository can have. */
export function readPinnedManifests(): PinnedManifests {
  const path = join(packageRoot(), 'cubins.json');
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {};
}
