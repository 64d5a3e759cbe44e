// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { create, Header, type HeaderData } from 'tar';
import { describe, expect, it } from 'vitest';
import { runSync } from '../../src/jit/bothWays.ts';
import type { JitConfig } from '../../src/jit/config.ts';
import { prebuild } from '../../src/jit/prebuilt/build.ts';
import { installJitCache } from '../../src/jit/prebuilt/install.ts';
import { resolveModule } from '../../src/jit/resolve.ts';
import { installedJitCacheFolder, kernelSources } from '../../src/jit/sources.ts';
import { packageRoot } from '../../src/packageRoot.ts';
import { scaleSpec, temporaryFolder, testJit } from './fixture.ts';
import { stubCompiler } from './stubCompiler.ts';

const target = 'sm_90a';
const specs = [scaleSpec(2), scaleSpec(3)];
const jit = testJit(undefined);

/** The unpacked package, as pack-kernels.mjs packs it. */
async function makePackage(version = jit.config.libraryVersion): Promise<string> {
  const folder = join(temporaryFolder(), 'package');
  const compile = async () => ({ cubin: stubCompiler.cubin(target), log: '' });
  const config = { ...jit.config, libraryVersion: version };
  const modules = join(folder, 'modules/cu130');
  await prebuild({ folder: modules, target, specs, compiler: stubCompiler(), config, compile });
  mkdirSync(join(folder, 'dist'));
  writeFileSync(join(folder, 'dist/index.js'), 'throw new Error("never run")');
  const manifest = { name: '@flashinfer/jit-cache', version: `${version}+cu130` };
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest));
  return folder;
}

async function pack(folder: string): Promise<string> {
  const file = join(temporaryFolder(), 'jit-cache.tgz');
  await create({ file, cwd: dirname(folder), gzip: true, portable: true }, ['package']);
  return file;
}

/** An archive of one entry. */
function archive(entry: HeaderData, content = ''): string {
  const header = Buffer.alloc(512);
  new Header({ mode: 0o644, size: content.length, mtime: new Date(0), ...entry }).encode(header);
  const body = Buffer.alloc(Math.ceil(content.length / 512) * 512);
  body.write(content);
  const file = join(temporaryFolder(), 'bad.tgz');
  writeFileSync(file, gzipSync(Buffer.concat([header, body, Buffer.alloc(1024)])));
  return file;
}

function freshConfig(changes: Partial<JitConfig> = {}): JitConfig {
  return { ...jit.config, cacheRoot: join(temporaryFolder(), 'cache'), ...changes };
}

/** Everything below a folder. */
const filesIn = (folder: string): string[] =>
  existsSync(folder) ? readdirSync(folder, { recursive: true }).map(String) : [];

describe('installJitCache', () => {
  it.skipIf(process.platform === 'win32')('leaves nothing when the command is interrupted', async () => {
    const file = await pack(await makePackage());
    const base = temporaryFolder();
    // The interruption comes when the folder to unpack into is there.
    const interrupt = `
      import fs from 'node:fs';
      import { syncBuiltinESMExports } from 'node:module';
      const { mkdirSync } = fs;
      fs.mkdirSync = (path, options) => {
        mkdirSync(path, options);
        if (/jit-cache-/.test(path)) process.kill(process.pid, 'SIGINT');
      };
      syncBuiltinESMExports();`;
    const args = [
      `--import=data:text/javascript,${encodeURIComponent(interrupt)}`,
      join(packageRoot(), 'bin/flashinfer.js'),
    ];
    const { status, stdout, stderr } = spawnSync(process.execPath, [...args, 'install-jit-cache', file], {
      env: { ...process.env, FLASHINFER_WORKSPACE_BASE: base },
      encoding: 'utf8',
    });
    const said = 'flashinfer: install-jit-cache: interrupted; nothing was installed\n';
    expect([status, stdout, stderr]).toEqual([130, '', said]);
    expect(filesIn(base).filter((name) => /jit-cache/.test(name))).toEqual([]);
  });

  it('unpacks modules that then serve without a compiler, and replaces them when installed again', async () => {
    const file = await pack(await makePackage());
    const config = freshConfig({ disableJit: true });
    for (let i = 0; i < 2; i++) {
      const installed = await installJitCache(file, config);
      expect(installed).toMatchObject({ releases: ['cu130'], targets: [target], modules: 2 });
      expect(filesIn(installed.path)).toHaveLength(5);
    }
    expect(filesIn(join(config.cacheRoot, '.tmp'))).toEqual([]);
    const offline = { ...jit, config, sources: kernelSources(config) };
    for (const spec of specs) {
      expect(runSync(resolveModule(offline, spec, target, { blocking: true })).origin).toBe('jit-cache');
    }
    expect(() => runSync(resolveModule(offline, scaleSpec(9), target, { blocking: true }))).toThrow(
      /module scale_by_9_/,
    );
  });

  const modules = (folder: string) => join(folder, 'modules/cu130', target);
  const firstModule = (folder: string) =>
    join(modules(folder), readdirSync(modules(folder)).find((name) => name.endsWith('.br'))!);
  const damages: [string, (folder: string) => void, RegExp][] = [
    ['a changed module', (folder) => writeFileSync(firstModule(folder), 'x'), /is damaged: .*checksum/],
    ['a missing module', (folder) => rmSync(firstModule(folder)), /lacks sm_90a\/scale_by_2/],
    [
      'an unlisted file',
      (folder) => writeFileSync(join(modules(folder), 'extra'), ''),
      /sm_90a\/extra, which its manifest/,
    ],
    ['an unsound manifest', (folder) => writeFileSync(join(modules(folder), 'manifest.json'), '{}'), /no sound sm_90a/],
    ['no modules', (folder) => rmSync(join(folder, 'modules'), { recursive: true }), /has no modules/],
    [
      'another name',
      (folder) => writeFileSync(join(folder, 'package.json'), '{"name":"left-pad","version":"1.0.0"}'),
      /is the package left-pad 1.0.0/,
    ],
    ['no manifest', (folder) => rmSync(join(folder, 'package.json')), /no readable package/],
  ];
  it.each(damages)('refuses a tarball with %s and installs nothing', async (_, damage, message) => {
    const folder = await makePackage();
    damage(folder);
    const config = freshConfig();
    await expect(installJitCache(await pack(folder), config)).rejects.toThrow(message);
    expect(filesIn(installedJitCacheFolder(config))).toEqual([]);
    expect(filesIn(join(config.cacheRoot, '.tmp'))).toEqual([]);
  });

  const entries: [string, HeaderData, RegExp][] = [
    ['a path above', { path: 'package/../../evil', type: 'File' }, /evil, which is not below package/],
    ['an absolute path', { path: '/tmp/evil', type: 'File' }, /evil, which is not below package/],
    ['a Windows path', { path: 'package\\..\\evil', type: 'File' }, /which is not below package/],
    ['a link', { path: 'package/modules/a', type: 'SymbolicLink', linkpath: '/etc/passwd' }, /a SymbolicLink/],
    ['a hard link', { path: 'package/modules/a', type: 'Link', linkpath: '../../evil' }, /a Link/],
    ['a device', { path: 'package/modules/a', type: 'CharacterDevice' }, /a CharacterDevice/],
  ];
  it.each(entries)('refuses %s', async (_, entry, message) => {
    const config = freshConfig();
    await expect(installJitCache(archive(entry), config)).rejects.toThrow(message);
    expect(filesIn(config.cacheRoot)).toEqual([]);
  });

  it('refuses what is cut off, no archive, empty or not there', async () => {
    const file = await pack(await makePackage());
    const half = readFileSync(file).subarray(0, readFileSync(file).byteLength / 2);
    const write = (content: Uint8Array) => {
      const path = join(temporaryFolder(), 'file.tgz');
      writeFileSync(path, content);
      return path;
    };
    const config = freshConfig();
    for (const path of [write(half), write(Buffer.from('not an archive')), write(gzipSync(Buffer.alloc(1024)))]) {
      await expect(installJitCache(path, config)).rejects.toThrow(
        expect.objectContaining({ code: 'ERR_FLASHINFER_BINARY_MISMATCH' }),
      );
    }
    await expect(installJitCache('/nonexistent.tgz', config)).rejects.toThrow(/does not exist/);
    expect(filesIn(installedJitCacheFolder(config))).toEqual([]);
  });

  it('refuses another version, and takes it with FLASHINFER_DISABLE_VERSION_CHECK', async () => {
    const file = await pack(await makePackage('9.9.9'));
    await expect(installJitCache(file, freshConfig())).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_FLASHINFER_VERSION_MISMATCH' }),
    );
    const installed = await installJitCache(file, freshConfig({ disableVersionCheck: true }));
    expect(installed.version).toBe('9.9.9+cu130');
  });
});
