// SPDX-License-Identifier: Apache-2.0
// Compiled kernels from folders, and what happens without any compiler.
import { cpSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { runSync } from '../../src/jit/bothWays.ts';
import { sha256 } from '../../src/jit/entry.ts';
import { type ResolvedModule, resolveModule } from '../../src/jit/resolve.ts';
import { cubinFolder, moduleFolder } from '../../src/jit/sources.ts';
import {
  captureLog,
  countingCompiler,
  requireNvcc,
  scaleSpec,
  type TestJit,
  temporaryFolder,
  testJit,
} from './fixture.ts';

const nvcc = requireNvcc();
const spec = scaleSpec(5);

describe.skipIf(!nvcc)('prebuilt kernels', () => {
  let builder: TestJit;
  let built: ResolvedModule;
  let other: ResolvedModule;
  // Not in the body, which also runs when the tests are skipped.
  beforeAll(() => {
    builder = testJit(nvcc);
    built = runSync(resolveModule(builder, spec, 'sm_90a', { blocking: true }));
    other = runSync(resolveModule(builder, spec, 'sm_80', { blocking: true }));
  });

  /** A folder as in @flashinfer/cubin. */
  function cubins(
    cubin: Uint8Array = built.cubin,
    listed: Uint8Array | undefined = cubin,
  ): { folder: string; path: string } {
    const folder = temporaryFolder();
    const name = `sm_90a/${built.uri}.cubin`;
    mkdirSync(join(folder, 'sm_90a'));
    writeFileSync(join(folder, name), cubin);
    const files = listed && { [name]: { bytes: listed.byteLength, sha256: sha256(listed) } };
    writeFileSync(join(folder, 'manifest.json'), JSON.stringify({ files: files ?? {} }));
    return { folder, path: join(folder, name) };
  }

  /** A folder as in @flashinfer/jit-cache. */
  function modules(): { folder: string; entry: string } {
    const folder = temporaryFolder();
    const entry = join(folder, 'cu130', 'sm_90a', built.uri);
    mkdirSync(dirname(entry), { recursive: true });
    cpSync(built.path, entry, { recursive: true });
    return { folder, entry };
  }

  const resolve = (sources: Parameters<typeof testJit>[1] & object, disableJit = false) => {
    const compiler = countingCompiler(nvcc!);
    const jit = testJit(compiler, sources);
    const module = runSync(
      resolveModule({ ...jit, config: { ...jit.config, disableJit } }, spec, 'sm_90a', { blocking: true }),
    );
    return { module, compilations: compiler.compilations, jit };
  };

  it('are asked in order after the cache, before a compiler, and never written to', () => {
    const { folder } = cubins();
    const { folder: jitCache } = modules();
    const before = readdirSync(folder, { recursive: true });
    const both = resolve({ sources: [moduleFolder(jitCache), cubinFolder(folder, true)] });
    expect([both.module.origin, both.compilations]).toEqual(['jit-cache', 0]);
    const one = resolve({ sources: [moduleFolder(join(jitCache, 'absent')), cubinFolder(folder, true)] });
    expect([one.module.origin, one.compilations]).toEqual(['cubin', 0]);
    expect(Buffer.compare(one.module.cubin, built.cubin)).toBe(0);
    expect(readdirSync(folder, { recursive: true })).toEqual(before);
    const cached = resolve({ sources: [cubinFolder(folder, true)], cacheRoot: builder.config.cacheRoot });
    expect(cached.module.origin).toBe('cache');
  });

  it('serve with FLASHINFER_DISABLE_JIT', () => {
    expect(resolve({ sources: [cubinFolder(cubins().folder, true)] }, true).module.origin).toBe('cubin');
  });

  it('for another architecture are an error in a folder the user named', () => {
    const { folder, path } = cubins(other.cubin);
    expect(() => resolve({ sources: [cubinFolder(folder, true)] })).toThrow(
      expect.objectContaining({
        name: 'BinaryNotFoundError',
        code: 'ERR_FLASHINFER_ARCH_MISMATCH',
        message: expect.stringContaining(`${path} was built for sm_80; expected sm_90a`),
      }),
    );
  });

  it.each([
    [
      'damaged',
      () => cubins(Buffer.concat([built.cubin, Buffer.from('x')]), built.cubin),
      /does not match its checksum/,
    ],
    ['unlisted', () => cubins(built.cubin, new Uint8Array(0)), /does not match its checksum/],
    ['no cubin at all', () => cubins(Buffer.from('not a cubin'), built.cubin), /does not match its checksum/],
  ])('that are %s are an error in a named folder and passed over in a package', async (_, make, message) => {
    const { folder, path } = make();
    expect(() => resolve({ sources: [cubinFolder(folder, true)] })).toThrow(
      expect.objectContaining({ code: 'ERR_FLASHINFER_BINARY_MISMATCH', message: expect.stringMatching(message) }),
    );
    const log = await captureLog(() => {
      const { module, compilations } = resolve({ sources: [cubinFolder(folder, false)] });
      expect([module.origin, compilations]).toEqual(['compiled', 1]);
    });
    expect(log).toContain(path);
    expect(log).toMatch(/ignoring it/);
  });

  it('without a manifest are not trusted', () => {
    const { folder } = cubins();
    writeFileSync(join(folder, 'manifest.json'), '{');
    expect(() => resolve({ sources: [cubinFolder(folder, true)] })).toThrow(/is not listed in manifest.json/);
  });

  it('that are damaged in the jit-cache package are compiled instead, and left as they are', async () => {
    const { folder, entry } = modules();
    truncateSync(join(entry, 'kernel.cubin'), 64);
    const log = await captureLog(() => {
      expect(resolve({ sources: [moduleFolder(folder)] }).module.origin).toBe('compiled');
    });
    expect(log).toMatch(/ignoring .*kernel.cubin fails its checksum/);
    expect(readFileSync(join(entry, 'kernel.cubin')).byteLength).toBe(64);
  });
});

describe('without a compiler', () => {
  it('a missing kernel is ERR_FLASHINFER_COMPILER_NOT_FOUND', () => {
    expect(() => runSync(resolveModule(testJit(undefined), spec, 'sm_90a', { blocking: true }))).toThrow(
      expect.objectContaining({ name: 'CompileError', code: 'ERR_FLASHINFER_COMPILER_NOT_FOUND' }),
    );
  });

  it('and with FLASHINFER_DISABLE_JIT it names the module and the ways to get it', () => {
    const jit = testJit(undefined, { sources: [cubinFolder('/nonexistent', true)] });
    const disabled = { ...jit, config: { ...jit.config, disableJit: true } };
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
});
