// SPDX-License-Identifier: Apache-2.0
// What the Markdown files and workflows name exists: files, folders, package scripts, and environment variables. README.md
// names what the library exports; its table of variables comes from the library, and `--write` renews it.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { readText, report, repositoryFiles, root } from './repository.mjs';

const tableMarks = ['<!-- environment variables: written by scripts/check-docs.mjs --write -->\n', '<!-- end -->'];

/** @typedef {{ name: string, type: string, doc: string }} Variable */
/** @type {Variable[]} */
const variables = JSON.parse(
  execFileSync(process.execPath, ['packages/core/bin/flashinfer.js', 'show-config', '--json'], {
    cwd: root,
    encoding: 'utf8',
  }),
).environment;

/** What the tests read, in CONTRIBUTING.md. */
const testVariables = ['DEVICE', 'BACKEND', 'GRID', 'SEED'].map((name) => `FLASHINFER_TEST_${name}`);

const topLevel = readdirSync(root);
/** @type {Record<string, string>} */
const rootScripts = JSON.parse(readText('package.json')).scripts;
const packageScripts = repositoryFiles(/^packages\/[^/]+\/package\.json$/).flatMap((file) =>
  Object.keys(JSON.parse(readText(file)).scripts ?? {}),
);
const scripts = new Set([...Object.keys(rootScripts), ...packageScripts]);

/**
 * Code blocks and code spans.
 * @param {string} file
 */
function codeOf(file) {
  return [...readText(file).matchAll(/```[\s\S]*?```|`[^`\n]+`/g)].map((match) => match[0]);
}

/** @param {string} file */
function linkProblems(file) {
  const links = [...readText(file).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)].map((match) => match[1] ?? '');
  return links
    .filter((link) => !/^[a-z]+:/.test(link))
    .filter((link) => !existsSync(join(root, posix.dirname(file), link)))
    .map((link) => `${file}: links to ${link}, which does not exist`);
}

/**
 * Words in code that start with a folder or file of the root, up to the first placeholder such as `<op>` or `*`.
 * @param {string} file
 */
function pathProblems(file) {
  const words = codeOf(file)
    .flatMap((text) => text.split(/[\s`'"(),;:=]+/))
    .map((word) => word.replace(/^\.\//, ''));
  const paths = words.filter((word) => word.includes('/') && topLevel.includes(word.split('/')[0] ?? ''));
  return paths
    .map((path) => path.replace(/[^/]*[<>{}*…$].*$/, '').replace(/\.$/, ''))
    .filter((path) => !existsSync(join(root, path)))
    .filter((path) => !/(^|\/)(dist|build|node_modules)(\/|$)/.test(path)) // built, not committed
    .map((path) => `${file}: names ${path}, which does not exist`);
}

/** @param {string} file */
function scriptProblems(file) {
  const commands = [
    ...codeOf(file)
      .join('\n')
      .matchAll(/\b(?:npm run|pnpm run|pnpm)\s+([a-z][\w:.-]*)/g),
  ];
  const builtIn = ['exec', 'install', 'pack', 'publish', 'run', 'add'];
  return commands
    .map((match) => match[1] ?? '')
    .filter((name) => !builtIn.includes(name) && !scripts.has(name))
    .map((name) => `${file}: names the script ${name}, which no package.json has`);
}

/** @param {string} file */
function variableProblems(file) {
  const known = new Set([...variables.map(({ name }) => name), ...testVariables]);
  const named = [...readText(file).matchAll(/\bFLASHINFER_[A-Z0-9_]+\b/g)].map((match) => match[0]);
  return named.filter((name) => !known.has(name)).map((name) => `${file}: names ${name}, which nothing reads`);
}

function renderedTable() {
  const rows = variables.map(({ name, type, doc }) => `| \`${name}\` | ${type} | ${doc} |\n`);
  return `| Variable | Value | Meaning |\n|---|---|---|\n${rows.join('')}`;
}

/** @returns {string[]} */
function tableProblems() {
  const text = readText('README.md');
  const [start, end] = [text.indexOf(tableMarks[0] ?? ''), text.indexOf(tableMarks[1] ?? '')];
  if (start === -1 || end < start) return ['README.md: lacks the marks of the table of environment variables'];
  const from = start + (tableMarks[0]?.length ?? 0);
  const renewed = text.slice(0, from) + renderedTable() + text.slice(end);
  if (renewed === text) return [];
  if (process.argv.includes('--write')) {
    writeFileSync(join(root, 'README.md'), renewed);
    return [];
  }
  return ['README.md: the table of environment variables is old; run node scripts/check-docs.mjs --write'];
}

/** Functions and classes that users call, each in the README; errors they catch. */
async function operatorProblems() {
  const api = await import('@flashinfer/core');
  const text = readText('README.md');
  return Object.entries(api)
    .filter(([, value]) => typeof value === 'function' && !(value.prototype instanceof Error))
    .map(([name]) => name)
    .filter((name) => !text.includes(`\`${name}\``))
    .map((name) => `README.md: does not name ${name}, which @flashinfer/core exports`);
}

/**
 * Programs and package scripts that a workflow runs.
 * @param {string} file
 */
function workflowProblems(file) {
  const text = readText(file);
  const programs = [...text.matchAll(/\b(?:node|uses:|run:)\s+(\.?[\w./-]+\/[\w./-]+)/g)]
    .map((match) => match[1] ?? '')
    .filter((path) => /^(\.\/|\.ci\/|scripts\/)/.test(path));
  const named = [...text.matchAll(/\bpnpm run ([\w:.-]+)/g)].map((match) => match[1] ?? '');
  return [
    ...programs
      .filter((path) => !existsSync(join(root, path)))
      .map((path) => `${file}: runs ${path}, which does not exist`),
    ...named
      .filter((name) => !(name in rootScripts))
      .map((name) => `${file}: runs the script ${name}, which package.json does not have`),
  ];
}

const workflows = repositoryFiles(/^\.github\/.*\.yml$/);
const files = repositoryFiles(/\.md$/);
if (variables.length === 0) throw new Error('check-docs: show-config lists no environment variable');
report(
  [
    ...files.flatMap((file) => [
      ...linkProblems(file),
      ...pathProblems(file),
      ...scriptProblems(file),
      ...variableProblems(file),
    ]),
    ...workflows.flatMap(workflowProblems),
    ...tableProblems(),
    ...(await operatorProblems()),
  ],
  `${files.length} Markdown files and ${workflows.length} workflows name what exists`,
);
