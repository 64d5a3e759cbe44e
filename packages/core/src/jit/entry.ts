// SPDX-License-Identifier: Apache-2.0
// One compiled module as a folder: the binary, its source, log.txt, and spec.json with the checksums of all of them.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseTarget, type Target } from './arch.ts';
import { cubinSm } from './cubin.ts';
import { schemaVersion } from './key.ts';

const kernelFiles = ['kernel.cubin', 'source.cu', 'log.txt'] as const;
/** Of a library for the cpu device. */
export const hostFiles = ['variant.so', 'source.cc', 'log.txt'] as const;
export const manifestFile = 'spec.json';

export interface EntryManifest {
  readonly schema: number;
  readonly uri: string;
  /** A `Target`, or for a library of the cpu device its platform and instruction set. */
  readonly target: string;
  readonly libraryVersion: string;
  readonly compiler: { readonly kind: string; readonly release: string };
  readonly header: string;
  readonly entry: string;
  /** How long the compilation took. */
  readonly seconds: number;
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
  /** Over the JSON of all fields above. */
  readonly sha256: string;
}

export interface Entry {
  readonly cubin: Uint8Array;
  readonly manifest: EntryManifest;
}

export type EntryState =
  | { readonly kind: 'valid'; readonly entry: Entry }
  | { readonly kind: 'absent' }
  | { readonly kind: 'corrupt'; readonly reason: string };

/** Reads and verifies a kernel's entry. */
export function readEntry(folder: string, uri: string, target: Target): EntryState {
  const state = readFiles(folder, kernelFiles, uri, target);
  if (state.kind !== 'valid') return state;
  const cubin = state.contents.get('kernel.cubin') as Buffer;
  const sm = cubinSm(cubin);
  if (sm !== parseTarget(target).sm) {
    return {
      kind: 'corrupt',
      reason: `kernel.cubin is for ${sm === undefined ? 'no GPU' : `sm_${sm}`}, not ${target}`,
    };
  }
  return { kind: 'valid', entry: { cubin, manifest: state.manifest } };
}

type FilesState =
  | { readonly kind: 'valid'; readonly manifest: EntryManifest; readonly contents: ReadonlyMap<string, Buffer> }
  | Exclude<EntryState, { kind: 'valid' }>;

/** Reads and verifies a folder of these files, the binary first; nothing of one that fails any check is used. */
export function readFiles(folder: string, files: readonly string[], uri: string, target: string): FilesState {
  try {
    return verifyFiles(folder, files, uri, target);
  } catch (error) {
    // Of another user, perhaps: the kernel may still come from elsewhere.
    const { code, message } = error as NodeJS.ErrnoException;
    if (['EACCES', 'EPERM', 'ERR_ACCESS_DENIED'].includes(code ?? '')) return { kind: 'corrupt', reason: message };
    throw error;
  }
}

function verifyFiles(folder: string, files: readonly string[], uri: string, target: string): FilesState {
  const text = readIfPresent(join(folder, manifestFile));
  if (text === undefined) {
    const damaged = readIfPresent(join(folder, files[0]!)) !== undefined;
    return damaged ? { kind: 'corrupt', reason: `${manifestFile} is missing` } : { kind: 'absent' };
  }
  const manifest = parseManifest(text.toString('utf8'));
  if (manifest === undefined) return { kind: 'corrupt', reason: `${manifestFile} fails its checksum` };
  if (manifest.schema !== schemaVersion || manifest.uri !== uri || manifest.target !== target) {
    return { kind: 'corrupt', reason: `it holds ${manifest.uri} for ${manifest.target}, schema ${manifest.schema}` };
  }
  const contents = new Map<string, Buffer>();
  for (const name of files) {
    const content = readIfPresent(join(folder, name));
    if (content === undefined) return { kind: 'corrupt', reason: `${name} is missing` };
    const expected = manifest.files[name];
    if (content.byteLength !== expected?.bytes || sha256(content) !== expected.sha256) {
      return { kind: 'corrupt', reason: `${name} fails its checksum` };
    }
    contents.set(name, content);
  }
  return { kind: 'valid', manifest, contents };
}

/** spec.json's text for the given files. */
export function manifestText(
  fields: Omit<EntryManifest, 'schema' | 'files' | 'sha256'>,
  contents: Readonly<Record<string, Uint8Array>>,
): string {
  const files = Object.fromEntries(
    Object.entries(contents).map(([name, content]) => [name, { bytes: content.byteLength, sha256: sha256(content) }]),
  );
  const signed = { schema: schemaVersion, ...fields, files };
  return `${JSON.stringify({ ...signed, sha256: sha256(JSON.stringify(signed)) }, undefined, 2)}\n`;
}

/** Undefined when the text is not what {@link manifestText} wrote. */
export function parseManifest(text: string): EntryManifest | undefined {
  try {
    const { sha256: expected, ...signed } = JSON.parse(text) as EntryManifest;
    return sha256(JSON.stringify(signed)) === expected ? { ...signed, sha256: expected } : undefined;
  } catch {
    return undefined;
  }
}

export function sha256(data: Uint8Array | string): string {
  return createHash('sha256').update(data).digest('hex');
}

function readIfPresent(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EISDIR') return undefined;
    throw error;
  }
}
