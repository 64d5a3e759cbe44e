// SPDX-License-Identifier: Apache-2.0
// The examples of doc comments: what users copy first must run.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Doc comment before `export function name` or `export class name`; of overloads, the first's. */
export function docComments(source: string): Map<string, string> {
  const comments = new Map<string, string>();
  const pattern = /\/\*\*((?:(?!\*\/).)*)\*\/\s*export (?:async )?(?:function|class) (\w+)/gs;
  for (const [, comment, name] of source.matchAll(pattern)) {
    if (!comments.has(name!)) comments.set(name!, comment!);
  }
  return comments;
}

/** The ```ts blocks of a doc comment, without its asterisks. */
export function exampleBlocks(comment: string): string[] {
  const text = comment.replace(/^[ \t]*\* ?/gm, '');
  return [...text.matchAll(/^```ts\n(.*?)^```/gms)].map(([, code]) => code!);
}

/** Doc comments of everything that the files of a folder export, by name. */
export function docCommentsIn(folder: string): Map<string, string> {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  return new Map(files.flatMap((file) => [...docComments(readFileSync(join(folder, file), 'utf8'))]));
}
