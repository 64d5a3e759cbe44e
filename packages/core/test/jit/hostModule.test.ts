// SPDX-License-Identifier: Apache-2.0
// Libraries of custom variants for the cpu device: compiler, cache, and what a mistake tells.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { devNull } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { hostVariantModule } from '../../src/attention/hostVariant.ts';
import { type AttentionVariantDefinition, defineAttentionVariant } from '../../src/attention/variant.ts';
import { CompileError } from '../../src/errors.ts';
import { KernelCache } from '../../src/jit/cache.ts';
import { findHostCompiler } from '../../src/jit/compilers/hostCompiler.ts';
import { jitConfig } from '../../src/jit/config.ts';
import { resolveHostModule } from '../../src/jit/hostModule.ts';
import { native } from '../../src/native/load.ts';
import { buildBundle } from '../bundle.ts';
import { expectThrows } from '../thrownBy.ts';
import { captureLog, temporaryFolder } from './fixture.ts';

const { compiler } = findHostCompiler();
if (compiler === undefined) console.warn('host module tests are skipped: no C++ compiler');

afterEach(() => vi.unstubAllEnvs());

const definition: AttentionVariantDefinition = {
  name: 'Capped',
  params: { cap: 'float32', table: 'float16[]' },
  logitsTransform: 'cap * tanhf(logits / cap)',
};

function jitIn(cacheRoot: string, changes: { disableJit?: boolean } = {}) {
  return { config: { ...jitConfig(), cacheRoot, ...changes }, cache: new KernelCache(cacheRoot) };
}

const resolve = (jit: ReturnType<typeof jitIn>, changes: Partial<AttentionVariantDefinition> = {}) =>
  resolveHostModule(jit, hostVariantModule(defineAttentionVariant({ ...definition, ...changes })), 'generic');

/** A compiler that runs shell commands first; `$0` is its own path. */
function wrapCompiler(commands: string): string {
  const path = join(temporaryFolder(), 'c++');
  writeFileSync(path, `#!/bin/sh\n${commands}\nexec '${compiler!.path}' "$@"\n`, { mode: 0o755 });
  return path;
}

describe.skipIf(compiler === undefined || process.platform === 'win32')('the library of a variant', () => {
  it('is compiled once, and found by the same content again', () => {
    const counter = join(temporaryFolder(), 'runs');
    vi.stubEnv('CXX', wrapCompiler(`echo run >> '${counter}'`));
    const runs = () => readFileSync(counter, 'utf8').split('\n').length - 1;
    const jit = jitIn(temporaryFolder());
    const path = resolve(jit);
    const compiled = runs();
    expect(native().cpu.loadVariant(path)).toBeGreaterThan(0);
    expect(path).toContain('variant_capped_');
    expect(resolve(jit)).toBe(path);
    expect(resolve(jitIn(jit.config.cacheRoot))).toBe(path);
    expect(runs()).toBe(compiled);
    expect(resolve(jit, { logitsTransform: 'cap * logits' })).not.toBe(path);
    expect(runs()).toBe(compiled + 1);
  });

  it('leaves nothing but finished entries and locks in the cache', () => {
    const jit = jitIn(temporaryFolder());
    const folder = join(resolve(jit), '..');
    expect(readdirSync(folder).sort()).toEqual(['log.txt', 'source.cc', 'spec.json', 'variant.so']);
    expect(readdirSync(join(folder, '..', '.tmp'))).toEqual([]);
  });

  it.each([
    ['a truncated library', (folder: string) => writeFileSync(join(folder, 'variant.so'), 'ELF')],
    ['a changed source', (folder: string) => writeFileSync(join(folder, 'source.cc'), 'int x;')],
    ['a damaged manifest', (folder: string) => writeFileSync(join(folder, 'spec.json'), '{}')],
  ])('is compiled anew in place of %s', async (_, damage) => {
    const jit = jitIn(temporaryFolder());
    const path = resolve(jit);
    const size = statSync(path).size;
    damage(join(path, '..'));
    const log = await captureLog(() => resolve(jit));
    expect(log).toContain('rebuilding variant_capped_');
    expect(statSync(path).size).toBe(size);
    expect(readdirSync(join(path, '..', '..', '.quarantine'))).toHaveLength(1);
  });

  it('is compiled once when processes and threads want it at the same time', async () => {
    const { esm, folder } = await buildBundle();
    try {
      const counter = join(temporaryFolder(), 'runs');
      const env = {
        ...process.env,
        CXX: wrapCompiler(`case "$*" in *-shared*) echo run >> '${counter}'; sleep 0.3;; esac`),
        FLASHINFER_WORKSPACE_BASE: temporaryFolder(),
        FLASHINFER_LOGDEST: devNull,
      };
      const use = `
        const { defineAttentionVariant, ones, singleDecodeWithKVCache } = await import(${JSON.stringify(pathToFileURL(esm).href)});
        const variant = defineAttentionVariant(${JSON.stringify({ name: 'Linear', logitsTransform: '2.0f', useSoftmax: false })});
        const [q, k] = [ones([1, 64], { dtype: 'float32', device: 'cpu' }), ones([3, 1, 64], { dtype: 'float32', device: 'cpu' })];
        const sum = singleDecodeWithKVCache(q, k, k, { variant }).toArraySync()[0];
        if (sum !== 6) throw new Error(String(sum));`;
      const threads = `
        import { Worker } from 'node:worker_threads';
        const workers = [1, 2].map(() => new Worker(new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(use)}))));
        ${use}
        for (const worker of workers) worker.on('error', (error) => { throw error; });`;
      const children = [use, use, threads].map((code) =>
        spawn(process.execPath, ['--input-type=module', '-e', code], { env, stdio: 'inherit' }),
      );
      const statuses = await Promise.all(children.map(async (child) => (await once(child, 'exit'))[0]));
      expect(statuses).toEqual([0, 0, 0]);
      expect(readFileSync(counter, 'utf8')).toBe('run\n');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('is not compiled with FLASHINFER_DISABLE_JIT, but found', () => {
    const root = temporaryFolder();
    const disabled = jitIn(root, { disableJit: true });
    expectThrows(
      () => resolve(disabled),
      'ERR_FLASHINFER_BINARY_NOT_FOUND',
      'variant Capped',
      'FLASHINFER_DISABLE_JIT',
      root,
    );
    const path = resolve(jitIn(root));
    expect(resolve(disabled)).toBe(path);
  });

  it('is an error of the cache where nothing can be written', () => {
    const root = join(temporaryFolder(), 'file');
    writeFileSync(root, '');
    expectThrows(() => resolve(jitIn(root)), 'ERR_FLASHINFER_CACHE_UNWRITABLE', root, 'FLASHINFER_WORKSPACE_BASE');
  });
});

describe.skipIf(compiler === undefined)('a mistake in a hook, on the cpu,', () => {
  const failure = (changes: Partial<AttentionVariantDefinition>): CompileError => {
    try {
      resolve(jitIn(temporaryFolder()), changes);
    } catch (error) {
      if (error instanceof CompileError) return error;
      throw error;
    }
    throw new Error('it compiled');
  };

  it('is reported at the expression, with the source kept', () => {
    const error = failure({ logitsTransform: 'capp * tanhf(logits / cap)' });
    expect(error.message).toMatch(/^variant Capped: .*<variant Capped: logitsTransform>:1.*capp/);
    expect(error.log).toContain('capp');
    expect(readFileSync(error.sourcePath!, 'utf8')).toContain('capp * tanhf');
    expect(error.command).toContain(error.sourcePath!);
  });

  it('is reported at its line', () => {
    const error = failure({ outputTransform: '[&] {\n  return oops;\n}()' });
    expect(error.message).toMatch(/<variant Capped: outputTransform>:2.*oops/);
  });

  it('is reported in a struct', () => {
    const decl = 'struct Capped : AttentionVariantBase {\n\n  float wrong = missing;\n};';
    const module = hostVariantModule(defineAttentionVariant({ name: 'Capped', decl }));
    expect(() => resolveHostModule(jitIn(temporaryFolder()), module, 'generic')).toThrow(
      /<variant Capped: decl>:3.*missing/,
    );
  });
});

describe('finding a C++ compiler', () => {
  it('says what to install where there is none', () => {
    vi.stubEnv('CXX', undefined);
    vi.stubEnv('PATH', '/nonexistent/bin');
    const jit = jitIn(temporaryFolder());
    expectThrows(
      () => resolve(jit),
      'ERR_FLASHINFER_COMPILER_NOT_FOUND',
      'variant Capped',
      'CXX',
      join('/nonexistent', 'bin'),
      'apt install g++',
    );
  });

  it.skipIf(compiler === undefined || process.platform === 'win32')(
    'takes CXX as a path or a name, and nothing else then',
    () => {
      const wrapped = wrapCompiler('');
      vi.stubEnv('CXX', wrapped);
      expect(findHostCompiler().compiler?.path).toBe(wrapped);
      vi.stubEnv('PATH', `${join(wrapped, '..')}:${process.env.PATH}`);
      vi.stubEnv('CXX', 'c++');
      expect(findHostCompiler().compiler?.path).toBe(wrapped);
      vi.stubEnv('CXX', '/nonexistent/c++');
      expect(findHostCompiler()).toEqual({ compiler: undefined, searched: ['/nonexistent/c++'] });
    },
  );

  it.skipIf(process.platform === 'win32')('passes over a program that does not answer', () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'c++'), '#!/bin/sh\nexit 3\n', { mode: 0o755 });
    vi.stubEnv('CXX', undefined);
    vi.stubEnv('PATH', folder);
    expect(findHostCompiler().searched[0]).toContain('--version failed: exit 3');
  });
});
