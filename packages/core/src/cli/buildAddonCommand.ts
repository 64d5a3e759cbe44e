// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { accessSync, constants, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { Command } from 'commander';
import { CacheError, CompileError } from '../errors.ts';
import { addonCandidates, loadAddon } from '../native/load.ts';
import { packageRoot, packageVersion } from '../packageRoot.ts';
import { type JsonOption, jsonOption } from './jsonOption.ts';
import { printJson } from './output.ts';

/** Needed for the build alone, and so no dependencies: users of a platform package do without. */
const tools = ['cmake-js', 'node-addon-api', 'node-api-headers'] as const;

interface Manifest {
  readonly bin?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

export function buildAddonCommand(): Command {
  return new Command('build-addon')
    .description('compiles the addon from source, for a platform that no package of @flashinfer/core covers')
    .addOption(jsonOption('{ path, version }'))
    .action(({ json }: JsonOption) => {
      const root = packageRoot();
      buildAddon(root, findTools(tools, [root, process.cwd()], readManifest(join(root, 'package.json'))));
      const version = packageVersion();
      loadAddon(root, version);
      const path = addonCandidates(root)[0];
      if (json) printJson({ path, version });
      else console.log(`Built ${path}, version ${version}`);
    });
}

function readManifest(path: string): Manifest {
  return JSON.parse(readFileSync(path, 'utf8')) as Manifest;
}

/**
 * Folders of the tools, looked up from the core, then from the application.
 * @internal Exported for tests.
 * @throws CompileError `ERR_FLASHINFER_COMPILER_NOT_FOUND` naming those that are missing and their versions
 */
export function findTools<Name extends string>(
  names: readonly Name[],
  from: readonly string[],
  core: Manifest,
): Record<Name, string> {
  const found = Object.fromEntries(names.map((name) => [name, findTool(from, name)]));
  const missing = names.filter((name) => found[name] === undefined);
  if (missing.length === 0) return found as Record<Name, string>;
  const wanted = missing.map((tool) => `${tool}@${core.devDependencies?.[tool] ?? 'latest'}`);
  throw new CompileError(
    'ERR_FLASHINFER_COMPILER_NOT_FOUND',
    `build-addon: ${missing.join(', ')} not found from ${from.join(' or ')}; expected what builds the addon from source; ` +
      `npm install --save-dev ${wanted.join(' ')}`,
  );
}

function findTool(from: readonly string[], tool: string): string | undefined {
  for (const folder of from) {
    try {
      return dirname(createRequire(join(folder, 'package.json')).resolve(`${tool}/package.json`));
    } catch {
      // Not installed there.
    }
  }
  return undefined;
}

function buildAddon(root: string, found: Readonly<Record<(typeof tools)[number], string>>): void {
  try {
    accessSync(root, constants.W_OK);
  } catch (error) {
    throw new CacheError(
      'ERR_FLASHINFER_CACHE_UNWRITABLE',
      `build-addon: ${root} cannot be written; expected the folder of @flashinfer/core to be writable; run the command as ` +
        'the user who installed it',
      { cause: error },
    );
  }
  const program = join(
    found['cmake-js'],
    readManifest(join(found['cmake-js'], 'package.json')).bin?.['cmake-js'] ?? '',
  );
  // cmake-js looks for the headers from the core alone, which is elsewhere in pnpm's layout.
  const headers = [join(found['node-api-headers'], 'include'), found['node-addon-api']].join(';');
  const options = ['--directory', root, '--parallel', String(availableParallelism())];
  const { status, error } = spawnSync(
    process.execPath,
    [program, 'compile', ...options, `--CDCMAKE_JS_INC=${headers}`],
    // The command's own output is the last line; what the tools print is for the terminal.
    { cwd: root, stdio: ['ignore', 2, 2] },
  );
  if (status === 0) return;
  throw new CompileError(
    'ERR_FLASHINFER_COMPILE_FAILED',
    `build-addon: cmake-js ended with ${error?.message ?? `exit code ${status}`}; expected CMake 3.19 or newer and a C++17 ` +
      'compiler (Debian, Ubuntu: apt install cmake g++; Alpine: apk add cmake make g++; Windows: Visual Studio Build Tools ' +
      'with C++ and CMake); its output above says what failed',
  );
}
