// SPDX-License-Identifier: Apache-2.0
// Compiled kernels from folders and packages, and what happens without any compiler.
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { runSync } from '../../src/jit/bothWays.ts';
import type { JitConfig } from '../../src/jit/config.ts';
import { prebuild } from '../../src/jit/prebuilt/build.ts';
import { packedName, prebuiltManifestFile } from '../../src/jit/prebuilt/manifest.ts';
import { type ResolvedModule, resolveModule } from '../../src/jit/resolve.ts';
import {
  cubinFolder,
  installedJitCacheFolder,
  jitCacheFolder,
  type KernelSource,
  kernelSources,
} from '../../src/jit/sources.ts';
import { packageVersion } from '../../src/packageRoot.ts';
import { expectThrows } from '../thrownBy.ts';
import { captureLog, scaleSpec, temporaryFolder, testJit } from './fixture.ts';
import { stubCompiler } from './stubCompiler.ts';

const spec = scaleSpec(5);
const target = 'sm_90a';

interface Attempt {
  readonly module: ResolvedModule;
  readonly compilations: number;
}

/** Resolves in a fresh cache. */
function resolve(sources: (config: JitConfig) => KernelSource[], changes: Partial<JitConfig> = {}): Attempt {
  const compiler = stubCompiler();
  const jit = testJit(compiler);
  const config = { ...jit.config, ...changes };
  const module = runSync(resolveModule({ ...jit, config, sources: sources(config) }, spec, target, { blocking: true }));
  return { module, compilations: compiler.compilations };
}

/** A folder as in @flashinfer/cubin, with the module of `spec`. */
async function builtFolder(changes: Partial<JitConfig> = {}, arch: `sm_${string}` = target, release = '13.0') {
  const folder = temporaryFolder();
  const compiler = { ...stubCompiler(), release };
  const config = { ...testJit(compiler).config, ...changes };
  const compile = async () => ({ cubin: stubCompiler.cubin(arch), log: '' });
  const manifest = await prebuild({ folder, target: arch, specs: [spec], compiler, config, compile });
  const [uri] = Object.keys(manifest.modules);
  return {
    folder,
    uri: uri!,
    path: join(folder, arch, packedName(uri!)),
    manifest: join(folder, arch, prebuiltManifestFile),
  };
}

describe('prebuilt kernels', () => {
  let built: Awaited<ReturnType<typeof builtFolder>>;
  beforeAll(async () => {
    built = await builtFolder();
  });
  const copyOf = (folder: string): string => {
    const copy = temporaryFolder();
    cpSync(folder, copy, { recursive: true });
    return copy;
  };
  const inCopy = (path: string, copy: string): string => path.replace(built.folder, copy);

  it('are asked in order after the cache, before a compiler, and never written to', () => {
    const jitCache = join(temporaryFolder(), 'modules');
    cpSync(built.folder, join(jitCache, 'cu130'), { recursive: true });
    const before = readdirSync(built.folder, { recursive: true });
    const both = resolve((config) => [jitCacheFolder(jitCache, config), cubinFolder(built.folder, config)]);
    expect([both.module.origin, both.compilations]).toEqual(['jit-cache', 0]);
    const one = resolve((config) => [
      jitCacheFolder(join(jitCache, 'absent'), config),
      cubinFolder(built.folder, config),
    ]);
    expect([one.module.origin, one.compilations, one.module.path]).toEqual(['cubin', 0, built.path]);
    expect(Buffer.compare(one.module.cubin, stubCompiler.cubin(target))).toBe(0);
    expect(readdirSync(built.folder, { recursive: true })).toEqual(before);

    const cached = testJit(stubCompiler());
    runSync(resolveModule(cached, spec, target, { blocking: true }));
    const again = { ...cached, sources: [cubinFolder(built.folder, cached.config)] };
    expect(runSync(resolveModule(again, spec, target, { blocking: true })).origin).toBe('cache');
  });

  it('serve with FLASHINFER_DISABLE_JIT', () => {
    const { module } = resolve((config) => [cubinFolder(built.folder, config)], { disableJit: true });
    expect(module.origin).toBe('cubin');
  });

  it('are found where install-jit-cache puts them, and in packages of the application', () => {
    const jit = testJit(stubCompiler());
    cpSync(built.folder, join(installedJitCacheFolder(jit.config), 'cu130'), { recursive: true });
    const installed = { ...jit, sources: kernelSources(jit.config) };
    expect(runSync(resolveModule(installed, spec, target, { blocking: true })).origin).toBe('jit-cache');

    const application = temporaryFolder();
    const root = join(application, 'node_modules/@flashinfer/cubin-sm90a');
    cpSync(built.folder, join(root, 'cubins'), { recursive: true });
    writeFileSync(join(root, 'package.json'), JSON.stringify({ version: packageVersion() }));
    vi.spyOn(process, 'cwd').mockReturnValue(application);
    const { module } = resolve(kernelSources);
    expect([module.origin, module.path.startsWith(root)]).toEqual(['cubin', true]);
  });
  afterEach(() => void vi.restoreAllMocks());

  it('for another architecture are an error in a folder the user named', async () => {
    const other = await builtFolder({}, 'sm_80');
    const copy = copyOf(other.folder);
    cpSync(join(copy, 'sm_80'), join(copy, target), { recursive: true });
    const manifest = join(copy, target, prebuiltManifestFile);
    writeFileSync(manifest, readFileSync(manifest, 'utf8').replace('"sm_80"', '"sm_90a"'));
    expect(() => resolve((config) => [cubinFolder(copy, config)])).toThrow(
      expect.objectContaining({
        name: 'BinaryNotFoundError',
        code: 'ERR_FLASHINFER_ARCH_MISMATCH',
        message: expect.stringContaining(
          `${join(copy, target, packedName(other.uri))} was built for sm_80; expected sm_90a`,
        ),
      }),
    );
  });

  const damages: [string, (path: string, manifest: string) => void, RegExp][] = [
    ['truncated', (path) => truncateSync(path, 20), /does not match its checksum/],
    [
      'replaced',
      (path) => writeFileSync(path, Buffer.alloc(readFileSync(path).byteLength)),
      /does not match its checksum/,
    ],
    ['missing', (path) => rmSync(path), /is missing and listed/],
    [
      'other content than the manifest says',
      (_, manifest) => {
        const parsed = JSON.parse(readFileSync(manifest, 'utf8'));
        for (const module of Object.values<{ sha256: string }>(parsed.modules)) module.sha256 = '0'.repeat(64);
        writeFileSync(manifest, JSON.stringify(parsed));
      },
      /does not hold the module/,
    ],
    [
      'more than the manifest says',
      (_, manifest) => {
        const parsed = JSON.parse(readFileSync(manifest, 'utf8'));
        for (const module of Object.values<{ bytes: number }>(parsed.modules)) module.bytes = 8;
        writeFileSync(manifest, JSON.stringify(parsed));
      },
      /does not hold the module/,
    ],
    ['without a readable manifest', (_, manifest) => writeFileSync(manifest, '{'), /is not a manifest/],
    [
      'named so as to leave the folder',
      (_, manifest) => writeFileSync(manifest, readFileSync(manifest, 'utf8').replace(/"scale_by_5/, '"../scale_by_5')),
      /is not a manifest/,
    ],
  ];
  it.each(damages)('%s are an error in a named folder and passed over in a package', async (_, damage, message) => {
    const copy = copyOf(built.folder);
    damage(inCopy(built.path, copy), inCopy(built.manifest, copy));
    expect(() => resolve((config) => [cubinFolder(copy, config)])).toThrow(
      expect.objectContaining({ code: 'ERR_FLASHINFER_BINARY_MISMATCH', message: expect.stringMatching(message) }),
    );
    const folder = temporaryFolder();
    cpSync(copy, join(folder, 'cu130'), { recursive: true });
    const log = await captureLog(() => {
      for (let i = 0; i < 2; i++) {
        const { module, compilations } = resolve((config) => [jitCacheFolder(folder, config)]);
        expect([module.origin, compilations]).toEqual(['compiled', 1]);
      }
    });
    expect(log).toContain(folder);
    expect(log.match(/ignoring it/g)).toHaveLength(1);
  });
});

describe('kernels of another version', () => {
  afterEach(() => void vi.restoreAllMocks());

  async function applicationWith(version: string): Promise<{ name: string; other: string }> {
    const other = '9.9.9';
    const { folder } = await builtFolder({ libraryVersion: version });
    const application = temporaryFolder();
    const root = join(application, 'node_modules/@flashinfer/cubin-sm90a');
    mkdirSync(root, { recursive: true });
    cpSync(folder, join(root, 'cubins'), { recursive: true });
    writeFileSync(join(root, 'package.json'), JSON.stringify({ version }));
    vi.spyOn(process, 'cwd').mockReturnValue(application);
    return { name: '@flashinfer/cubin-sm90a', other };
  }

  it('are refused with what to install', async () => {
    const { name, other } = await applicationWith('9.9.9');
    const core = packageVersion();
    expect(() => resolve(kernelSources)).toThrow(
      expect.objectContaining({
        code: 'ERR_FLASHINFER_VERSION_MISMATCH',
        message: expect.stringMatching(
          new RegExp(
            `${name} ${other} is installed and @flashinfer/core is ${core}; .*npm install ${name}@${core}.*DISABLE_VERSION_CHECK`,
          ),
        ),
      }),
    );
    const { folder } = await builtFolder({ libraryVersion: other });
    expect(() => resolve((config) => [cubinFolder(folder, config)])).toThrow(/holds kernels of 9.9.9 and/);
  });

  it('serve with FLASHINFER_DISABLE_VERSION_CHECK where they did not change', async () => {
    await applicationWith('9.9.9');
    const unchecked = { disableVersionCheck: true };
    expect(resolve(kernelSources, unchecked).module.origin).toBe('cubin');
    const changed = { ...unchecked, codegen: { debug: false, lineInfo: true } };
    expect(resolve(kernelSources, changed).module.origin).toBe('compiled');
  });

  it('are the same where only the CUDA version they were built with is added', async () => {
    await applicationWith(packageVersion());
    const root = join(process.cwd(), 'node_modules/@flashinfer/cubin-sm90a/package.json');
    writeFileSync(root, JSON.stringify({ version: `${packageVersion()}+cu130` }));
    expect(resolve(kernelSources).module.origin).toBe('cubin');
  });
});

describe('without a compiler', () => {
  it('a missing kernel is ERR_FLASHINFER_COMPILER_NOT_FOUND', () => {
    expect(() => runSync(resolveModule(testJit(undefined), spec, 'sm_90a', { blocking: true }))).toThrow(
      expect.objectContaining({ name: 'CompileError', code: 'ERR_FLASHINFER_COMPILER_NOT_FOUND' }),
    );
  });

  it('and with FLASHINFER_DISABLE_JIT it names the module and the ways to get it', () => {
    const jit = testJit(undefined);
    const config = { ...jit.config, disableJit: true };
    const disabled = { ...jit, config, sources: [cubinFolder('/nonexistent', config)] };
    expect(() => runSync(resolveModule(disabled, spec, 'sm_90a', { blocking: true }))).toThrow(
      expect.objectContaining({
        name: 'BinaryNotFoundError',
        code: 'ERR_FLASHINFER_BINARY_NOT_FOUND',
        message: expect.stringMatching(
          /module scale_by_5_[0-9a-f]{16} for sm_90a is not in .*cubin.*FLASHINFER_DISABLE_JIT.*warmup.*@flashinfer\/jit-cache.*FLASHINFER_CUBIN_DIR/,
        ),
      }),
    );
  });

  it.each([
    [true, 'FLASHINFER_NO_DOWNLOAD is set'],
    [false, 'carries no checksums for sm_90a'],
  ])('and why a repository is not asked (forbidden: %s)', (noDownload, reason) => {
    const jit = testJit(undefined);
    const config = { ...jit.config, disableJit: true, noDownload, repositories: ['http://127.0.0.1:1/'] };
    const folder = cubinFolder('/nonexistent', config);
    const disabled = { ...jit, config, sources: [folder, folder] };
    expectThrows(
      () => runSync(resolveModule(disabled, spec, 'sm_90a', { blocking: true })),
      'ERR_FLASHINFER_BINARY_NOT_FOUND',
      `, cubin (FLASHINFER_CUBINS_REPOSITORY is not asked: `,
      reason,
    );
  });
});
