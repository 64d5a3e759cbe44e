// SPDX-License-Identifier: Apache-2.0
// Whether an addon is fit to be published: for the right platform and version, and content with what old systems have.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { platforms } from './platforms.mjs';

const elfMachines = { x64: 'Advanced Micro Devices X86-64', arm64: 'AArch64' };
// glibc's own libraries, and libgcc_s, which Node.js needs too. libstdc++ is linked into the addon, as csrc/glibc says.
const elfLibraries =
  /^(libgcc_s\.so\.1|libc\.so\.6|libm\.so\.6|libdl\.so\.2|libpthread\.so\.0|ld-linux-[\w-]+\.so\.\d)$/;
// Windows' own, and the program that loads the addon.
const windowsLibraries = /^(node\.exe|kernel32\.dll|user32\.dll|advapi32\.dll|msvcrt\.dll|ntdll\.dll)$/i;

/**
 * What keeps the addon from being published; empty where nothing does.
 * @param {string} file
 * @param {string} platform
 * @param {string} version
 */
export function addonProblems(file, platform, version) {
  const described = platforms[platform];
  if (!described) throw new Error(`addon-format: ${platform}; expected ${Object.keys(platforms).join(', ')}`);
  const problems =
    described.os === 'win32' ? windowsProblems(file) : elfProblems(file, described.cpu, described.glibc ?? '');
  // The text that the loader compares ends the string the addon exports.
  if (!readFileSync(file).includes(`${version}\0`)) problems.push(`it is not of version ${version}`);
  return problems.map((problem) => `${file}: ${problem}`);
}

/**
 * @param {string} file
 * @param {'x64' | 'arm64'} cpu
 * @param {string} glibc
 */
function elfProblems(file, cpu, glibc) {
  const text = execFileSync('readelf', ['--wide', '--file-header', '--dynamic', '--version-info', '--symbols', file], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...process.env, LC_ALL: 'C' },
  });
  const problems = [];
  const machine = /Machine:\s*(.*)/.exec(text)?.[1]?.trim();
  if (machine !== elfMachines[cpu]) problems.push(`it is for ${machine}, expected ${elfMachines[cpu]}`);
  const libraries = matches(text, /\(NEEDED\).*\[(.*)\]/g);
  if (libraries.length === 0) problems.push('readelf names no library it needs');
  for (const library of libraries)
    if (!elfLibraries.test(library)) problems.push(`it needs ${library}, which not every system has`);
  for (const path of matches(text, /\((?:RPATH|RUNPATH)\).*\[(.*)\]/g))
    problems.push(`it looks for libraries in ${path}`);
  const versions = matches(text, /Name: (\w+_[\d.]+) /g);
  if (versions.length === 0) problems.push('readelf names no symbol version it needs');
  /** @type {Readonly<Record<string, string>>} */
  const newest = { GLIBC: glibc, GCC: '4.9' };
  for (const version of versions) {
    const [family = '', number = ''] = version.split('_');
    const limit = newest[family];
    if (limit !== undefined && compare(number, limit) <= 0) continue;
    const symbols = matches(text, new RegExp(`UND (\\S+)@${version.replaceAll('.', '\\.')}`, 'g')).slice(0, 8);
    const expected = limit === undefined ? `no version of ${family}` : `${family}_${limit} or older`;
    problems.push(`it needs ${version} (${symbols.join(', ')}); expected ${expected}`);
  }
  return problems;
}

/** @param {string} file */
function windowsProblems(file) {
  const text = execFileSync('objdump', ['--private-headers', file], { encoding: 'utf8', maxBuffer: 1 << 28 });
  const problems = [];
  if (!/file format pei-x86-64/.test(text)) problems.push('it is no library for Windows on x64');
  const libraries = matches(text, /DLL Name: (\S+)/g);
  if (libraries.length === 0) problems.push('objdump names no library it needs');
  for (const library of libraries)
    if (!windowsLibraries.test(library)) problems.push(`it needs ${library}, which not every system has`);
  return problems;
}

/**
 * First groups of all matches, each once.
 * @param {string} text
 * @param {RegExp} pattern
 */
function matches(text, pattern) {
  return [...new Set([...text.matchAll(pattern)].map((match) => match[1] ?? ''))].sort();
}

/**
 * @param {string} a
 * @param {string} b
 */
function compare(a, b) {
  return a.localeCompare(b, 'en', { numeric: true });
}
