// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { findTools } from '../../src/cli/buildAddonCommand.ts';
import { CompileError } from '../../src/errors.ts';
import { temporaryFolder } from '../jit/fixture.ts';

// Names that no package has: pnpm's NODE_PATH shows tests the whole workspace.
const names = ['absent-builder', 'absent-addon-api', 'absent-headers'] as const;
const core = { devDependencies: { 'absent-builder': '1.0.0', 'absent-addon-api': '2.0.0', 'absent-headers': '3.0.0' } };

function install(folder: string, name: string): string {
  const path = join(folder, 'node_modules', name);
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, 'package.json'), JSON.stringify({ name, version: '1.0.0' }));
  return path;
}

it('names the tools that are missing, with their versions', () => {
  const application = temporaryFolder();
  install(application, 'absent-addon-api');
  try {
    findTools(names, [temporaryFolder(), application], core);
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(CompileError);
    expect((error as CompileError).code).toBe('ERR_FLASHINFER_COMPILER_NOT_FOUND');
    expect((error as CompileError).message).toMatch(
      /^build-addon: absent-builder, absent-headers not found from .*; npm install --save-dev absent-builder@1\.0\.0 absent-headers@3\.0\.0$/,
    );
  }
});

it('takes the tools of the core before those of the application', () => {
  const [root, application] = [temporaryFolder(), temporaryFolder()];
  for (const folder of [root, application])
    for (const name of ['absent-builder', 'absent-addon-api']) install(folder, name);
  const headers = install(application, 'absent-headers');
  expect(findTools(names, [root, application], core)).toEqual({
    'absent-builder': join(root, 'node_modules/absent-builder'),
    'absent-addon-api': join(root, 'node_modules/absent-addon-api'),
    'absent-headers': headers,
  });
});
