// SPDX-License-Identifier: Apache-2.0
// The variants of docs/attention-variants.md, as its code blocks define them.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import type { AttentionVariant } from '../../src/attention/variant.ts';
import { packageRoot } from '../../src/packageRoot.ts';

const text = readFileSync(join(packageRoot(), '..', '..', 'docs', 'attention-variants.md'), 'utf8');

/** The blocks, by the name of the variant each exports. */
export const documentedBlocks: ReadonlyMap<string, string> = new Map(
  [...text.matchAll(/^```ts\n(.*?)^```/gms)].map(([, code]) => [/^export const (\w+)/m.exec(code!)![1]!, code!]),
);

const parent = join(packageRoot(), 'build');
mkdirSync(parent, { recursive: true });
const folder = mkdtempSync(join(parent, 'variant-examples-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs TypeScript as a module of its own. */
export async function importBlock(name: string, code: string): Promise<Record<string, unknown>> {
  const path = join(folder, `${name}.ts`);
  writeFileSync(path, code);
  return await import(path);
}

/** The definition alone, without the call that follows. */
export async function documentedVariant(name: string): Promise<AttentionVariant> {
  const block = documentedBlocks.get(name)!;
  const end = block.indexOf('\n});\n') + '\n});\n'.length;
  return (await importBlock(`${name}Definition`, block.slice(0, end)))[name] as AttentionVariant;
}
