// SPDX-License-Identifier: Apache-2.0
// `<folder>/<arch>/manifest.json`: the compiled modules of one architecture, each beside it as `<uri>.cubin.br`. Packages,
// folders that users copy, and repositories that kernels are downloaded from all have this form.
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { formatTarget, parseTarget, type Target } from '../arch.ts';

export const prebuiltManifestFile = 'manifest.json';
export const prebuiltSchema = 1;

/** One compiled module: its size and checksum as the driver loads it, and compressed as it is stored. */
export interface PrebuiltModule {
  readonly bytes: number;
  readonly sha256: string;
  readonly packedBytes: number;
  readonly packedSha256: string;
}

export interface PrebuiltManifest {
  readonly schema: typeof prebuiltSchema;
  /** Version of the library whose kernels these are. */
  readonly version: string;
  readonly target: Target;
  readonly compiler: { readonly kind: string; readonly release: string };
  /** Over the names of all modules, which are made from their sources. */
  readonly sourceHash: string;
  readonly modules: Readonly<Record<string, PrebuiltModule>>;
}

export const packedName = (uri: string): string => `${uri}.cubin.br`;

const uriForm = /^[a-z][a-z0-9_]*_[0-9a-f]{16}$/;
const sha256Form = /^[0-9a-f]{64}$/;

/** Undefined where the text is not a manifest of this form, whoever wrote it: names become paths. */
export function parsePrebuiltManifest(text: string): PrebuiltManifest | undefined {
  try {
    const manifest = JSON.parse(text) as PrebuiltManifest;
    const { schema, version, target, compiler, modules } = manifest;
    const sound =
      schema === prebuiltSchema &&
      typeof version === 'string' &&
      formatTarget(parseTarget(target)) === target &&
      /^\d+\.\d+$/.test(compiler.release) &&
      Object.entries(modules).every(([uri, module]) => uriForm.test(uri) && isSound(module));
    return sound ? manifest : undefined;
  } catch {
    return undefined;
  }
}

function isSound({ bytes, sha256, packedBytes, packedSha256 }: PrebuiltModule): boolean {
  return (
    [bytes, packedBytes].every(Number.isSafeInteger) && [sha256, packedSha256].every((sum) => sha256Form.test(sum))
  );
}

const known = new Map<string, { readonly stamp: string; readonly manifest: PrebuiltManifest | undefined }>();

/** The manifest of one architecture, 'absent', or undefined where it is damaged or cannot be read. Read again when the file changes. */
export function readPrebuiltManifest(folder: string, target: Target): PrebuiltManifest | 'absent' | undefined {
  const path = join(folder, target, prebuiltManifestFile);
  const stamp = fileStamp(path);
  if (stamp === undefined) return 'absent';
  let entry = known.get(path);
  if (entry?.stamp !== stamp) {
    const manifest = readManifest(path);
    entry = { stamp, manifest: manifest?.target === target ? manifest : undefined };
    known.set(path, entry);
  }
  return entry.manifest;
}

function readManifest(path: string): PrebuiltManifest | undefined {
  try {
    return parsePrebuiltManifest(readFileSync(path, 'utf8'));
  } catch {
    // Not to be read by this user.
    return undefined;
  }
}

/** Another one when the file changes; undefined where there is none to be seen. */
export function fileStamp(path: string): string | undefined {
  try {
    const { mtimeMs, size, ino } = statSync(path);
    return `${mtimeMs} ${size} ${ino}`;
  } catch {
    return undefined;
  }
}
