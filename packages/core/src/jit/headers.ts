// SPDX-License-Identifier: Apache-2.0
// The set of headers a kernel depends on. Its contents are part of the key, so none may be missed: an include form this
// scanner does not follow is an error.
import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { BinaryNotFoundError, FlashInferError } from '../errors.ts';

interface Header {
  readonly mtimeMs: number;
  readonly size: number;
  readonly sha256: string;
  readonly includes: readonly { readonly quoted: boolean; readonly name: string }[];
}

const scanned = new Map<string, Header>();

/** Hash over the names and contents of everything `header` includes below `roots`. */
export function hashHeaders(header: string, roots: readonly string[]): string {
  const hash = createHash('sha256');
  for (const found of includeClosure(header, roots).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    hash.update(`${found.name}\0${found.header.sha256}\0`);
  }
  return hash.digest('hex');
}

/** Paths below the include roots of `header` and all it includes. */
export function listHeaders(header: string, roots: readonly string[]): string[] {
  return includeClosure(header, roots).map((found) => found.name);
}

interface Found {
  readonly name: string;
  readonly path: string;
  readonly header: Header;
}

function includeClosure(header: string, roots: readonly string[]): Found[] {
  const found = new Map<string, Found>();
  const visit = (name: string, from: string): void => {
    if (found.has(name)) return;
    const path = roots.map((root) => join(root, name)).find(exists);
    if (path === undefined) {
      throw new BinaryNotFoundError(
        'ERR_FLASHINFER_BINARY_NOT_FOUND',
        `getKernel: ${from} includes ${name}, which is not below ${roots.join(' or ')}; expected the headers of ` +
          '@flashinfer/core there; reinstall the package',
      );
    }
    const entry = { name, path, header: scan(path) };
    found.set(name, entry);
    for (const include of entry.header.includes) visit(resolve(include, name, roots), name);
  };
  visit(header, 'the kernel spec');
  return [...found.values()];
}

/** A quoted name is looked up beside the including header first, as compilers do. */
function resolve(include: { quoted: boolean; name: string }, from: string, roots: readonly string[]): string {
  const beside = join(dirname(from), include.name).replaceAll('\\', '/');
  return include.quoted && roots.some((root) => exists(join(root, beside))) ? beside : include.name;
}

function scan(path: string): Header {
  const { mtimeMs, size } = statSync(path);
  const known = scanned.get(path);
  if (known && known.mtimeMs === mtimeMs && known.size === size) return known;
  const text = readFileSync(path, 'utf8');
  const header = {
    mtimeMs,
    size,
    sha256: createHash('sha256').update(text).digest('hex'),
    includes: parse(text, path),
  };
  scanned.set(path, header);
  return header;
}

/**
 * C++ standard headers (`<cstdint>`: no folder, no extension) are part of the compiler and not followed; NVRTC has none,
 * so kernels include them for host compilers only.
 */
function parse(text: string, path: string): { quoted: boolean; name: string }[] {
  const includes: { quoted: boolean; name: string }[] = [];
  const code = text.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, ' ').replace(/\\\r?\n/g, ' ');
  for (const [line, rest = ''] of code.matchAll(/^[ \t]*#[ \t]*include(?:_next)?\b([^\n]*)/gm)) {
    const operand = rest.trim();
    if (/^<[a-z_]+>$/.test(operand)) continue;
    const match = /^(?:"([\w./-]+)"|<(flashinfer\/[\w./-]+)>)$/.exec(operand);
    const name = match?.[1] ?? match?.[2];
    if (name === undefined || name.split('/').includes('..') || line.includes('include_next')) {
      throw new FlashInferError(
        'ERR_FLASHINFER_INTERNAL',
        `${path}: ${line.trim()}; expected <flashinfer/...>, "..." beside it, or a C++ standard header; kernel headers ` +
          'are self-contained',
      );
    }
    includes.push({ quoted: match?.[1] !== undefined, name });
  }
  return includes;
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}
