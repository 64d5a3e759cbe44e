// SPDX-License-Identifier: Apache-2.0
// The user's cache under damage: whatever happened to it, what is loaded is what was compiled.
import { randomInt } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runAsync, runSync } from '../../src/jit/bothWays.ts';
import { KernelCache } from '../../src/jit/cache.ts';
import { resolveModule } from '../../src/jit/resolve.ts';
import { cacheInfo, listCachedModules } from '../../src/jit/status.ts';
import { native } from '../../src/native/load.ts';
import {
  captureLog,
  countingCompiler,
  requireNvcc,
  scaleSpec,
  temporaryFolder,
  testJit,
  until,
  wrapNvcc,
} from './fixture.ts';

const nvcc = requireNvcc();
const spec = scaleSpec(5);
const files = ['kernel.cubin', 'source.cu', 'log.txt', 'spec.json'];

describe.skipIf(!nvcc)('kernel cache', () => {
  const setUp = () => {
    const compiler = countingCompiler(nvcc!);
    const jit = testJit(compiler);
    const resolve = () => runSync(resolveModule(jit, spec, 'sm_90a', { blocking: true }));
    const first = resolve();
    return { compiler, jit, resolve, first, folder: first.path, target: join(jit.config.cacheRoot, 'sm_90a') };
  };

  it('keeps cubin, source, log and checksums below arch and uri, and answers from there', () => {
    const { compiler, jit, resolve, first, folder, target } = setUp();
    expect(folder).toBe(join(target, `${first.uri}_cu${nvcc!.release.replace('.', '')}`));
    expect(readdirSync(folder).sort()).toEqual([...files].sort());
    expect(readFileSync(join(folder, 'source.cu'), 'utf8')).toContain('test::scale<5>(params)');
    expect(readFileSync(join(folder, 'log.txt'), 'utf8')).toMatch(/Used \d+ registers/);
    const second = resolve();
    expect([first.origin, second.origin, compiler.compilations]).toEqual(['compiled', 'cache', 1]);
    expect(Buffer.compare(second.cubin, first.cubin)).toBe(0);
    expect(readdirSync(join(target, '.tmp'))).toEqual([]);
    const [module] = listCachedModules(jit.config.cacheRoot);
    expect(module).toMatchObject({
      uri: first.uri,
      target: 'sm_90a',
      state: 'valid',
      compiler: { kind: 'nvcc' },
      path: folder,
    });
    expect(cacheInfo(jit.config.cacheRoot)).toEqual({ path: jit.config.cacheRoot, count: 1, bytes: module!.bytes });
  });

  it('rebuilds an entry with any file truncated, changed in one bit, or missing', { timeout: 60_000 }, () => {
    const { compiler, jit, resolve, first, folder, target } = setUp();
    const intact = temporaryFolder();
    cpSync(folder, intact, { recursive: true });
    const damages: Record<string, (path: string) => void> = {
      truncated: (path) => truncateSync(path, randomInt(readFileSync(path).byteLength)),
      empty: (path) => truncateSync(path, 0),
      'flipped bit': (path) => {
        const bytes = readFileSync(path);
        // A flip that turns white space of the JSON into other white space changes nothing.
        const at = path.endsWith('.json') ? bytes.indexOf('"uri"') + 8 + randomInt(8) : randomInt(bytes.byteLength);
        bytes[at]! ^= 1 << randomInt(7);
        writeFileSync(path, bytes);
      },
      grown: (path) => writeFileSync(path, 'x', { flag: 'a' }),
      missing: (path) => rmSync(path),
    };
    let rebuilt = 0;
    for (const [damage, apply] of Object.entries(damages)) {
      for (const file of files) {
        const before = compiler.compilations;
        rmSync(folder, { recursive: true });
        cpSync(intact, folder, { recursive: true });
        apply(join(folder, file));
        expect(listCachedModules(jit.config.cacheRoot)[0]?.state, `${damage} ${file}`).toBe('corrupt');
        const module = resolve();
        expect(compiler.compilations, `${damage} ${file}`).toBe(before + 1);
        expect(Buffer.compare(module.cubin, first.cubin)).toBe(0);
        expect(readdirSync(join(target, '.quarantine'))).toHaveLength(++rebuilt);
        expect(resolve().origin).toBe('cache');
      }
    }
  });

  it('says what it rebuilds and why', async () => {
    const { resolve, folder, first } = setUp();
    truncateSync(join(folder, 'kernel.cubin'), 100);
    const log = await captureLog(resolve);
    expect(log).toMatch(
      new RegExp(
        `rebuilding ${first.uri} for sm_90a: kernel.cubin fails its checksum; the old entry is kept in .*quarantine`,
      ),
    );
    expect(log).toMatch(
      /compiling scale_by_5_\w+ for sm_90a with nvcc \d+\.\d, not found in .*this call blocks.*warmup/,
    );
  });

  it('does not take an entry of another kernel or architecture', () => {
    const { compiler, resolve, folder, jit } = setUp();
    const other = runSync(resolveModule(jit, scaleSpec(6), 'sm_90a', { blocking: true }));
    rmSync(folder, { recursive: true });
    cpSync(other.path, folder, { recursive: true });
    expect(resolve().origin).toBe('compiled');
    const sm80 = runSync(resolveModule(jit, spec, 'sm_80', { blocking: true }));
    rmSync(folder, { recursive: true });
    cpSync(sm80.path, folder, { recursive: true });
    expect(resolve().origin).toBe('compiled');
    expect(compiler.compilations).toBe(5);
  });

  it('lets compilers of different releases keep entries beside each other, and uses any without a compiler', () => {
    const { jit, first } = setUp();
    const newer = countingCompiler({ ...nvcc!, release: '13.9' });
    const withNewer = { ...jit, findCompiler: () => newer, compilerRelease: () => '13.9' };
    const resolve = (environment: typeof jit) =>
      runSync(resolveModule(environment, spec, 'sm_90a', { blocking: true }));
    expect(resolve(withNewer)).toMatchObject({ origin: 'compiled', uri: first.uri });
    expect(resolve(withNewer).origin).toBe('cache');
    expect(resolve(jit).origin).toBe('cache');
    const without = { ...jit, findCompiler: () => undefined, compilerRelease: () => undefined };
    expect(resolve(without).origin).toBe('cache');
    expect(resolve({ ...without, config: { ...jit.config, disableJit: true } }).origin).toBe('cache');
    expect(newer.compilations).toBe(1);
  });

  it('tells a cache that cannot be written from every other error', () => {
    const blocker = join(temporaryFolder(), 'file');
    writeFileSync(blocker, '');
    const jit = testJit(nvcc, { cacheRoot: join(blocker, 'cache') });
    expect(() => runSync(resolveModule(jit, spec, 'sm_90a', { blocking: true }))).toThrow(
      expect.objectContaining({
        name: 'CacheError',
        code: 'ERR_FLASHINFER_CACHE_UNWRITABLE',
        message: expect.stringMatching(
          new RegExp(`${join(blocker, 'cache')} cannot be written \\(ENOTDIR.*FLASHINFER_WORKSPACE_BASE`),
        ),
      }),
    );
  });

  it('reads a cache it could not write', () => {
    const { jit, first } = setUp();
    const cache = new KernelCache(jit.config.cacheRoot);
    cache.prepare = () => expect.unreachable();
    expect(runSync(resolveModule({ ...jit, cache }, spec, 'sm_90a', { blocking: true })).uri).toBe(first.uri);
  });

  it('waits for a lock, says so after a second, and then finds the entry', async () => {
    const compiler = countingCompiler(nvcc!);
    const jit = testJit(compiler);
    const { uri } = runSync(resolveModule(jit, spec, 'sm_80', { blocking: true }));
    const locks = join(jit.config.cacheRoot, 'sm_90a', '.locks');
    mkdirSync(locks, { recursive: true });
    const lockPath = join(locks, `${uri}_cu${nvcc!.release.replace('.', '')}.lock`);
    const handle = native().host.tryLockFile(lockPath);
    const log = await captureLog(async () => {
      const waiting = runAsync(resolveModule(jit, spec, 'sm_90a', { blocking: false }));
      await new Promise((resolve) => setTimeout(resolve, 1300));
      expect(compiler.compilations).toBe(1);
      native().host.unlockFile(handle);
      expect((await waiting).origin).toBe('compiled');
    });
    expect(log).toContain(`waiting for another process or thread that compiles ${uri} (lock ${lockPath})`);
  });

  it('does not wait in this thread for a compilation of this thread', async () => {
    const marker = join(temporaryFolder(), 'started');
    const compiler = countingCompiler(wrapNvcc(nvcc!, `touch '${marker}'; sleep 0.5`));
    const jit = testJit(compiler);
    const background = runAsync(resolveModule(jit, spec, 'sm_90a', { blocking: false }));
    await until(() => existsSync(marker), 'the compilation');
    const blocking = runSync(resolveModule(jit, spec, 'sm_90a', { blocking: true }));
    const other = await background;
    expect(Buffer.compare(blocking.cubin, other.cubin)).toBe(0);
    expect(compiler.compilations).toBe(2);
    expect(runSync(resolveModule(jit, spec, 'sm_90a', { blocking: true })).origin).toBe('cache');
    expect(readdirSync(join(jit.config.cacheRoot, 'sm_90a', '.tmp'))).toEqual([]);
  });
});
