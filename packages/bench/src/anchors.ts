// SPDX-License-Identifier: Apache-2.0
// What peers reached on a named machine, kept as data in anchors/.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from './cases/childProcess.ts';

export interface AnchorRow {
  readonly case: string;
  readonly impl: string;
  readonly us?: number;
  readonly figure: number;
  readonly unit: string;
}

interface AnchorFile {
  readonly schema: number;
  readonly device: string;
  readonly date: string;
  readonly rows: readonly AnchorRow[];
}

/** Rows measured on this device model; none for other machines, whose figures would not compare. */
export function loadAnchors(deviceName: string): readonly AnchorRow[] {
  const file = JSON.parse(readFileSync(join(packageRoot, 'anchors/h200.json'), 'utf8')) as AnchorFile;
  return file.device === deviceName ? file.rows : [];
}

/** Microseconds of an anchor row, where it is a time at all. */
export function anchorUs({ us, figure, unit }: AnchorRow): number | undefined {
  return us ?? (unit.startsWith('us') ? figure : undefined);
}
