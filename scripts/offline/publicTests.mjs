// SPDX-License-Identifier: Apache-2.0
// Which tests can run on an installed @flashinfer/core: those that, with the files they import, take nothing from src/ but
// what the package exports. Tests of internals stay in the repository.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

/** `import ... from './x.ts'` and `export ... from`; types vanish before a test runs. */
const importStatement = /^(?:import|export)\s+(?!type\b)(?<names>[^'";]*?)\s*from\s+'(?<from>\.[^']+)'/gm;

/**
 * @param {string} core  folder with src/ and test/
 * @param {ReadonlySet<string>} exported  names that the installed package exports
 */
export function publicTests(core, exported) {
  const test = join(core, 'test');
  const files = readdirSync(test, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts'))
    .sort();
  /** @type {string[]} */
  const run = [];
  /** @type {Record<string, string>} */
  const left = {};
  /** @type {Set<string>} */
  const modules = new Set();
  for (const file of files) {
    const { internals, sources } = importsOf(core, join(test, file), exported);
    const [first] = internals;
    if (first !== undefined) left[file] = `takes ${first}, which the package does not export`;
    else {
      run.push(file);
      for (const source of sources) modules.add(source);
    }
  }
  if (run.length === 0) throw new Error(`publicTests: no test of ${test} can run on the package`);
  return { run, left, modules: [...modules].sort() };
}

/**
 * @param {string} core
 * @param {string} start
 * @param {ReadonlySet<string>} exported
 */
function importsOf(core, start, exported) {
  /** @type {string[]} */
  const internals = [];
  /** @type {Set<string>} */
  const sources = new Set();
  const seen = new Set([start]);
  for (const file of seen) {
    for (const { groups } of readFileSync(file, 'utf8').matchAll(importStatement)) {
      const path = join(dirname(file), groups?.from ?? '');
      const source = relative(join(core, 'src'), path);
      if (source.startsWith('..')) {
        if (existsSync(path)) seen.add(path);
        continue;
      }
      sources.add(source);
      const missing = importedNames(groups?.names ?? '', source).filter((name) => !exported.has(name));
      internals.push(...missing.map((name) => `${name} of src/${source.replaceAll('\\', '/')}`));
    }
  }
  return { internals, sources };
}

/**
 * @param {string} names  `{ a, type B, c as d }` or `* as all`
 * @param {string} source
 */
function importedNames(names, source) {
  if (names.startsWith('*')) return source === 'index.ts' ? [] : ['everything'];
  return names
    .replace(/^[^{]*\{|\}[^}]*$/g, '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '' && !name.startsWith('type '))
    .map((name) => name.replace(/\s+as\s.*$/, ''));
}
