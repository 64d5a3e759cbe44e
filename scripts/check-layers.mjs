// SPDX-License-Identifier: Apache-2.0
// Imports of packages/core/src point down the layers, and kernel headers include nothing but each other.
// Cycles between files are Biome's rule noImportCycles.
import { posix } from 'node:path';
import { readText, report, repositoryFiles } from './repository.mjs';

const source = 'packages/core/src/';

/** Bottom first. A file or folder named nowhere is an operator family. */
const layers = [
  ['errors.ts', 'envVars.ts', 'logging.ts', 'packageRoot.ts', 'native'],
  ['check', 'jit', 'runtime', 'tensor'],
  ['operators'],
  ['kernelFamilies.ts', 'aotKernels.ts', 'moduleStatus.ts', 'showConfig.ts'],
  ['cli', 'index.ts', 'internal.ts', 'aot.ts'],
];

/** @param {string} file */
function layerOf(file) {
  const top = file.slice(source.length).split('/')[0] ?? '';
  const found = layers.findIndex((names) => names.includes(top));
  return found === -1 ? layers.findIndex((names) => names.includes('operators')) : found;
}

/** @param {string} file */
function typescriptProblems(file) {
  const problems = [];
  for (const [, specifier = ''] of readText(file).matchAll(/(?:from|import)\s*\(?\s*'(\.[^']*)'/g)) {
    const target = posix.join(posix.dirname(file), specifier);
    if (!target.startsWith(source)) problems.push(`${file}: imports ${specifier}, outside of ${source}`);
    else if (target === `${source}index.ts`)
      problems.push(`${file}: imports index.ts; import the file that defines it`);
    else if (layerOf(target) > layerOf(file)) problems.push(`${file}: imports ${specifier}, of a higher layer`);
  }
  return problems;
}

/**
 * Kernel headers compile under NVRTC, which has no standard library: what is not ours must be hidden from it.
 * @param {string} file
 */
function headerProblems(file) {
  const problems = [];
  /** @type {boolean[]} */
  const hidden = []; // one entry per open #if: is this branch left out under NVRTC?
  for (const [index, line] of readText(file).split('\n').entries()) {
    const directive = /^\s*#\s*(if|ifdef|ifndef|else|elif|endif|include)\b\s*(.*)/.exec(line);
    if (!directive) continue;
    const [, name, rest = ''] = directive;
    if (name === 'include') {
      const path = /^[<"]([^>"]+)[>"]/.exec(rest)?.[1] ?? rest;
      if (path.startsWith('flashinfer/')) continue;
      const at = `${file}:${index + 1}: includes ${path}`;
      if (/^(node_|napi|uv|v8)/.test(path)) problems.push(`${at}; kernel headers know nothing of Node.js`);
      else if (!hidden.includes(true)) problems.push(`${at}; only flashinfer/ outside of #ifndef __CUDACC_RTC__`);
    } else if (name === 'endif') hidden.pop();
    else if (name === 'else' || name === 'elif') hidden.splice(-1, 1, false);
    else
      hidden.push(name === 'ifndef' ? rest.startsWith('__CUDACC_RTC__') : /!\s*defined\(__CUDACC_RTC__\)/.test(rest));
  }
  return problems;
}

const typescript = repositoryFiles(/^packages\/core\/src\/.*\.ts$/);
const headers = repositoryFiles(/^include\//);
report(
  [...typescript.flatMap(typescriptProblems), ...headers.flatMap(headerProblems)],
  `${typescript.length} TypeScript files and ${headers.length} kernel headers keep to their layers`,
);
